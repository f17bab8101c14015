"""``skipdiff upscale``: enlarge photographs."""

from __future__ import annotations

import argparse
import contextlib
import math
import warnings
from typing import TYPE_CHECKING, Any

from ..errors import SkipDiffError
from .precision import add_precision, dtype_of
from .upscale_report import Report, announce

if TYPE_CHECKING:
    import torch

    from ..upscale import Enlarger, Runner

EFFORTS = ("fast", "normal", "best")
"""As in :data:`skipdiff_env.chains.EFFORTS`, which would import torch."""
FORMATS = ("png", "jpeg", "webp", "tiff", "bmp")
ENGINES = ("torch", "onnx")
"""As in :data:`skipdiff_env.diffusion.engines.ENGINES`."""

GPU_JOBS = 4
"""Maximum number of photographs processed at once on CUDA; small ones then share network calls."""

HELP = "enlarge photographs"
DESCRIPTION = """Enlarge PNG, JPEG, WebP, TIFF and BMP files; GIF, HEIC and AVIF are read, too.

examples:
  skipdiff upscale holiday.jpg -o holiday-large.jpg
  skipdiff upscale scans/ -o large/ --recursive --scale 2 --format tiff --resume
  skipdiff upscale 'party/*.jpg' -o web/ --width 1920 --height 1920 --quality 85"""


def epilog() -> str:
    """Say how many network calls each effort takes with each available model."""
    from ..chains import efforts
    from ..diffusion import available_models, load_pretrained

    lines = [f"network calls per picture, by effort: {', '.join(EFFORTS)}"]
    for name, folder in available_models().items():
        with contextlib.suppress(SkipDiffError, OSError):
            model = load_pretrained(folder, "cpu")
            counts = (chain.most_evaluations(model.schedule) for chain in efforts(model).values())
            lines.append(f"  {name:22}{', '.join(map(str, counts))}")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.usage = "skipdiff upscale INPUT ... -o OUT [options]"
    # fmt: off
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="image files, folders or quoted glob patterns")
    add("-o", "--out", required=True, metavar="OUT",
        help="a file if it ends in .png, .jpg, ...; else a folder")
    add("-m", "--model", default="auto", metavar="NAME",
        help="name or folder of a model [chosen per photograph]")
    add = parser.add_argument_group("size").add_argument
    add("--scale", type=_factor, metavar="X", help="factor of enlargement, 1 < X <= 64 [the model's own]")
    add("--width", type=_positive, metavar="PX", help="maximum width in pixels (instead of --scale)")
    add("--height", type=_positive, metavar="PX", help="maximum height in pixels (instead of --scale)")
    method = parser.add_argument_group("method")
    add = method.add_argument
    add("--effort", choices=EFFORTS, metavar="NAME", help="fast, normal or best (see below) [normal]")
    add("--start", type=_positive, metavar="K", help="SkipDiff with this fixed start (instead of --effort)")
    add("--policy", metavar="HOW",
        help="denoise, skip, random, agent, an agent's FILE, ccsr:N, addsr:N, plan:N or a plan")
    add("--step-cost", type=_price, default=0.0, metavar="C",
        help="price per evaluation, for agents that use it [0]")
    add("--coarse-steps", type=_positive, metavar="S",
        help="number of coarse steps [10, or fewer to divide T]")
    add("--refiner", default="own", metavar="NAME",
        help="own, none or a model's; own:0.5 for half of it [own]")
    add("--clean", type=_share, default=1.0, metavar="C",
        help="how much noise and blocking to remove, 0 to 1 [1]")
    add("--colour-fix", action="store_true", help="keep the colours of large areas")
    add("--detail", type=_share, default=1.0, metavar="D",
        help="how much invented detail to keep, 0 to 1 [1]")
    add("--seed", type=_seed, default=0, metavar="N", help="noise seed; each seed gives another result [0]")
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1, ... [auto]")
    add_precision(method)
    add("--engine", choices=ENGINES, default="torch", metavar="NAME",
        help="torch, or onnx for ONNX Runtime on the CPU [torch]")
    add("--tile", type=_positive, metavar="PX",
        help="side of tiles: 128, 144, 160, ... [by memory]")
    add("--jobs", type=_positive, metavar="N", help="most photographs processed at once [1; 4 on CUDA]")
    add = parser.add_argument_group("files").add_argument
    add("-r", "--recursive", action="store_true", help="search sub-folders too, without following links")
    add("--format", type=_format, choices=FORMATS, metavar="NAME",
        help="png, jpeg, webp, tiff or bmp [that of OUT or INPUT]")
    add("--quality", type=_quality, default=95, metavar="Q",
        help="quality of JPEG and WebP files, 1 to 100 [95]")
    add("--force", action="store_true", help="replace existing files")
    add("--resume", action="store_true", help="keep complete results of the same photographs")
    add("--keep-location", action="store_true", help="keep GPS data and other location data")
    add = parser.add_argument_group("report").add_argument
    add("--compare", action="store_true", help="write OUT-compare.png: bicubic, full chain, result")
    add("--score", metavar="METRIC", help="rate each result by a metric such as niqe")
    add("-n", "--dry-run", action="store_true", help="only say what would be done")
    add("-q", "--quiet", action="store_true", help="print only errors")
    add("--json", action="store_true", help="print one JSON line per photograph")
    # fmt: on


