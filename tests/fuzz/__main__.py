"""``python -m tests.fuzz --count 10000 --seed 1 --log FILE``: many generated inputs, block by block.

A line of the log is a block that held. The same command again goes on after the last of them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.upscale.conftest import save_plain

from .run import BLOCK, fuzz


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--count", type=int, default=10_000, help="trees of files [10000]")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other inputs [1]")
    parser.add_argument("--log", type=Path, required=True, help="where progress is written and read")
    args = parser.parse_args()
    head = f"seed {args.seed}, block "
    lines = args.log.read_text().splitlines() if args.log.exists() else []
    first = sum(line.startswith(head) for line in lines)
    with tempfile.TemporaryDirectory() as folder, args.log.open("a") as log:
        model = save_plain(Path(folder) / "plain-4x")
        for block in range(first, -(-args.count // BLOCK)):
            try:
                done, failed = fuzz(model, args.seed * 10**6 + block)
            except BaseException as error:
                print(f"stopped in block {block} of seed {args.seed}: {error!r}"[:300], file=log)
                raise
            line = f"{head}{block}: {BLOCK} trees, {done} photographs enlarged, {failed} refused"
            print(line, file=log, flush=True)
            print(line, flush=True)


if __name__ == "__main__":
    main()
