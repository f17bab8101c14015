"""The metrics against figures that were computed elsewhere, and against an independent NIQE."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from skipdiff_env.metrics import load_metric, psnr_y, ssim_y, studio_luma
from skipdiff_env.metrics.perceptual import niqe_luma
from skipdiff_env.metrics.pyiqa_loading import WEIGHTS
from tests.reference.niqe64 import niqe64

# Astronaut, coffee, chelsea, rocket. pyiqa 0.1.16 on another machine; whole picture, centre 256x256, and
# that after Pillow's bicubic to 64x64 and back.
NIQE_WHOLE = [3.062388045531781, 4.061590026361292, 2.5720785436149982, 7.035578828610571]
NIQE_CROP = [3.9104881351935177, 8.045969090770416, 3.3262959669426198, 14.73449916477787]
NIQE_BICUBIC = [7.774039058237005, 7.97945233551769, 7.917238508142825, 17.523099487300893]
LPIPS_BICUBIC = [0.3334693908691406, 0.26287373900413513, 0.462422639131546, 0.28479474782943726]
# scikit-image on the luma of BT.601.
PSNR_BICUBIC = [24.968236347342717, 26.922039464746547, 29.42283509835905, 32.046319656644265]
SSIM_BICUBIC = [0.7849773031618709, 0.8498722663527274, 0.7075900054477546, 0.9276719667043858]


@pytest.fixture(scope="module")
def pristine() -> tuple[np.ndarray, np.ndarray]:
    model = scipy.io.loadmat(WEIGHTS / "niqe_modelparameters.mat")
    return model["mu_prisparam"].ravel(), model["cov_prisparam"]


def test_niqe_of_whole_photographs(photographs: dict[str, np.ndarray]) -> None:
    niqe = load_metric("niqe")
    scores = [niqe(image[None])[0] for image in photographs.values()]
    np.testing.assert_allclose(scores, NIQE_WHOLE, rtol=1e-3)
    # No flat areas, so no rounding noise to amplify.
    np.testing.assert_allclose(scores[2], NIQE_WHOLE[2], rtol=1e-6)


def test_niqe_of_crops(crops: np.ndarray, bicubic: np.ndarray) -> None:
    niqe = load_metric("niqe")
    np.testing.assert_allclose(niqe(crops), NIQE_CROP, rtol=1e-4)
    np.testing.assert_allclose(niqe(bicubic), NIQE_BICUBIC, rtol=3e-3)


def test_niqe_against_an_independent_one(
    crops: np.ndarray, bicubic: np.ndarray, pristine: tuple[np.ndarray, np.ndarray]
) -> None:
    expected = [niqe64(niqe_luma(image), *pristine) for image in crops]
    np.testing.assert_allclose(load_metric("niqe")(crops), expected, rtol=1e-5)
    # Enlarged pictures have flat areas (the rocket's sky most), where normalised pixels are rounding noise.
    expected = [niqe64(niqe_luma(image), *pristine) for image in bicubic]
    scores = load_metric("niqe")(bicubic)
    np.testing.assert_allclose(scores[:3], expected[:3], rtol=1e-3)
    np.testing.assert_allclose(scores[3], expected[3], rtol=1e-2)


def test_niqe_luma_is_a_rounding_of_the_exact_one(crops: np.ndarray) -> None:
    thousandths = crops.astype(np.int64) @ np.array([299, 587, 114])
    got = niqe_luma(crops)
    assert np.array_equal(got, np.rint(got))
    ties = thousandths % 1000 == 500
    assert np.array_equal(got[~ties], ((thousandths + 500) // 1000)[~ties])
    assert np.all(np.abs(1000 * got - thousandths)[ties] == 500) and ties.any()


def test_niqe_is_that_of_pyiqa(crops: np.ndarray) -> None:
    """The fixed order of our luma's sum may move tied pixels, and nothing else, from pyiqa's own."""
    image = crops[2:3]  # few ties
    planes = torch.from_numpy(image).permute(0, 3, 1, 2) / 255
    direct = float(load_metric("niqe")._network(planes))  # type: ignore[attr-defined]
    np.testing.assert_allclose(load_metric("niqe")(image), direct, rtol=1e-4)


def test_lpips_of_bicubic(crops: np.ndarray, bicubic: np.ndarray) -> None:
    lpips = load_metric("lpips")
    np.testing.assert_allclose(lpips(bicubic, crops), LPIPS_BICUBIC, atol=1e-5)
    np.testing.assert_allclose(lpips(crops, crops), 0, atol=1e-7)


def test_psnr_and_ssim_of_bicubic(crops: np.ndarray, bicubic: np.ndarray) -> None:
    np.testing.assert_allclose(psnr_y(bicubic, crops), PSNR_BICUBIC, rtol=1e-12)
    np.testing.assert_allclose(ssim_y(bicubic, crops), SSIM_BICUBIC, rtol=1e-10)
    assert np.array_equal(load_metric("psnr")(bicubic, crops), psnr_y(bicubic, crops))
    assert np.array_equal(load_metric("ssim")(bicubic, crops), ssim_y(bicubic, crops))


def test_psnr_in_closed_form() -> None:
    image = np.full((1, 12, 12, 3), 100, np.uint8)
    grey = image + np.uint8(5)  # luma runs over 219 levels where grey runs over 255
    np.testing.assert_allclose(psnr_y(image, grey), 20 * np.log10(255 / (5 * 219 / 255)))
    assert np.isposinf(psnr_y(image, image)).all() and np.all(ssim_y(image, image) == 1)


def test_studio_luma_ends() -> None:
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    np.testing.assert_allclose(studio_luma(colours), [16, 235, 81.481, 144.553, 40.966])


def test_bicubic_row_of_the_validation_set(
    data_dir: Path, down_and_up: Callable[[np.ndarray], np.ndarray]
) -> None:
    with tarfile.open(data_dir / "val_set14_bsd20.tar") as tar:
        files = [tar.extractfile(member) for member in tar if member.isfile()]
        images = np.stack([Image.open(io.BytesIO(file.read())).convert("RGB") for file in files if file])
    bicubic = np.stack([down_and_up(image) for image in images])
    assert len(images) == 31
    assert round(psnr_y(bicubic, images).mean(), 2) == 25.82
    assert round(ssim_y(bicubic, images).mean(), 4) == 0.6785
    np.testing.assert_allclose(load_metric("lpips")(bicubic, images).mean(), 0.4890, atol=6e-5)
    np.testing.assert_allclose(load_metric("niqe")(bicubic).mean(), 8.30, atol=0.01)
    np.testing.assert_allclose(load_metric("niqe")(images).mean(), 5.28, atol=0.01)
