"""Enlarges photographs: plans the work, does it, and reports the results. The command line is in ``cli/``."""

from ..diffusion.device import pick_device
from .choice import Choice, choose_model
from .clock import Clock
from .compare import Comparison, side_by_side
from .enlarge import Enlargement, Enlarger, Scaling, Work
from .jobs import Failure, Job, list_jobs
from .run import Options, Outcome, Runner, Task
from .setting import model_notice, usual_tiles

__all__ = [
    "Choice",
    "Clock",
    "Comparison",
    "Enlargement",
    "Enlarger",
    "Failure",
    "Job",
    "Options",
    "Outcome",
    "Runner",
    "Scaling",
    "Task",
    "Work",
    "choose_model",
    "model_notice",
    "pick_device",
    "list_jobs",
    "side_by_side",
    "usual_tiles",
]
