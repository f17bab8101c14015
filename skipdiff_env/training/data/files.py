"""Image files for training: found in folders, tar files and lists; decoded by OpenCV, except TIFF."""

from __future__ import annotations

import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from ...errors import SkipDiffError, first_line

SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".jp2",
    ".avif", ".gif",
}  # fmt: skip


def decode(data: bytes) -> np.ndarray | None:
    """Decode an image file to uint8 (H, W, 3) RGB, upright; None if it is damaged or not an image."""
    if not data or _cut_short(data):
        return None
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):  # TIFF, since OpenCV misreads some layouts
        return _decode_tiff(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _decode_tiff(data: bytes) -> np.ndarray | None:
    from ...images import decode_image

    try:
        return decode_image(io.BytesIO(data), "")
    except SkipDiffError:
        return None


def _cut_short(data: bytes) -> bool:
    """Return whether a JPEG or PNG lacks its end; OpenCV decodes such files, with the rest grey or black."""
    if data.startswith(b"\xff\xd8"):
        # A thumbnail has its own end, but before the start of the picture's scan.
        return data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    return data.startswith(b"\x89PNG") and b"IEND" not in data


def image_files(path: Path) -> list[Path]:
    """List the image files that a folder (recursively), a .txt list or an image path stands for, in order.

    Raises:
        SkipDiffError: if there is nothing at ``path``, or it is none of these.
    """
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not path.is_file():
        raise SkipDiffError(f"no training data at {path}: it is neither a file nor a folder")
    if path.suffix.lower() == ".txt":
        # names need not be UTF-8, and editors on Windows write a byte-order mark
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        lines = (line.strip() for line in text.splitlines())
        return [file for line in lines if line for file in image_files(path.parent / line)]
    if path.suffix.lower() in SUFFIXES:
        return [path]
    raise SkipDiffError(f"{path} is not an image, a folder or a .txt list of them")


def members(paths: Sequence[str | Path]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of every image of folders, lists, image files and tar files, in a fixed order."""
    for path in map(Path, paths):
        if path.is_file() and path.suffix.lower() not in SUFFIXES | {".txt"}:
            yield from _tar_members(path)
        else:
            yield from ((str(file), file.read_bytes()) for file in image_files(path))


def _tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile() and Path(member.name).suffix.lower() in SUFFIXES:
                    file = tar.extractfile(member)
                    yield f"{path}:{member.name}", file.read() if file else b""
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        why = first_line(error)
        raise SkipDiffError(
            f"{path} is not an image, a folder, a .txt list or a complete tar file: {why}"
        ) from None
