"""Sources of images: everything that an environment's ``images=`` accepts, behind one small class."""

from __future__ import annotations

import io
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any, SupportsIndex

import numpy as np
import torch
from PIL import Image

from ..diffusion.resize import to_arrays
from ..errors import SkipDiffError
from .bundled import PHOTOGRAPHS
from .io import RGB8, check_rgb8, decode_image, from_pillow, read_image
from .photo import is_image_name

Item = tuple[str, Callable[[], RGB8]]
"""A name, and a function that loads the image of that name."""

_CACHE_BYTES = 512 * 2**20


class ImageSource:
    """A fixed sequence of named images, decoded on first access.

    It has ``len(source)``, ``source.name(i)`` and ``source[i]``, a read-only uint8 (H, W, 3) array; a
    negative ``i`` counts from the end, and an ``i`` out of range raises IndexError. Up to ``cache_bytes`` of
    decoded images are kept in memory, and the least recently used are dropped first. A source is made by
    :func:`open_source`. It can be pickled, without its cache, if its items can be. It is not thread-safe.

    Args:
        items: names, which messages and infos show, and functions that load the images.
        low_resolution: whether the images are low-resolution inputs without a known original.
        cache_bytes: upper bound, in bytes, of the decoded images that are kept; a larger image is not kept.
        degrade: function ``degrade(lr, index)`` that further degrades the low-resolution input, uint8
            (h, w, 3), made from image ``index``; see :mod:`.mixed`.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        low_resolution: bool = False,
        cache_bytes: int = _CACHE_BYTES,
        degrade: Callable[[RGB8, int], RGB8] | None = None,
    ) -> None:
        if not items:
            raise SkipDiffError("images: an image source needs at least one image")
        self.low_resolution, self.degrade = low_resolution, degrade
        self._items = list(items)
        self._cache_bytes = cache_bytes
        self._cache: OrderedDict[int, RGB8] = OrderedDict()
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def name(self, index: int) -> str:
        """Return the name of image ``index``, such as its file name in a folder or an archive."""
        return self._items[index][0]

    def take(self, count: int, first: int = 0, every: int = 1) -> ImageSource:
        """Return up to ``count`` of the images: every ``every``-th, beginning with number ``first``.

        Each image keeps its degradation.
        """
        items = self._items[first::every][:count]
        degrade = self.degrade and partial(_numbered, self.degrade, first, every)
        return ImageSource(
            items, low_resolution=self.low_resolution, cache_bytes=self._cache_bytes, degrade=degrade
        )

    def only(self, stems: Container[str]) -> ImageSource:
        """Return the images, not degraded, whose file names without folder and suffix are in ``stems``."""
        items = [item for item in self._items if PurePath(item[0].replace(":", "/")).stem in stems]
        return ImageSource(items, low_resolution=self.low_resolution, cache_bytes=self._cache_bytes)

    def degraded(self, degrade: Callable[[RGB8, int], RGB8]) -> ImageSource:
        """Return the same originals, with ``degrade`` applied to the inputs made from them.

        Raises:
            SkipDiffError: if the images are inputs already.
        """
        if self.low_resolution:
            raise SkipDiffError("images: low-resolution inputs cannot be degraded further")
        return ImageSource(self._items, cache_bytes=self._cache_bytes, degrade=degrade)

    def repeated(self, words: Sequence[str]) -> ImageSource:
        """Return each image, not degraded, once for every word, named ``NAME, WORD``."""
        items = [(f"{name}, {word}", load) for name, load in self._items for word in words]
        return ImageSource(items, low_resolution=self.low_resolution, cache_bytes=self._cache_bytes)

    def __iter__(self) -> Iterator[RGB8]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: SupportsIndex) -> RGB8:
        index = range(len(self))[index]
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        image = self._items[index][1]().view()
        image.setflags(write=False)  # it is shared, so nobody may change it
        self._keep(index, image)
        return image

    def _keep(self, index: int, image: RGB8) -> None:
        if image.nbytes > self._cache_bytes:
            return
        self._cache[index] = image
        self._cached_bytes += image.nbytes
        while self._cached_bytes > self._cache_bytes:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict(), "_cached_bytes": 0}

    def __repr__(self) -> str:
        kind = "low-resolution " if self.low_resolution else ""
        return f"<ImageSource of {len(self)} {kind}image{'s' * (len(self) != 1)}, first {self.name(0)!r}>"


def _numbered(degrade: Callable[[RGB8, int], RGB8], first: int, every: int, lr: RGB8, index: int) -> RGB8:
    return degrade(lr, first + every * index)


def open_source(images: Any = None, *, low_resolution: bool = False) -> ImageSource:
    """Open the images that ``images=`` names.

    Args:
        images:
            - None: the bundled photographs, with a short side of 256 pixels;
            - a folder: all image files directly in it, sorted by name;
            - a ``.tar`` file: all images in it, sorted by name, read from the archive in place;
            - an image file;
            - a list or tuple of image files, uint8 (H, W, 3) arrays, PIL images or tensors, or one
              array, PIL image or tensor;
            - a map-style ``torch.utils.data.Dataset`` (anything that has a length and can be indexed) of
              uint8 (H, W, 3) arrays, PIL images, tensors (3, H, W) that are uint8 or float in [0, 1], or
              tuples or lists that begin with one of these;
            - an :class:`ImageSource`, returned as it is.

            Files are found now but decoded when first used; arrays are not copied.
        low_resolution: whether the images are themselves the low-resolution inputs, without originals. By
            default they are originals, from which the inputs are made.

    Raises:
        SkipDiffError: if there is no image, if something cannot be one, or if an :class:`ImageSource` was
            opened with another ``low_resolution``; the message says which.
    """
    if isinstance(images, ImageSource):
        if images.low_resolution != low_resolution:
            raise SkipDiffError(
                f"images: this ImageSource was opened with low_resolution={images.low_resolution}, "
                f"not {low_resolution}: open it as it will be used"
            )
        return images
    items = _items(images)
    if not items:
        raise SkipDiffError(f"images: the given {type(images).__name__} holds no images")
    return ImageSource(items, low_resolution=low_resolution)


def bundled_images() -> ImageSource:
    """Return the bundled photographs (see :mod:`.bundled`), each with a short side of 256 pixels."""
    return open_source(None)


def _items(images: Any) -> list[Item]:
    if images is None:
        return [(photo.name, photo.read_small) for photo in PHOTOGRAPHS]
    if isinstance(images, (str, Path)):
        return _path_items(Path(images))
    if isinstance(images, Image.Image) or getattr(images, "ndim", None) == 3:
        images = [images]
    if isinstance(images, (list, tuple)):
        return [_list_item(index, item) for index, item in enumerate(images)]
    if isinstance(images, Mapping) or not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
        raise SkipDiffError(
            "images: expected a folder, a .tar or image file, a list of files or arrays, or a map-style "
            f"Dataset, got {type(images).__name__}"
        )
    names = [f"{type(images).__name__}[{index}]" for index in range(len(images))]
    return [(name, partial(_dataset_item, images, index, name)) for index, name in enumerate(names)]


def _path_items(path: Path) -> list[Item]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if is_image_name(file.name) and file.is_file())
        if not files:
            raise SkipDiffError(f"{path}: no image files directly in this folder")
        return [(file.name, partial(read_image, file)) for file in files]
    if not path.exists():
        raise SkipDiffError(f"{path}: no such file or folder")
    if path.suffix.lower() == ".tar":
        return _tar_items(path)
    return [(path.name, partial(read_image, path))]


def _tar_items(path: Path) -> list[Item]:
    try:
        with tarfile.open(path, "r:") as archive:
            members = [member for member in archive if member.isreg() and is_image_name(member.name)]
    except tarfile.TarError as error:
        raise SkipDiffError(f"{path}: is not a complete, uncompressed tar archive ({error})") from error
    if not members:
        raise SkipDiffError(f"{path}: no image files in this archive")
    members.sort(key=lambda member: member.name)
    return [(m.name, partial(_read_member, path, m.name, m.offset_data, m.size)) for m in members]


def _read_member(path: Path, name: str, offset: int, size: int) -> RGB8:
    try:
        with path.open("rb") as archive:
            archive.seek(offset)
            data = archive.read(size)
    except OSError as error:
        raise SkipDiffError(f"{path}: can no longer be read ({error.strerror})") from error
    return decode_image(io.BytesIO(data), f"{path}: {name}")


def _list_item(index: int, item: Any) -> Item:
    if isinstance(item, (str, Path)):
        if not Path(item).is_file():
            raise SkipDiffError(f"{item}: no such image file (images[{index}])")
        return str(item), partial(read_image, item)
    name = f"images[{index}]"
    return name, partial(np.asarray, to_rgb8(item, name))


def _dataset_item(dataset: Any, index: int, name: str) -> RGB8:
    item = dataset[index]
    return to_rgb8(item[0] if isinstance(item, (tuple, list)) and item else item, name)


def to_rgb8(item: Any, name: str) -> RGB8:
    """Convert an image to uint8 (H, W, 3), from such an array, a PIL image, or a tensor (3, H, W) that is
    uint8 or float in [0, 1]; error messages call it ``name``.

    Raises:
        SkipDiffError: if it is none of these.
    """
    if isinstance(item, Image.Image):
        return from_pillow(item, name)
    if isinstance(item, torch.Tensor):
        return _tensor_to_rgb8(item.detach().cpu(), name)
    if isinstance(item, np.ndarray):
        return check_rgb8(item, name)
    raise SkipDiffError(f"{name}: expected an array, a PIL image or a tensor, got {type(item).__name__}")


def _tensor_to_rgb8(tensor: torch.Tensor, name: str) -> RGB8:
    if tensor.ndim != 3 or tensor.shape[0] != 3 or tensor.numel() == 0:
        raise SkipDiffError(f"{name}: an image tensor must be (3, H, W), got {tuple(tensor.shape)}")
    if tensor.is_floating_point():
        tensor = tensor.float()
        if not (tensor.min() >= 0 and tensor.max() <= 1):  # in this form, the check also refuses NaN
            raise SkipDiffError(
                f"{name}: a float tensor must hold numbers from 0 to 1, got {tensor.min():.4g} to "
                f"{tensor.max():.4g}"
            )
        tensor = (tensor * 255).round().to(torch.uint8)
    return check_rgb8(to_arrays(tensor[None])[0], name)
