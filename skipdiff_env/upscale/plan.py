"""What the user typed → which file becomes which. Nothing is decoded or written here."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SkipDiffError
from ..images.photo import FORMATS, SUFFIXES, Format, Header, is_image_name, read_header


@dataclass(frozen=True)
class Job:
    """One photograph to enlarge."""

    source: Path
    target: Path
    format: Format
    header: Header


@dataclass(frozen=True)
class Failure:
    """A photograph that could not be enlarged, and why, in one line."""

    source: str
    reason: str


def plan_jobs(
    inputs: Sequence[str], out: str, recursive: bool = False, format: str | None = None
) -> tuple[list[Job], list[Failure]]:
    """Pair every photograph with the file it becomes.

    Args:
        inputs: files, folders and glob patterns.
        out: a file if it ends as image files do, else a folder.
        recursive: whether folders are searched to the bottom; their shape is kept in ``out``.
        format: name of the format to write; None keeps each photograph's own, or goes by ``out``.

    Returns:
        What can be done, and what cannot (missing, no image, two that would become one file).

    Raises:
        SkipDiffError: if ``out`` does not fit the inputs or names no format that can be written.
    """
    target, fmt = _target_file(inputs, out, format)
    folder = Path(out)
    found, failures = _find(inputs, recursive, None if target else folder)
    sources = {source.resolve() for source, _ in found}
    jobs: list[Job] = []
    taken: dict[Path, Path] = {}
    for source, relative in found:
        try:
            header = read_header(source)
            own = fmt or FORMATS[header.format]
            path = target or folder / _named(relative, own)
            _check_target(source, path, sources, taken)
        except SkipDiffError as error:
            failures.append(Failure(str(source), str(error)))
            continue
        taken[path.resolve()] = source
        jobs.append(Job(source, path, own, header))
    return jobs, failures


def _target_file(inputs: Sequence[str], out: str, format: str | None) -> tuple[Path | None, Format | None]:
    """The one file to write, if ``out`` is one, and the format that was asked for."""
    path = Path(out)
    asked = FORMATS[format] if format else None
    if out.endswith(("/", os.sep)) or not path.suffix:
        return None, asked
    suffix = path.suffix.lower()
    one_file = len(inputs) == 1 and not Path(inputs[0]).is_dir() and not _is_pattern(inputs[0])
    if suffix not in SUFFIXES:
        if one_file and suffix[1:].isalpha() and not path.is_dir():
            raise SkipDiffError(
                f"cannot write {suffix} files: end {out} in {', '.join(f.suffix for f in FORMATS.values())}, "
                "or in / for a folder"
            )
        return None, asked
    if path.is_dir():
        raise SkipDiffError(f"{out} is a folder: name a file in it, or a folder without {suffix}")
    if not one_file:
        raise SkipDiffError(f"several photographs cannot all become {out}: give a folder with -o")
    named = FORMATS[SUFFIXES[suffix]]
    if asked and asked is not named:
        raise SkipDiffError(
            f"{out} would be no {asked.name.upper()} file: leave out --format or end it in {asked.suffix}"
        )
    return path, named


def _is_pattern(text: str) -> bool:
    return glob.has_magic(text) and not os.path.lexists(text)


def _find(
    inputs: Iterable[str], recursive: bool, out: Path | None
) -> tuple[list[tuple[Path, Path]], list[Failure]]:
    """Photographs, each with its path below the output folder; none twice, none out of ``out``."""
    found: dict[Path, tuple[Path, Path]] = {}
    failures = []
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            files = [(p, p.relative_to(path)) for p in _images_in(path, recursive, out)]
            reason = "holds no images" + ("" if recursive else "; --recursive looks into its folders too")
        elif _is_pattern(text):
            files = [
                (p, Path(p.name)) for p in map(Path, sorted(glob.glob(text, recursive=True))) if p.is_file()
            ]
            reason = "matches no file"
        else:
            files, reason = [(path, Path(path.name))], ""
        if not files:
            failures.append(Failure(text, reason))
        for file, relative in files:
            found.setdefault(file.resolve(), (file, relative))
    return list(found.values()), failures


def _images_in(folder: Path, recursive: bool, out: Path | None) -> list[Path]:
    """Image files by name, in order; what lies in ``out`` is our own work of an earlier run."""
    own = out.resolve() if out and out.resolve() != folder.resolve() else None
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(
            f for f in folders if recursive and not f.startswith(".") and (Path(root) / f).resolve() != own
        )
        files += [Path(root) / name for name in sorted(names) if is_image_name(name)]
    return files


def _named(relative: Path, fmt: Format) -> Path:
    """The same name, with a suffix of the format."""
    return relative if SUFFIXES.get(relative.suffix.lower()) == fmt.name else relative.with_suffix(fmt.suffix)


def _check_target(source: Path, target: Path, sources: set[Path], taken: dict[Path, Path]) -> None:
    whole = target.resolve()
    if whole in sources:
        raise SkipDiffError(f"would replace the photograph {target}: give another folder with -o")
    if whole in taken:
        raise SkipDiffError(f"would become {target}, as would {taken[whole]}: rename one of them")
    if target.is_dir():
        raise SkipDiffError(f"would become {target}, which is a folder: move that away")
    existing = next(p for p in (target.parent, *target.parent.parents) if p.exists())
    if not existing.is_dir():
        raise SkipDiffError(f"cannot write {target}: {existing} is no folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise SkipDiffError(f"cannot write {target}: {existing} is not writable; give another folder with -o")
