"""Turns the inputs and output that a user named into pairs of files. Nothing is decoded or written here."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SkipDiffError
from ..files import part_of
from ..images.photo import FORMATS, SUFFIXES, Format, Header, is_image_name, read_header


@dataclass(frozen=True)
class Job:
    """One photograph to enlarge."""

    source: Path
    target: Path
    format: Format
    header: Header
    sheet: Path | None = None
    """The file of the comparison, if one is wanted."""


@dataclass(frozen=True)
class Failure:
    """A photograph that could not be enlarged, and why, in one line."""

    source: str
    reason: str


def list_jobs(
    inputs: Sequence[str], out: str, recursive: bool = False, format: str | None = None, compare: bool = False
) -> tuple[list[Job], list[Failure]]:
    """Pair every photograph with the files of its result.

    Args:
        inputs: files, folders and glob patterns.
        out: a file if it has the suffix of an image file, else a folder.
        recursive: whether sub-folders are searched too; ``out`` then has the same sub-folders.
        format: name of the format to write; None: that of ``out``, or else each photograph's own (PNG if
            that can only be read).
        compare: whether each photograph also gets a comparison.

    Returns:
        The jobs that can be done, and the failures (missing files, files that are not images, results that
        cannot be written, two photographs with the same result file).

    Raises:
        SkipDiffError: if ``out`` is empty, does not fit the inputs or names a format that cannot be written.
    """
    if not out:
        raise SkipDiffError("-o is empty: give a file or a folder")
    if out == "-":
        raise SkipDiffError("-o -: results are not written to standard output: give a file or a folder")
    target, fmt = _target_file(inputs, out, format)
    folder = Path(out)
    found, failures = _find(inputs, recursive, None if target else folder)
    jobs: list[Job] = []
    for source, relative in found:
        try:
            header = read_header(source)
        except SkipDiffError as error:
            failures.append(Failure(str(source), str(error)))
            continue
        own = fmt or FORMATS[header.format]
        path = target or folder / _named(relative, own)
        sheet = path.with_name(f"{path.stem}-compare.png") if compare else None
        jobs.append(Job(source, path, own, header, sheet))
    refused = _clashes(jobs, [source for source, _ in found])
    failures += [Failure(str(job.source), reason) for job, reason in refused.items()]
    return [job for job in jobs if job not in refused], failures


def _target_file(inputs: Sequence[str], out: str, format: str | None) -> tuple[Path | None, Format | None]:
    """Return the one file to write, if ``out`` is one, and the format that was asked for."""
    path = Path(out)
    asked = FORMATS[format] if format else None
    if out.endswith(("/", os.sep)) or not path.suffix:
        return None, asked
    suffix = path.suffix.lower()
    one_file = len(inputs) == 1 and not os.path.isdir(inputs[0]) and not _is_pattern(inputs[0])
    if suffix not in SUFFIXES:
        # A number may end a folder's name, as in 2024.06
        if one_file and suffix[1:].isalnum() and not suffix[1:].isdigit() and not os.path.isdir(path):
            raise SkipDiffError(
                f"cannot write {suffix} files: end {out} in {', '.join(f.suffix for f in FORMATS.values())}, "
                "or in / for a folder"
            )
        return None, asked
    if os.path.isdir(path):
        raise SkipDiffError(f"{out} is a folder: name a file in it, or a folder without {suffix}")
    if len(inputs) > 1:
        raise SkipDiffError(f"several photographs cannot all be written to {out}: give a folder with -o")
    if not one_file:
        raise SkipDiffError(
            f"{inputs[0]} may stand for several photographs, which cannot all be written to {out}: give a "
            "folder with -o, or name one photograph"
        )
    named = FORMATS[SUFFIXES[suffix]]
    if asked and asked is not named:
        raise SkipDiffError(
            f"{out} would not be a {asked.name.upper()} file: leave out --format or end it in {asked.suffix}"
        )
    return path, named


def _is_pattern(text: str) -> bool:
    return glob.has_magic(text) and not os.path.lexists(text)


def _find(
    inputs: Iterable[str], recursive: bool, out: Path | None
) -> tuple[list[tuple[Path, Path]], list[Failure]]:
    """Find photographs, each with its path below the output folder; none twice, and none within ``out``."""
    found: dict[Path, tuple[Path, Path]] = {}
    failures: list[Failure] = []
    for text in inputs:
        path, closed = Path(text), list[Failure]()
        if not text:  # as from an unset shell variable; Path would mean the current folder
            files, reason = [], "is empty: give a file, a folder or a pattern"
        elif os.path.isdir(path):
            files = [(p, p.relative_to(path)) for p in _images_in(path, recursive, out, closed)]
            reason = "holds no images" + ("" if recursive else "; --recursive searches its sub-folders too")
        elif _is_pattern(text):
            matches = sorted(glob.glob(text, recursive=True))
            if out and not _begins_in(text, out):  # results of an earlier run
                matches = [name for name in matches if not _lies_in(name, out)]
            files = [(Path(name), Path(Path(name).name)) for name in matches if not os.path.isdir(name)]
            closed, reason = _closed_to(text), "matches no file"
        else:
            files, reason = [(path, Path(path.name))], ""
        failures += closed or ([] if files else [Failure(text or "''", reason)])
        for file, relative in files:
            found.setdefault(_place(file), (file, relative))
    return list(found.values()), failures


def _lies_in(name: str, folder: Path) -> bool:
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(name)).parents


def _begins_in(pattern: str, folder: Path) -> bool:
    """Return whether a pattern asks for files in a folder, judged by the part before its first wildcard."""
    plain = re.split(r"[*?[]", pattern)[0]
    return _lies_in(os.path.join(os.path.dirname(plain) or ".", "x"), folder)


def _place(path: Path) -> Path:
    """Resolve links in the folder of a file; a link itself counts as a file of its own."""
    return Path(os.path.realpath(path.parent), path.name)


def _images_in(folder: Path, recursive: bool, out: Path | None, closed: list[Failure]) -> list[Path]:
    """List image files, sorted by name, without those in ``out``, which are results of an earlier run.

    Folders that cannot be read are added to ``closed``.
    """
    own = os.path.realpath(out) if out else None
    if own == os.path.realpath(folder):
        own = None
    files = []
    for root, folders, names in os.walk(folder, onerror=lambda error: closed.append(_closed(error))):
        folders[:] = sorted(
            f for f in folders
            if recursive and not f.startswith(".") and os.path.realpath(os.path.join(root, f)) != own
        )  # fmt: skip
        files += [Path(root) / name for name in sorted(names) if is_image_name(name)]
    return files


def _closed(error: OSError) -> Failure:
    return Failure(error.filename, f"cannot be searched ({error.strerror})")


def _closed_to(pattern: str) -> list[Failure]:
    """Return the folders in a pattern that cannot be read, which ``glob`` does not report."""
    parts = Path(pattern).parts
    folders = {
        folder: None
        for end in range(1, len(parts))
        for folder in sorted(glob.glob(os.path.join(*parts[:end], ""), recursive=True))
    }
    failures = []
    for folder in folders:
        try:
            os.scandir(folder).close()
        except OSError as error:
            failures.append(_closed(error))
    return failures


def _named(relative: Path, fmt: Format) -> Path:
    """Return the same name with the format's suffix; suffixes of other kinds (``scan.2``) are kept."""
    if SUFFIXES.get(relative.suffix.lower()) == fmt.name:
        return relative
    stem = relative.stem if is_image_name(f"x{relative.suffix}") else relative.name
    return relative.with_name(stem + fmt.suffix)


