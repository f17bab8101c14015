"""Bounds and files of the latent cache."""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict

import gymnasium
import pytest
import torch

from skipdiff_env.diffusion import random_model
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.latent_cache import SCORE_BYTES, LatentCache


def test_scores_are_bounded_too_and_the_least_recently_used_go_first():
    cache = LatentCache(max_bytes=3 * SCORE_BYTES)
    for name in "abc":
        cache.put_score((name,), name)
    assert cache.score(("a",)) == "a"
    cache.put_score(("d",), "d")
    assert [cache.score((name,)) for name in "abcd"] == ["a", None, "c", "d"]
    nothing = LatentCache(max_bytes=0)
    nothing.put_score(("a",), 1.0)
    assert nothing.score(("a",)) is None


def test_rounded_latents_of_a_file_are_not_given_to_a_cache_that_keeps_them_whole(tmp_path):
    pytest.importorskip("lmdb")
    latent, image = torch.randn(3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)
    file = str(tmp_path / "latents")
    half, whole = LatentCache(half=True, file=file), LatentCache(file=file)
    half.put(b"a", latent, image)
    assert whole.get(b"a") is None
    whole.put(b"a", latent, image)
    assert torch.equal(LatentCache(file=file).get(b"a").latent, latent)
    assert torch.equal(LatentCache(half=True, file=file).get(b"a").latent, latent.half().float())


def test_one_process_may_open_a_file_twice_as_copies_of_an_environment_do(tmp_path):
    pytest.importorskip("lmdb")
    cache = LatentCache(file=str(tmp_path / "latents"))
    entry = torch.zeros(3, 8, 8)
    copy.deepcopy(cache).put(b"a", entry, entry.byte())
    assert cache.get(b"a") is not None
    env = gymnasium.make("SkipDiff-v0", model=random_model(), image_size=32, metric="psnr", cache=cache)
    assert env.spec is not None and env.spec.kwargs["image_size"] == 32


@pytest.mark.parametrize("kind", ["no folder", "another file"])
def test_a_file_that_cannot_be_used_is_named(tmp_path, kind):
    pytest.importorskip("lmdb")
    file = tmp_path / "missing" / "latents" if kind == "no folder" else tmp_path / "text"
    if kind == "another file":
        file.write_text("not LMDB " * 2000)
    with pytest.raises(SkipDiffError, match=f"cache file {file}: .*name another"):
        LatentCache(file=str(file))


class Slow(OrderedDict):
    """A dictionary in which other threads get their turn between a look and what follows from it."""

    def __contains__(self, key):
        found = super().__contains__(key)
        time.sleep(1e-5)
        return found

    def popitem(self, last=True):
        time.sleep(1e-5)
        return super().popitem(last)


@pytest.mark.parametrize("on_disk", [False, True])
def test_threads_may_share_a_cache(tmp_path, on_disk):
    if on_disk:
        pytest.importorskip("lmdb")
    latent, image = torch.zeros(3, 2, 2), torch.zeros(3, 2, 2, dtype=torch.uint8)
    size = latent.nbytes + image.nbytes
    cache = LatentCache(max_bytes=4 * size, file=str(tmp_path / "latents") if on_disk else None)
    cache._entries, cache._scores = Slow(), Slow()
    rounds, errors = 200, []

    def work(number):
        try:
            for i in range(rounds):
                key = bytes([(7 * i + number // 2) % 9])
                cache.get(key)
                cache.put(key, latent, image)
                cache.put_score((key,), 1.0)
                cache.score((key,))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert cache.bytes == len(cache) * size <= cache.max_bytes, "what it holds adds up"
    assert cache.hits + cache.misses == 4 * rounds
