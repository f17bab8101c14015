"""``load_metric``: what it accepts, what it refuses in one line, and what a metric must not disturb."""

from __future__ import annotations

import copy
import logging
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skipdiff_env.errors import SkipDiffError
from skipdiff_env.metrics import Metric, load_metric, psnr_y
from skipdiff_env.metrics.perceptual import PyiqaMetric

Array = np.ndarray


def darkness(images: Array) -> Array:
    return 255 - images.mean((1, 2, 3))


darkness.lower_better = True  # type: ignore[attr-defined]


def largest_error(images: Array, references: Array) -> torch.Tensor:
    difference = torch.from_numpy(np.abs(images.astype(int) - references))
    return difference.amax((1, 2, 3))


def needs_references_where_known(images: Array, references: Array | None = None) -> Array:
    return np.full(len(images), references is not None, float)


def noise(batch: int, height: int, width: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), np.uint8)


# name -> lower is better, needs references, smallest side
PROPERTIES = {
    "niqe": (True, False, 96),
    "niqe-full": (True, False, 96),
    "lpips": (True, True, 31),
    "psnr": (False, True, 1),
    "ssim": (False, True, 11),
    "gmsd": (True, True, 1),
    "fsim": (False, True, 1),
    "mad": (True, True, 1),
    "psnry": (False, True, 1),
    "piqe": (True, False, 1),
    "entropy": (False, False, 1),
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_direction_reference_and_size(name: str) -> None:
    metric = load_metric(name)
    assert metric.name == name
    assert (metric.lower_better, metric.reference, metric.min_size) == PROPERTIES[name]


@pytest.mark.parametrize("name", ["niqe", "lpips"])
def test_what_is_on_board_has_the_properties_that_pyiqa_gives_it(name: str) -> None:
    from skipdiff_env.metrics.pyiqa_loading import properties

    metric = load_metric(name)
    assert (metric.lower_better, metric.reference) == properties(name)


def test_scores_are_float64_one_a_picture(crops: Array, bicubic: Array) -> None:
    for name in ("niqe", "niqe-full", "lpips", "psnr", "ssim", "gmsd", "piqe"):
        scores = load_metric(name)(bicubic[:2], crops[:2])
        assert scores.dtype == np.float64 and scores.shape == (2,) and np.isfinite(scores).all()
        assert load_metric(name)(bicubic[:0], crops[:0]).shape == (0,)


def test_other_metrics_of_pyiqa_are_its_own(crops: Array, bicubic: Array) -> None:
    import pyiqa

    planes = [torch.from_numpy(x[:2]).permute(0, 3, 1, 2) / 255 for x in (bicubic, crops)]
    for name in ("gmsd", "psnry"):
        direct = pyiqa.create_metric(name, device="cpu")(*planes).flatten()
        np.testing.assert_allclose(load_metric(name)(bicubic[:2], crops[:2]), direct, rtol=1e-5)


@pytest.mark.parametrize("name", ["niqe", "lpips", "gmsd"])
@pytest.mark.parametrize("side", [128, 192])
def test_a_score_does_not_depend_on_the_batch(crops: Array, bicubic: Array, name: str, side: int) -> None:
    images = np.concatenate([x[:, :side, :side] for x in (bicubic, crops, bicubic[:, ::-1])])
    references = np.concatenate([crops[:, :side, :side]] * 3)
    metric = load_metric(name)
    together = metric(images, references)
    alone = np.concatenate([metric(images[i : i + 1], references[i : i + 1]) for i in range(len(images))])
    if name == "lpips":
        np.testing.assert_allclose(together, alone, atol=1e-6)
    else:
        assert np.array_equal(together, alone)
    assert np.array_equal(together, metric(images, references))


@pytest.mark.parametrize("name", ["niqe", "niqe-full"])
def test_a_flat_picture_has_no_score_and_the_others_have_theirs(crops: Array, name: str) -> None:
    images = crops.copy()
    images[1], images[3] = 0, np.arange(256)[None, :, None]  # flat, and an exact ramp
    metric = load_metric(name)
    scores = metric(images)
    assert np.isnan(scores).tolist() == [False, True, False, True]
    assert np.array_equal(scores[[0, 2]], metric(crops)[[0, 2]])


def test_running_out_of_memory_is_not_hidden(monkeypatch: pytest.MonkeyPatch, crops: Array) -> None:
    metric = load_metric("gmsd")
    errors: list[Exception] = [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ]
    for error in errors:
        # A network that fails once would pass on noise: only the kind of the error can give it away.
        calls = iter([error])

        def network(*planes: torch.Tensor, calls=calls) -> torch.Tensor:
            for failure in calls:
                raise failure
            return torch.zeros(len(planes[0]))

        monkeypatch.setitem(metric.__dict__, "_network", network)
        with pytest.raises(type(error)):
            metric(crops, crops)


def test_a_metric_that_fails_on_every_picture_of_a_size_says_so() -> None:
    with pytest.raises(SkipDiffError, match="'ms_ssim' cannot score pictures of 64x80 pixels: "):
        load_metric("ms_ssim")(noise(2, 64, 80), noise(2, 64, 80, seed=1))


def covered(height: int, width: int) -> Array:
    """How often niqe-full reads each pixel, by watching which crops it hands on."""
    from skipdiff_env.metrics.perceptual import FullNiqe

    counts = np.zeros((height, width), int)
    rows, columns = np.mgrid[:height, :width]
    address = np.stack([rows, columns, np.zeros_like(rows)], -1).astype(np.uint8)[None]

    class Watch(Metric):
        def _score(self, images: Array, references: Array | None) -> Array:
            for crop in images:
                assert crop.shape[0] % 96 == crop.shape[1] % 96 == 0
                counts[crop[..., 0], crop[..., 1]] += 1
            return np.zeros(len(images))

    watch = Watch(torch.device("cpu"), name="niqe", lower_better=True, reference=False, min_size=96)
    FullNiqe(watch)(address)
    return counts


@settings(max_examples=30, deadline=None)
@given(st.integers(96, 255), st.integers(96, 255))
def test_niqe_full_reads_every_pixel_equally_from_both_ends(height: int, width: int) -> None:
    counts = covered(height, width)
    assert counts.min() >= 1
    assert np.array_equal(counts, counts[::-1, ::-1])
    if height % 96 == width % 96 == 0:
        assert counts.max() == 1


def test_niqe_full_is_the_mean_over_corner_crops(crops: Array) -> None:
    niqe, full = load_metric("niqe"), load_metric("niqe-full")
    assert np.array_equal(niqe(crops[:, :192, :192]), full(crops[:, :192, :192]))
    corners = [crops[:, y : y + 192, x : x + 192] for y in (0, 64) for x in (0, 64)]
    np.testing.assert_allclose(full(crops), np.mean([niqe(corner) for corner in corners], 0), rtol=1e-12)
    changed = crops.copy()
    changed[:, 192:, 192:] = noise(4, 64, 64)
    assert np.array_equal(niqe(changed), niqe(crops)) and np.all(full(changed) != full(crops))


@pytest.mark.parametrize("name", ["niqe", "niqe-full", "lpips", "ssim"])
def test_too_small_pictures_are_refused(name: str) -> None:
    metric = load_metric(name)
    side = metric.min_size
    enough, little = noise(1, side, side + 3), noise(1, side + 3, side - 1)
    assert np.isfinite(metric(enough, enough[:, ::-1])).all()
    with pytest.raises(SkipDiffError, match=rf"'{name}' needs pictures of at least {side}x{side} pixels"):
        metric(little, little)
    with pytest.raises(SkipDiffError, match=f"got {side}x{side - 1}"):
        metric.check_size(side - 1, side)


@pytest.mark.parametrize(
    ("images", "references", "message"),
    [
        (np.zeros((1, 99, 99, 3)), None, "images must be a uint8 NumPy array, got float64"),
        (torch.zeros(1, 99, 99, 3, dtype=torch.uint8), None, "images must be a uint8 NumPy array"),
        (np.zeros((99, 99, 3), np.uint8), None, r"shape \(batch, height, width, 3\), got \(99, 99, 3\)"),
        (np.zeros((1, 3, 99, 99), np.uint8), None, "got .1, 3, 99, 99."),
        (noise(1, 99, 99), None, "'psnr' needs references: pass the HR pictures"),
        (noise(1, 99, 99), noise(1, 99, 98), "the shapes must be equal"),
        (noise(1, 99, 99), noise(1, 99, 99).astype(np.int64), "references must be a uint8"),
    ],
)
def test_wrong_pictures_are_refused(images: Array, references: Array | None, message: str) -> None:
    with pytest.raises(SkipDiffError, match=message):
        load_metric("psnr")(images, references)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("NIQE", "unknown metric 'NIQE': did you mean .*niqe"),
        ("niqe-ful", "unknown metric 'niqe-ful': did you mean .*niqe-full"),
        ("zzzzzzzz", r"unknown metric 'zzzzzzzz': pyiqa.list_models\(\) lists the names"),
        ("fid", "'fid' scores sets of pictures"),
        (7, "a metric is a name or a function, got int"),
    ],
)
def test_what_is_no_metric_is_refused(spec: str, message: str) -> None:
    with pytest.raises(SkipDiffError, match=message) as caught:
        load_metric(spec)
    assert "\n" not in str(caught.value)