def _clashes(jobs: Sequence[Job], sources: Iterable[Path]) -> dict[Job, str]:
    """Return the jobs that cannot write their files, and why.

    No file may replace a photograph or another job's file. Of two jobs that would write the same file, one
    that keeps its photograph's name takes precedence, and a result takes precedence over a comparison.
    """
    photographs = {place for source in sources for place in (_place(source), Path(os.path.realpath(source)))}
    writes = [
        (job, "become", job.target)
        for job in sorted(jobs, key=lambda job: job.target.name != job.source.name)
    ]
    writes += [(job, "be compared in", job.sheet) for job in jobs if job.sheet]
    taken: dict[Path, Path] = {}
    refused: dict[Job, str] = {}
    for job, verb, path in writes:
        if job in refused:
            continue
        if photographs & {_place(path), Path(os.path.realpath(path))}:
            refused[job] = f"would replace the photograph {path}: give another folder with -o"
        elif _place(path) in taken:
            other = taken[_place(path)]
            refused[job] = f"would {verb} {path}, which is taken by {other}: rename one of them"
        elif reason := _out_of_reach(path):
            refused[job] = f"would {verb} {path}, {reason}"
        else:
            taken[_place(path)] = job.source
    return refused


def _out_of_reach(path: Path) -> str:
    """Say why this file cannot be written, as far as is known beforehand; empty if it can."""
    if os.path.isdir(path):
        return "which is a folder: move it away"
    existing = existing_folder(path)
    if not os.path.isdir(existing):
        return f"but {existing} is not a folder"
    names = path.relative_to(
        existing
    ).parts  # each name is tried alone, since only existing parts of a path are checked
    for place in (*(existing / name for name in names), path, part_of(path)):
        try:
            os.lstat(place)
        except (FileNotFoundError, PermissionError):
            pass
        except OSError as error:  # such as a name that is too long
            return f"which is not possible ({error.strerror}): rename it, or give another -o"
    return ""


def existing_folder(path: Path) -> Path:
    """Return the lowest existing folder above a file, or whatever else exists in its place."""
    return next(folder for folder in path.parents if os.path.lexists(folder))
