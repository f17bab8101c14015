"""Images: files, the sources of an episode's images, bundled photographs, and low-resolution inputs."""

from .bundled import BUNDLED_IMAGE_SIZE, PHOTOGRAPHS, Photograph, demo_photograph
from .io import FORMATS, RGB8, check_rgb8, decode_image, encode_image, from_pillow, read_image, write_image
from .mixed import MixedQuality, mixed_quality
from .pairs import Pair, crop, cut_to_multiple, episode_pair, make_pair, shrink
from .sources import ImageSource, bundled_images, open_source, to_rgb8

__all__ = [
    "BUNDLED_IMAGE_SIZE",
    "FORMATS",
    "PHOTOGRAPHS",
    "RGB8",
    "ImageSource",
    "MixedQuality",
    "Pair",
    "Photograph",
    "bundled_images",
    "check_rgb8",
    "crop",
    "cut_to_multiple",
    "decode_image",
    "demo_photograph",
    "encode_image",
    "episode_pair",
    "from_pillow",
    "make_pair",
    "mixed_quality",
    "open_source",
    "read_image",
    "shrink",
    "to_rgb8",
    "write_image",
]