def test_functions_as_metrics(crops: Array, bicubic: Array) -> None:
    metric = load_metric(darkness)
    assert (metric.name, metric.lower_better, metric.reference) == ("darkness", True, False)
    assert np.array_equal(metric(crops, bicubic), darkness(crops))

    metric = load_metric(largest_error)
    assert (metric.lower_better, metric.reference) == (False, True)
    scores = metric(crops, bicubic)
    assert scores.dtype == np.float64
    assert np.array_equal(scores, np.abs(crops.astype(int) - bicubic).max((1, 2, 3)))
    with pytest.raises(SkipDiffError, match="'largest_error' needs references"):
        metric(crops)

    metric = load_metric(needs_references_where_known)
    assert not metric.reference
    assert metric(crops).tolist() == [0] * 4 and metric(crops, bicubic).tolist() == [1] * 4

    assert load_metric(psnr_y).reference
    with pytest.raises(
        SkipDiffError, match=r"must return one number per image, shape \(4,\), got shape \(\)"
    ):
        load_metric(np.mean)(crops)
    with pytest.raises(ZeroDivisionError):
        load_metric(lambda images: 1 / 0)(crops)


def test_weights_and_logarithms_in_a_name(crops: Array, bicubic: Array) -> None:
    parts = load_metric("psnr")(bicubic, crops), load_metric("ssim")(bicubic, crops)
    both, logarithm = load_metric("psnr,ssim:0.5"), load_metric("log psnr,ssim:0.5")
    expected = 1 / (parts[0] * np.sqrt(parts[1]))
    np.testing.assert_allclose(both(bicubic, crops), expected)
    np.testing.assert_allclose(logarithm(bicubic, crops), np.log(expected))
    np.testing.assert_allclose(logarithm.rewards(logarithm(bicubic, crops)), -np.log(expected))
    assert logarithm.lower_better and logarithm.reference and logarithm.min_size == both.min_size
    assert logarithm.name.startswith("log ") and logarithm is load_metric("log psnr,ssim:0.5")
    assert pickle.loads(pickle.dumps(logarithm)).name == logarithm.name
    np.testing.assert_allclose(load_metric("log psnr")(bicubic, crops), -np.log(parts[0]))
    assert np.isnan(logarithm.rewards(np.array([np.nan]))).all()
    with pytest.raises(
        SkipDiffError, match="metric 'psnr:much': the weight 'much' of 'psnr' is not a number"
    ):
        load_metric("psnr:much")


