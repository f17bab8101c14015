"""A store of computed latents, so that agents train on lookups instead of network calls.

Noise is a function of (image, noise seed, level). A latent is therefore a function of (model, coarse levels,
image, noise seed, history), where the history is the levels at which it was denoised. :class:`CachedProcess`
is the process with a cache; it gives the same latents and counts the same evaluations, whether a latent is
computed or looked up. An x̂0 that is looked up is rounded to 8 bits; if the cache is ``half``, a latent that
is looked up is rounded to float16.
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .diffusion import DENOISE, NoiseKey, SkipProcess, SkipState, to_signed, to_uint8
from .diffusion.process import Callback, History
from .diffusion.protocol import identity_of
from .errors import SkipDiffError

SCORE_BYTES = 1024
"""Bytes counted for each score, more than its key and value take."""


class Entry(NamedTuple):
    """A latent, and its x̂0 as an 8-bit image; both are (3, H, W), on the CPU."""

    latent: Tensor
    x0: Tensor


class LatentCache:
    """A bounded store of latents and scores that evicts the least recently used entries first.

    Environments, :class:`CachedProcess` objects, oracles and threads can share one cache: keys contain
    everything that a latent depends on, including the model's hash, and a lock makes the cache thread-safe.

    Args:
        max_bytes: bound on the bytes of tensors in memory; a second bound of the same size applies to scores.
        half: whether to keep latents as float16, which halves their memory. They are then rounded to about
            3 significant digits, so cached and uncached runs differ slightly.
        file: path of an LMDB file (memory-mapped, needs the extra ``cache``) that backs the memory and
            outlives the process; it stops growing at ``max_file_bytes``. Caches of one process that name the
            same file share it. None: memory only.
        max_file_bytes: bound on the size of that file in bytes.

    Raises:
        SkipDiffError: if ``max_bytes`` is negative, the file cannot be opened, or lmdb is not installed.
    """

    def __init__(
        self,
        max_bytes: int = 2**30,
        half: bool = False,
        file: str | None = None,
        max_file_bytes: int = 16 * 2**30,
    ) -> None:
        if max_bytes < 0:
            raise SkipDiffError(f"max_bytes={max_bytes} must be 0 or more")
        self._settings = (max_bytes, half, file, max_file_bytes)
        self._lock = threading.Lock()
        self.max_bytes, self.half = max_bytes, half
        self.bytes = self.hits = self.misses = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._scores: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._disk = _open(file, max_file_bytes) if file else None

    def __len__(self) -> int:
        return len(self._entries)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the settings: a copy starts with an empty memory, and fills it itself."""
        return LatentCache, self._settings

    def get(self, key: bytes) -> Entry | None:
        """Return the entry under a key, with its latent in float32, or None if there is none."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            elif self._disk and (entry := self._disk.get(self._name(key))) is not None:
                self._remember(key, entry)
            self.hits += entry is not None
            self.misses += entry is None
        return entry and Entry(entry.latent.to(torch.float32, copy=True), entry.x0.clone())

    def put(self, key: bytes, latent: Tensor, x0: Tensor) -> None:
        """Keep a copy of a latent (3, H, W) and its x̂0, uint8 (3, H, W), unless the latent is not finite."""
        if not latent.isfinite().all():
            return
        stored = latent.detach().to("cpu", torch.float16 if self.half else torch.float32, copy=True)
        entry = Entry(stored, x0.detach().to("cpu", copy=True))
        with self._lock:
            self._remember(key, entry)
        if self._disk:
            self._disk.put(self._name(key), entry)

    def score(self, key: tuple[Any, ...]) -> Any | None:
        """Return the value that :meth:`put_score` kept under a key, or None if there is none."""
        with self._lock:
            if key in self._scores:
                self._scores.move_to_end(key)
            return self._scores.get(key)

    def put_score(self, key: tuple[Any, ...], value: Any) -> None:
        """Keep a value, such as the scores of an image, under a key."""
        with self._lock:
            self._scores[key] = value
            while len(self._scores) * SCORE_BYTES > self.max_bytes:
                self._scores.popitem(last=False)

    def _name(self, key: bytes) -> bytes:
        """Return the key in the file, which distinguishes rounded latents from unrounded ones."""
        return key + (b"h" if self.half else b"f")

    def _remember(self, key: bytes, entry: Entry) -> None:
        if key in self._entries:
            return
        size = sum(t.nbytes for t in entry)
        if size > self.max_bytes:
            return
        self._entries[key] = entry
        self.bytes += size
        while self.bytes > self.max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self.bytes -= sum(t.nbytes for t in dropped)


_opening = threading.Lock()
_OPENED: weakref.WeakValueDictionary[tuple[str, int], _Disk] = weakref.WeakValueDictionary()
"""Files open in this process, since LMDB can open a file only once per process; a forked process must open it
again."""


def _open(file: str, max_bytes: int) -> _Disk:
    place = os.path.realpath(file), os.getpid()
    with _opening:
        disk = _OPENED.get(place)
        if disk is None:
            disk = _OPENED[place] = _Disk(file, max_bytes)
        return disk


class _Disk:
    """Entries in an LMDB file, each a half-precision flag, height and width, latent and x̂0."""

    def __init__(self, file: str, max_bytes: int) -> None:
        try:
            import lmdb
        except ImportError:
            raise SkipDiffError("a cache file needs the package lmdb: pip install lmdb") from None
        self._full = lmdb.MapFullError
        try:
            self._data = lmdb.open(file, map_size=max_bytes, subdir=False, metasync=False, sync=False)
        except lmdb.Error as error:
            reason = str(error).removeprefix(f"{file}: ")
            raise SkipDiffError(
                f"cache file {file}: {reason}: name another file, in an existing folder"
            ) from None

    def get(self, key: bytes) -> Entry | None:
        with self._data.begin(buffers=True) as transaction:
            raw = transaction.get(key)
            if raw is None:
                return None
            half, height, width = np.frombuffer(raw[:12], np.int32).tolist()
            kind = np.dtype(np.float16 if half else np.float32)
            pixels = 3 * height * width
            latent = np.frombuffer(raw, kind, pixels, 12).reshape(3, height, width).copy()
            x0 = np.frombuffer(raw, np.uint8, pixels, 12 + kind.itemsize * pixels).reshape(3, height, width)
            return Entry(torch.from_numpy(latent), torch.from_numpy(x0.copy()))

    def put(self, key: bytes, entry: Entry) -> None:
        head = np.array([entry.latent.dtype == torch.float16, *entry.x0.shape[1:]], np.int32)
        raw = b"".join(a.tobytes() for a in (head, entry.latent.numpy(), entry.x0.numpy()))
        try:
            with self._data.begin(write=True) as transaction:
                transaction.put(key, raw)
        except self._full:
            pass  # a full file still serves the entries that it holds


class CachedProcess(SkipProcess):
    """A :class:`SkipProcess` that computes only the latents that are not in its cache.

    Args:
        cache: the cache for latents and x̂0.
        arguments: the arguments of :class:`SkipProcess`. The model needs a ``hash``.
    """

    def __init__(self, *arguments: Any, cache: LatentCache, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.cache = cache
        identity = identity_of(self.model, "a latent cache")
        numbers = (self.model.dtype, self.model.device)
        levels = self.coarse_alpha_bar.tolist()
        self._identity = repr(
            (identity, *map(str, numbers), self.schedule.config, levels, bool(self.fine_steps))
        )

    def start(
        self, condition: Tensor, keys: Sequence[NoiseKey], callback: Callback | None = None
    ) -> SkipState:
        """Run CSA for the rows whose x_S1 is not in the cache, or for all rows if there is a callback."""
        if not keys or callback is not None:
            return super().start(condition, keys, callback)
        compute = super().start
        found = self._looked_up(
            [self._key(key, (), condition) for key in keys],
            lambda rows: compute(condition[rows], [keys[row] for row in rows]),
        )
        latent, x0 = (_batch(rows, condition) for rows in zip(*found, strict=True))
        level = np.full(len(keys), self.fine_steps or self.stride)
        evaluations = np.full(len(keys), self.coarse_steps - 1)
        past: tuple[History, ...] = ((),) * len(keys)
        return SkipState(condition, latent, latent, x0, x0, level, evaluations, tuple(keys), past)

    def _refine(self, state: SkipState, to: np.ndarray) -> SkipState:
        return self._refine_some(state, np.arange(len(state)), to, state)

    def _denoise_some(self, state: SkipState, rows: np.ndarray, others: SkipState) -> SkipState:
        return self._refine_some(state, rows, state.level[rows] - 1, others)

    def _refine_some(
        self, state: SkipState, rows: np.ndarray, to: np.ndarray, others: SkipState
    ) -> SkipState:
        """Return ``others`` with ``rows`` replaced by those of ``state`` after one jump to the levels
        ``to``."""
        made, compute = self._histories(state, DENOISE), super()._refine
        found = self._looked_up(
            [self._key(state.keys[row], made[row], state.condition) for row in rows],
            lambda missing: compute(state.select(rows[missing]), to[missing]),
        )
        latents, x0s, history = list(others.latent), list(others.x0), list(others.history)
        for row, (latent, x0) in zip(rows, found, strict=True):
            latents[row], x0s[row], history[row] = latent, x0, made[row]
        level, evaluations = others.level.copy(), others.evaluations.copy()
        level[rows], evaluations[rows] = to, state.evaluations[rows] + 1
        return replace(
            others, latent=_batch(latents, others.latent), x0=_batch(x0s, others.x0), level=level,
            evaluations=evaluations, history=tuple(history),
        )  # fmt: skip

    def _looked_up(
        self, names: Sequence[bytes], compute: Callable[[list[int]], SkipState]
    ) -> list[tuple[Tensor, Tensor]]:
        """Look up the latent and x̂0 of each row, (3, H, W) each, by its name in the cache; compute missing
        ones.

        Args:
            names: one name per row; rows may share one, for example if several environments play the same
                episode.
            compute: function from the rows to compute (the first row of each unknown name) to the states that
                they lead to.
        """
        known = [self.cache.get(name) for name in names]
        first: dict[bytes, int] = {}
        for row, entry in enumerate(known):
            if entry is None:
                first.setdefault(names[row], row)
        computed: dict[bytes, tuple[Tensor, Tensor]] = {}
        if first:
            state = compute(list(first.values()))
            for name, latent, x0 in zip(first, state.latent, state.x0, strict=True):
                self.cache.put(name, latent, to_uint8(x0))
                computed[name] = latent, x0
        both = zip(names, known, strict=True)
        return [computed[name] if e is None else (e.latent, to_signed(e.x0)) for name, e in both]

    def _key(self, key: NoiseKey, history: tuple[int, ...], condition: Tensor) -> bytes:
        text = f"{self._identity}/{tuple(condition.shape[1:])}/{key.image}/{key.seed}/{history}"
        return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _batch(rows: Sequence[Tensor], like: Tensor) -> Tensor:
    """Join rows (3, H, W) into one tensor with the type and device of ``like``; a single row is not
    copied."""
    rows = [row.to(like) for row in rows]
    return torch.stack(rows) if len(rows) > 1 else rows[0][None]
