"""Images larger than memory: tensors that are stored in unnamed files and processed strip by strip.

The arithmetic of chains is elementwise. A :class:`Mapped` tensor passes itself through elementwise functions
one strip of rows at a time, into another mapped tensor, so that no chain needs to know where its images are
stored. Other functions see an ordinary tensor of the same numbers. Small images are kept in memory.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ..errors import SkipDiffError

LARGE = 2**28
"""Minimum size in bytes of an image that is stored in a file."""
SMALL = 2**24
"""Size in bytes below which an image is an ordinary tensor, since torch spends a second on imports when it
first meets a :class:`Mapped`."""

STRIP = 2**22
"""Approximate number of elements that are processed at once."""

_BLOCK = 2**20
_ATEN = torch.ops.aten
_COPIES = (_ATEN._to_copy.default, _ATEN.clone.default)
"""Elementwise functions that torch does not tag as pointwise."""
_BLANKS = (
    _ATEN.zeros_like.default, _ATEN.empty_like.default, _ATEN.new_zeros.default, _ATEN.new_empty.default,
)  # fmt: skip


class Mapped(torch.Tensor):
    """A tensor of images, (B, C, H, W), all zeros at first.

    With :data:`LARGE` bytes or more, it is stored in a file, which is removed when the tensor is no longer
    used, or when the process ends, however that happens.

    Args:
        shape: (B, C, H, W).
        folder: folder of that file.
        dtype: type of its numbers.

    Raises:
        SkipDiffError: if the file cannot be made, for example because there is no room for it.
    """

    plain: Tensor
    """The same numbers as an ordinary tensor. Parts that have been accessed stay in memory until
    :func:`release` is called."""
    folder: Path
    _pages: mmap.mmap | None

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __new__(cls, shape: Sequence[int], folder: Path, dtype: torch.dtype = torch.float32) -> Mapped:
        size = torch.Size(shape).numel() * dtype.itemsize
        pages = _pages(size, folder) if size >= LARGE else None
        plain = (
            torch.zeros(shape, dtype=dtype)
            if pages is None
            else torch.frombuffer(pages, dtype=dtype).view(*shape)
        )
        made = torch.Tensor._make_subclass(cls, plain)
        made.plain, made.folder, made._pages = plain, folder, pages
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of a function that is given a mapped tensor."""
        kwargs = kwargs or {}
        first = next(x for x in tree_leaves((args, kwargs)) if isinstance(x, Mapped))
        stays = kwargs.get("device") in (None, torch.device("cpu"))
        shape = args[1] if func in _BLANKS[2:] else first.shape
        if func in _BLANKS and stays and len(shape) == 4:
            return Mapped(shape, first.folder, kwargs.get("dtype") or first.dtype)
        in_place = func._schema.name.endswith("_")
        if (func in _COPIES and stays) or (_is_pointwise(func) and "out" not in kwargs):
            return _strip_by_strip(func, args, kwargs, first.folder, args[0] if in_place else None)
        return func(*tree_map(_plain, args), **tree_map(_plain, kwargs))

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """Return an array of the same numbers, in the same memory."""
        return self.plain.numpy(force=force)

    def tolist(self) -> Any:
        """Return the numbers as nested lists."""
        return self.plain.tolist()

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self.clone()

    def release(self) -> None:
        """Free the memory of parts that were read or written; the numbers are kept in the file."""
        if self._pages is not None and hasattr(mmap, "MADV_DONTNEED"):  # elsewhere the system does this
            self._pages.madvise(mmap.MADV_DONTNEED)


def release(*images: Tensor) -> None:
    """Call :meth:`Mapped.release` for those of the images that are mapped."""
    for image in images:
        if isinstance(image, Mapped):
            image.release()


def channel_by_channel(function: Callable[[Tensor], Tensor], image: Tensor, folder: Path | None) -> Tensor:
    """Apply a function that treats channels separately, (B, C, h, w) → (B, C, H, W), channel by channel.

    The result is a :class:`Mapped` tensor in ``folder``; if that is None, or the result is small, an ordinary
    one.
    """
    if folder is None:
        return function(image)
    made: Tensor | None = None
    for channel in range(image.shape[1]):
        plane = function(image[:, channel : channel + 1])
        if made is None:
            shape = len(plane), image.shape[1], *plane.shape[-2:]
            small = plane.nbytes * image.shape[1] < min(SMALL, LARGE)
            made = torch.empty(shape, dtype=plane.dtype) if small else Mapped(shape, folder, plane.dtype)
        made[:, channel : channel + 1] = plane
        release(image, made)
    assert made is not None
    return made


def strips(height: int, row: int) -> list[slice]:
    """Divide ``height`` rows of ``row`` numbers each into strips of about ``STRIP`` numbers."""
    rows = max(1, STRIP // row)
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]


def _strip_by_strip(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], folder: Path, into: Tensor | None
) -> Tensor:
    """Apply an elementwise function to images; return a new image, or ``into`` if it works in place."""
    tensors = [x for x in args if isinstance(x, Tensor)]
    shape = torch.broadcast_shapes(*(x.shape for x in tensors))
    made = into
    for rows in strips(shape[-2], shape.numel() // max(1, shape[-2])):
        cut = [_rows(x, rows, shape[-2]) if isinstance(x, Tensor) else x for x in args]
        found = func(*cut, **kwargs)
        if into is None:
            made = Mapped(shape, folder, found.dtype) if made is None else made
            _plain(made)[..., rows, :] = found
        release(*tensors, *([] if made is None else [made]))
    assert made is not None
    return made


def _is_pointwise(func: Any) -> bool:
    return torch.Tag.pointwise in func.tags and torch.Tag.data_dependent_output not in func.tags


def _plain(x: Any) -> Any:
    return x.plain if isinstance(x, Mapped) else x


def _rows(x: Tensor, rows: slice, height: int) -> Tensor:
    """Cut a strip from a tensor of ``height`` rows; return all of a tensor that is the same for every row."""
    plain = _plain(x)
    return plain[..., rows, :] if x.dim() >= 2 and x.shape[-2] == height else plain


def _pages(size: int, folder: Path) -> mmap.mmap:
    """Map ``size`` bytes of a new unnamed file, for which space is reserved."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:  # without room for a page, writing it would end the process
                for place in range(0, size, _BLOCK):
                    file.write(bytes(min(_BLOCK, size - place)))
                file.flush()
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise SkipDiffError(
            f"cannot keep an image of {size / 1e9:.1f} GB in {folder} ({error.strerror}): make room, or name "
            "another folder in TMPDIR"
        ) from None
