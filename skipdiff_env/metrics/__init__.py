"""Image quality metrics behind one small interface, with the weights of NIQE and LPIPS included.

``load_metric`` turns a name or a function into a :class:`Metric`: ``metric(images, references)`` takes
batches of 8-bit pictures and returns one float64 score per picture. Importing this package imports
neither pyiqa nor torchvision nor scikit-image; these are imported when a metric first needs them.
"""

from skipdiff_env.metrics.base import Metric
from skipdiff_env.metrics.fidelity import psnr_y, ssim_y, studio_luma
from skipdiff_env.metrics.load import load_metric
from skipdiff_env.metrics.results import Results, or_zero

__all__ = ["Metric", "Results", "load_metric", "or_zero", "psnr_y", "ssim_y", "studio_luma"]
