"""Samplers of the tables: what they share, what they cost, and that they are the package's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.measure.evaluate import Evaluation
from benchmarks.measure.metrics import METRICS, score
from benchmarks.measure.results import Results
from benchmarks.measure.samplers import catalogue
from benchmarks.measure.store import Store, read_rows
from benchmarks.measure.walks import Walks
from skipdiff_env import SkipDiffError, SkipDiffSampler
from skipdiff_env.diffusion import FrozenModel, random_model, tiny_config
from skipdiff_env.diffusion.restorer import Restorer, RestorerConfig, RestorerNetwork
from skipdiff_env.images import make_pair, open_source
from skipdiff_env.metrics import load_metric
from skipdiff_env.policies.file import save_policy
from skipdiff_env.policies.network import SkipProposalNetwork, SPNConfig


@pytest.fixture(scope="module")
def lr():
    return np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def wide():
    """T = 100 and nothing else to wait for."""
    return random_model(tiny_config(image_size=32))


def test_the_bicubic_row_is_of_the_input_as_it_is(lr):
    """A restorer has a row of its own."""
    network = RestorerNetwork(RestorerConfig(channels=4, blocks=1))
    with torch.no_grad():
        network.tail.bias += 10 / 127.5
    plain = random_model(tiny_config(image_size=32))
    behind = FrozenModel(
        plain.network, plain.config, hash="behind", restorer=Restorer(network, RestorerConfig())
    )
    lr = lr // 2 + 50
    rows = {key: catalogue(behind, 7)[key].one(lr, 0).image for key in ("bicubic", "restored")}
    assert "restored" not in catalogue(plain, 7)
    assert np.array_equal(rows["bicubic"], catalogue(plain, 7)["bicubic"].one(lr, 0).image)
    assert (rows["restored"].astype(int) - rows["bicubic"] == 10).mean() > 0.95


@pytest.fixture
def calls(monkeypatch):
    """Rows that went through the network, of whatever model."""
    seen: list[int] = []
    original = FrozenModel.predict_unclamped

    def counted(self, latent, condition, level):
        seen.append(len(latent))
        return original(self, latent, condition, level)

    monkeypatch.setattr(FrozenModel, "predict_unclamped", counted)
    return seen


def test_ours_are_the_package_s_sampler(wide, lr):
    found = catalogue(wide, 7)
    for key, sampler, policy in (
        ("csa-100", SkipDiffSampler(wide, 100, fine_steps=0), None),
        ("csa-10", SkipDiffSampler(wide, 10, fine_steps=0), None),
        ("skip-10-10-7", SkipDiffSampler(wide), 7),
        ("skip-5-20-14", SkipDiffSampler(wide, 5), 14),
    ):
        picture, expected = found[key].one(lr, 3), sampler(lr, policy, seed=3)
        assert np.array_equal(picture.image, expected.images[0]), key
        assert picture.evaluations == expected.trace[0].evaluations
        assert picture.start == (policy or 0)


def test_what_table_4_repeats_is_the_same_computation(wide, lr):
    """Without agents: (1, T) that never skips is the full chain; (10, T) at a start is (10, 10) at it."""
    walks = Walks(wide)
    full, fsr = walks.coarse(100).one(lr, 0), Walks(wide).skip(1, 100, 100).one(lr, 0)
    assert np.array_equal(full.image, fsr.image) and fsr.evaluations == 100
    short, whole = walks.skip(10, 10, 7).one(lr, 0), Walks(wide).skip(10, 100, 7).one(lr, 0)
    assert np.array_equal(short.image, whole.image) and short.evaluations == whole.evaluations == 16


def test_a_batch_is_what_its_images_are_alone(wide, lr, tmp_path):
    """Every sampler, with a noise seed for each image; sums may be taken in another order."""
    network = SkipProposalNetwork(SPNConfig(observation_size=16, hidden_size=8, norm="group")).eval()
    agent = save_policy(tmp_path / "agent.safetensors", network)
    lrs, seeds = [lr, 255 - lr, lr], [0, 4, 5]
    alone, together = (catalogue(wide, 7, {"NIQE": agent}) for _ in range(2))
    for key in [key for key in together if key != "hr"]:
        made = together[key].run(lrs, seeds)
        for picture, lr_, seed in zip(made, lrs, seeds, strict=True):
            own = alone[key].one(lr_, seed)
            assert (picture.evaluations, picture.start) == (own.evaluations, own.start), key
            assert np.abs(picture.image.astype(int) - own.image).max() <= 1, key


def test_announced_calls_are_made_and_no_more(wide, lr, calls):
    """Every sampler costs what it says; all manual starts and CSA share CSA, F(F + 1)/2 calls come on top."""
    for key, sampler in catalogue(wide, 7).items():
        calls.clear()
        evaluations = sampler.one(lr, 0).evaluations if key.startswith(("bi", "c", "d", "a")) else None
        assert evaluations is None or sum(calls) == evaluations == len(sampler.calls), key
    calls.clear()
    walks = Walks(wide)
    some = [walks.coarse(10), *(walks.skip(10, 10, k) for k in range(10, 0, -1))]
    for sampler in some:
        sampler.one(lr, 0)
    assert sum(calls) == len(frozenset().union(*(s.calls for s in some))) == 9 + 55


def test_every_rival_is_there_at_skipdiff_s_own_evaluations(wide, lr):
    """Whatever the start; and all keys of the usual one stay, for rows that are stored under them."""
    usual = {"ddim-10", "ddim-16", "ddim-20", "ddim-50", "dpm-10", "dpm-16", "dpm-20", "ancestral-16"}
    kinds = ("ddim", "dpm", "ancestral", "ccsr")
    usual |= {"ccsr-1"} | {f"{kind}-{n}" for kind in (*kinds, "ddim-half") for n in (2, 3, 4, 5, 6, 8)}
    assert {key for key in catalogue(wide, 7) if key.startswith(kinds)} == usual | {"ccsr-16", "ddim-half-16"}
    found = catalogue(wide, 4, budgets=(14,))
    added = {f"{kind}-{n}" for kind in (*kinds, "ddim-half") for n in (13, 14)}
    assert {key for key in found if key.startswith(kinds)} == usual | added
    for key in ("ddim-13", "ddim-half-13", "dpm-13", "ancestral-13", "ccsr-13"):
        assert found[key].one(lr, 0).evaluations == 13 == found["skip-10-10-4"].one(lr, 0).evaluations


def test_variants_change_what_they_name(wide, lr):
    found = catalogue(wide, 7)
    plain, moved, free = (found[f"csa-10{end}"].one(lr, 0).image for end in ("", "+rebuilt", "+unclamped"))
    assert not np.array_equal(plain, moved) and not np.array_equal(plain, free)
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    level = torch.full((1,), 0.01)
    raw = wide.predict_unclamped(x, x, level)
    assert raw.abs().max() > 1 and torch.allclose(raw.clamp(-1, 1), wide.predict(x, x, level), atol=1e-5)


def test_an_agent_s_start_is_read_off_its_actions(model, lr, tmp_path):
    config = SPNConfig(observation_size=16, hidden_size=8, norm="group")
    network = SkipProposalNetwork(config).eval()
    file = save_policy(tmp_path / "agent.safetensors", network)
    sampler = catalogue(model, 2, {"NIQE": file, "(10, T)": file})
    keys = [key for key in sampler if key.startswith("agent")]
    assert [key.rsplit("-", 1)[0] for key in keys] == ["agent-10-2", "agent-10-20"]
    trace = SkipDiffSampler(model, 10, 20)(lr, str(file)).trace[0]
    expected = 1 + next((i for i, a in enumerate(trace.actions[::-1]) if a), 19)
    assert sampler[keys[1]].one(lr, 0).start == expected


def test_levels_that_ten_does_not_divide_are_refused():
    model = random_model(tiny_config(schedule={"kind": "cosine", "steps": 12, "s": 0.008}))
    with pytest.raises(SkipDiffError, match="T = 12"):
        catalogue(model, 1)


def test_rows_are_right_and_never_computed_twice(model, source, tmp_path, calls):
    file, found = tmp_path / "rows.csv", catalogue(model, 2)
    samplers = [found[key] for key in ("bicubic", "csa-10", "skip-10-2-1", "skip-10-2-2", "ddim-10")]

    def evaluate():
        return Evaluation(model, source, samplers, Store(file), seeds=(0, 5))

    first = evaluate()
    assert first.calls == 4 * (9 + 3 + 10)
    rows = first.run()
    assert sum(calls) == 4 * (9 + 3 + 10)
    assert len(rows) == 20 and len({row.key for row in rows}) == 20
    row, pair = rows[1], make_pair(source, 0, scale=4)
    image = found["csa-10"].one(pair.lr, 0).image
    for name in ("psnr", "ssim", "niqe", "lpips"):
        assert row.value(name) == pytest.approx(load_metric(name)(image[None], pair.hr[None])[0], rel=1e-6)
    assert row.evaluations == 10 and row.start == 0 and row.dtype == "float32 cpu"
    text = file.read_text()
    file.write_text(text[: text.rindex("\n", 0, -1) + 20])  # the last line is cut short, as by a kill
    again = evaluate()
    assert [job.missing for job in again.jobs] == [(samplers[-1],)] and again.calls == 10
    assert again.run() == rows and {r.key for r in read_rows(file)} == {r.key for r in rows}
    file.write_text(file.read_text().replace("float32 cpu", "float32 cuda"))
    there = evaluate()  # what a GPU computed in the same precision counts
    assert not there.jobs and {row.dtype for row in there.run()} == {"float32 cuda"}
    assert Results(there.run()).computed == {"float32 cuda": 20}
    file.write_text(file.read_text().replace("float32 cuda", "bfloat16 cuda"))
    assert sum(job.rows for job in evaluate().jobs) == 20


def test_the_originals_stand_for_themselves(wide, source):
    pair = make_pair(source, 1, scale=4)
    originals, bicubic = (catalogue(wide, 7)[key] for key in ("hr", "bicubic"))
    (original,), (enlarged,) = (sampler.of([pair], [0]) for sampler in (originals, bicubic))
    assert np.array_equal(original.image, pair.hr) and original.evaluations == 0
    assert np.array_equal(enlarged.image, bicubic.one(pair.lr, 0).image)
    with pytest.raises(ValueError, match="an original cannot be made"):
        originals.one(pair.lr, 0)


def test_every_column_is_what_it_says(source):
    pair = make_pair(source, 1, scale=4)
    best, other = score([pair.hr, 255 - pair.hr], pair.hr, pair.lr, 4)
    assert list(best) == [metric.name for metric in METRICS]
    assert np.isinf(best["psnr"]) and np.isinf(best["consistency"])
    assert best["ssim"] == pytest.approx(1) and best["lpips"] == pytest.approx(0, abs=1e-6)
    assert best["niqe"] == best["niqe_full"] and other["psnr"] < 20


def test_files_of_another_kind_are_named(tmp_path, model, source):
    file = tmp_path / "rows.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(SkipDiffError, match="other columns"):
        Store(file)
    low = open_source([source[0]], low_resolution=True)
    with pytest.raises(SkipDiffError, match="HR images"):
        Evaluation(model, low, [], Store())