def test_metrics_are_loaded_once_and_pass_through() -> None:
    for name in ("niqe", "niqe-full", "lpips", "psnr", "gmsd"):
        metric = load_metric(name)
        assert load_metric(name, torch.device("cpu")) is metric
        assert load_metric(metric) is metric
        assert copy.deepcopy(metric) is metric and pickle.loads(pickle.dumps(metric)) is metric
        assert len(pickle.dumps(metric)) < 300
    assert load_metric("niqe", "meta") is not load_metric("niqe")
    assert isinstance(load_metric(), PyiqaMetric) and load_metric().name == "niqe"
    again = pickle.loads(pickle.dumps(load_metric(darkness)))
    assert again.lower_better and np.array_equal(again(noise(2, 5, 5)), darkness(noise(2, 5, 5)))


def states() -> tuple[bytes, bytes, object]:
    return torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes(), random.getstate()


def test_random_generators_are_left_alone(monkeypatch: pytest.MonkeyPatch, crops: Array) -> None:
    before = states()
    for name in ("niqe", "lpips", "gmsd"):
        PyiqaMetric(name, torch.device("cpu"))(crops[:1], crops[1:2])  # loading and scoring
    assert states() == before

    def drawing(*planes: torch.Tensor) -> torch.Tensor:
        return torch.rand(len(planes[0])) + np.random.rand()

    metric = load_metric("piqe")
    monkeypatch.setitem(metric.__dict__, "_network", drawing)
    scores = metric(crops)
    assert states() == before
    assert len(set(scores)) == 1 and np.array_equal(metric(crops), scores)


