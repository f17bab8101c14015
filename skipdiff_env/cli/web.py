"""``skipdiff web``: a web page on this machine."""

from __future__ import annotations

import argparse
import sys

HELP = "serve a web page that enlarges photographs and shows each step"
DESCRIPTION = """Serve a web page on which you enlarge a photograph, see the latents and the
decisions, and decide in the agent's place. Press Ctrl-C to close the page.
The command needs the extra 'web': pip install 'skipdiff[web]'.

examples:
  skipdiff web
  skipdiff web --model runs/mine/model --policy agent.safetensors --port 8000"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    # fmt: off
    add = parser.add_argument
    add("-m", "--model", action="append", default=[], metavar="NAME",
        help="also offer this model (name or folder); may be repeated")
    add("--policy", action="append", default=[], metavar="FILE",
        help="also offer this exported agent; may be repeated")
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1, ... [auto]")
    add("--side", type=int, default=288, metavar="PX",
        help="longer side, in pixels, of pictures that are compared [288]")
    add("--host", default="127.0.0.1", metavar="NAME",
        help="address to listen on; 0.0.0.0 lets other machines connect [127.0.0.1]")
    add("--port", type=int, default=7860, metavar="N", help="port to listen on; 0 takes a free one [7860]")
    # fmt: on


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from ..upscale import pick_device
    from ..web.server import serve
    from ..web.workshop import Workshop

    workshop = Workshop(args.model, args.policy, str(pick_device(args.device)), args.side)
    try:
        serve(workshop, args.host, args.port, _ready)
    except KeyboardInterrupt:  # the usual way to end it
        print("skipdiff: the page is closed", file=sys.stderr)
    return 0


def _ready(address: str) -> None:
    print(f"SkipDiff's page is at {address} (Ctrl-C ends it)", flush=True)
