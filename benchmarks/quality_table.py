"""Quality of every way to enlarge a set of images, as CSV and Markdown.

    python -m benchmarks quality --images val_set14_bsd20.tar --starts all

Writes ``benchmarks/results/<model>/<set>.csv`` (a row an image) and ``.md`` (the means), and resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from skipdiff_env import load_pretrained
from skipdiff_env.images import open_source

from .quality import COLUMNS, bootstrap, evaluate, markdown, standard_methods, summarise

RESULTS = Path(__file__).parent / "results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments of the quality table."""
    parser.add_argument("--model", default="natural-4x", help="a shipped model's name or a model folder")
    parser.add_argument("--images", type=Path, required=True, help="folder or tar of HR images")
    parser.add_argument(
        "--starts", default="", help="FSR starts: 'all', or numbers such as 7,9 (default: the model's)"
    )
    parser.add_argument("--seeds", type=int, default=1, help="noise seeds an image: 0 … SEEDS - 1")
    parser.add_argument("--limit", type=int, help="only the first LIMIT images")
    parser.add_argument("--no-chain", action="store_true", help="leave out the full chain, the slowest row")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results folder")


def run(args: argparse.Namespace) -> int:
    """Evaluate, or finish an evaluation, and write the table."""
    model = load_pretrained(args.model)
    starts = range(1, 11) if args.starts == "all" else [int(k) for k in args.starts.split(",") if k]
    source = open_source(args.images)
    methods = standard_methods(model, starts)
    if args.no_chain:
        methods = {name: method for name, method in methods.items() if not name.startswith("full")}
    folder = args.out / model.name
    store = folder / f"{args.images.stem}.csv"
    rows = evaluate(
        model,
        source,
        methods,
        range(args.seeds),
        args.limit,
        store,
        progress=lambda line: print(line, flush=True),
    )
    text = (
        f"# {model.name} on {args.images.stem}\n\n{len({row.image for row in rows})} images, "
        f"{args.seeds} noise seed(s), model hash `{model.hash}`. PSNR and SSIM on Y (BT.601), NIQE and "
        "LPIPS (AlexNet) as pyiqa computes them; consistency: PSNR of the result, shrunk again, against "
        "its LR input.\n\n"
        + markdown(summarise(rows), timed=False)
        + "\n95 % bootstrap intervals of the means\n\n| method | "
        + " | ".join(COLUMNS[:4])
        + " |\n|---|---|---|---|---|\n"
    )
    for method in methods:
        cells = []
        for column in COLUMNS[:4]:
            low, high = bootstrap([getattr(r, column) for r in rows if r.method == method])
            cells.append(f"{low:.4g} … {high:.4g}")
        text += f"| {method} | " + " | ".join(cells) + " |\n"
    (folder / f"{args.images.stem}.md").write_text(text, encoding="utf-8")
    print("\n" + text)
    return 0