def test_loading_prints_and_logs_nothing(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    logger = logging.getLogger("pyiqa")
    with caplog.at_level(logging.INFO):
        level = logger.level
        for name in ("niqe", "lpips", "gmsd"):
            assert PyiqaMetric(name, torch.device("cpu"))._network is not None
    assert logger.level == level
    assert capfd.readouterr() == ("", "") and not caplog.records and not recwarn.list


def test_a_missing_weight_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path, crops: Array) -> None:
    monkeypatch.setattr("skipdiff_env.metrics.pyiqa_loading.WEIGHTS", tmp_path)
    for name in ("niqe", "lpips"):
        with pytest.raises(SkipDiffError, match=rf"{tmp_path.name}.*is missing: install skipdiff again$"):
            PyiqaMetric(name, torch.device("cpu"))(crops, crops)


def test_settings_of_cudnn_are_given_back(monkeypatch: pytest.MonkeyPatch, crops: Array) -> None:
    cudnn = torch.backends.cudnn

    def current() -> tuple[bool, bool, str, bool]:
        return cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision, cudnn.allow_tf32

    before, inside = current(), []
    metric = load_metric("piqe")

    def network(planes: torch.Tensor) -> torch.Tensor:
        inside.append((cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision))
        raise ValueError("not today")

    monkeypatch.setitem(metric.__dict__, "_network", network)
    with pytest.raises(SkipDiffError, match="'piqe' cannot score pictures of 256x256 pixels: not today$"):
        metric(crops[:1])
    assert inside == [(True, False, "ieee")] * 2 and current() == before


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["niqe", "lpips"])
def test_gpu_scores_are_those_of_the_cpu(crops: Array, bicubic: Array, name: str) -> None:
    state = torch.cuda.get_rng_state()
    scores = load_metric(name, "cuda")(bicubic, crops)
    np.testing.assert_allclose(
        scores, load_metric(name)(bicubic, crops), rtol=1e-2 if name == "niqe" else 1e-4
    )
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_a_functions_own_nan_is_passed_on() -> None:
    def scorer(images: Array) -> Array:
        return np.where(images.std((1, 2, 3)) > 0, 1.0, np.nan)

    images = np.stack([np.zeros((4, 4, 3), np.uint8), noise(1, 4, 4)[0]])
    assert np.isnan(load_metric(scorer)(images)).tolist() == [True, False]