def _number(text: str, kind: type, low: float, high: float, what: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


def _factor(text: str) -> float:
    return _number(text, float, math.nextafter(1, 2), 64.0, "a number above 1, at most 64")


def _share(text: str) -> float:
    return _number(text, float, 0.0, 1.0, "a number from 0 to 1")


def _price(text: str) -> float:
    return _number(text, float, 0.0, 1e6, "a number from 0 to 1000000")


def _positive(text: str) -> int:
    return _number(text, int, 1, 10**6, "a whole number from 1 to 1000000")


def _format(text: str) -> str:
    return {"jpg": "jpeg", "tif": "tiff"}.get(text, text)


def _quality(text: str) -> int:
    return _number(text, int, 1, 100, "a whole number from 1 to 100")


def _seed(text: str) -> int:
    return _number(text, int, 0, 2**63 - 1, "a whole number from 0 to 2**63 - 1")


def run(args: argparse.Namespace) -> int:
    """Enlarge photographs; return 2 if any of them failed."""
    # What Pillow only warns of either does not matter or is raised as an error later.
    warnings.filterwarnings("ignore", module="PIL")
    if args.scale and (args.width or args.height):
        raise SkipDiffError("give either --scale, or --width and --height")
    if sum(how is not None for how in (args.effort, args.start, args.policy)) > 1:
        raise SkipDiffError("give only one of --effort, --start and --policy")
    if args.effort and args.coarse_steps:
        raise SkipDiffError("give either --effort or --coarse-steps: each effort has its own steps")
    announce(args.inputs, args.out, args.quiet or args.dry_run)
    from ..upscale import Failure, list_jobs  # torch takes seconds to import

    jobs, failures = list_jobs(args.inputs, args.out, args.recursive, args.format, args.compare)
    report = Report(len(jobs) + len(failures), args.quiet, args.json)
    for failure in failures:
        report.failed(failure)
    if jobs:
        runner = _runner(args, report)
        tasks = []
        for job in jobs:
            found = runner.look(job)
            if isinstance(found, Failure):
                report.failed(found)
            elif found.there:
                report.there(found)
            elif args.dry_run:
                report.planned(found, runner.enlarger(job))
            else:
                tasks.append(found)
        with report.progress(tasks):
            for result in runner(tasks):
                if isinstance(result, Failure):
                    report.failed(result)
                else:
                    report.done(result, runner.enlarger(result.task.job))
    return report.summary()


def _runner(args: argparse.Namespace, report: Report) -> Runner:
    """Create a runner with the options of the command; models are loaded when they are needed."""
    import torch

    from ..metrics import load_metric
    from ..upscale import Options, Runner, Scaling, pick_device

    device = pick_device(args.device)
    torch.backends.cudnn.deterministic = True  # the same settings give the same bytes; see Runner
    metric = load_metric(args.score, device) if args.score else None
    if metric and metric.reference:
        raise SkipDiffError(
            f"metric {args.score!r} needs an original, which is not available: use a no-reference metric "
            "such as niqe"
        )
    if metric and metric.name.startswith("niqe"):
        report.note("NIQE rewards grain, so a noisier result may score better: look at the pictures too")
    scaling = Scaling(args.scale, args.width, args.height)
    jobs = args.jobs or (GPU_JOBS if device.type == "cuda" else 1)
    options = Options(
        scaling, args.quality, args.keep_location, args.force, args.resume, args.compare, metric, jobs
    )
    return Runner(lambda name: _enlarger(args, name, device, report), options, args.model)


def _enlarger(args: argparse.Namespace, name: str, device: torch.device, report: Report) -> Enlarger:
    """Create an enlarger with the settings of the command."""
    from ..chains import parse, with_detail
    from ..diffusion import load_pretrained
    from ..upscale import Enlarger, model_notice, usual_tiles

    model = load_pretrained(name, device, dtype_of(args), args.engine)
    notice = model_notice(name)
    if notice:
        report.note(f"{model.name}: {notice}")
    tile, batch = usual_tiles(model, args.tile)
    how = next((how for how in (args.effort, args.start, args.policy) if how is not None), None)
    chain = parse(how, model, args.coarse_steps, step_cost=args.step_cost, refiner=args.refiner)
    if notice := chain.notice(model):
        report.note(notice)
    chain = with_detail(chain, args.detail, model)
    fix = args.colour_fix
    return Enlarger(model, chain, args.seed, tile, batch, report.tick, args.clean, colour_fix=fix)
