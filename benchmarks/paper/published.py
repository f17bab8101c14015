"""The paper's own figures, for other weights and another choice of pictures.

Tables show them in a column of their own, and only for results on the same kind of pictures and with the
same step pair.

The figures are PSNR, SSIM, NIQE and LPIPS, from Tables 1 to 6 of Luo et al., AAAI 2024.
"""

from __future__ import annotations

Figures = tuple[float, float, float, float]

FACES_SCALE = 8
"""A model with this scale is for aligned faces; any other model is for natural images."""

OWN_SETS = {"faces128_test-celebahq": "faces", "imagenet256_test": "natural"}
"""The folders of results on the paper's kinds of test pictures, CelebA-HQ 8 times and ImageNet 4 times."""

FACES: dict[str, Figures] = {
    "bicubic": (23.49, 0.6003, 13.45, 0.5374),
    "full": (24.79, 0.6766, 7.30, 0.0992),
    "skipdiff": (25.60, 0.6838, 6.47, 0.0967),
}
"""Table 1: CelebA-HQ, 8 times; SkipDiff with (10, 10) and 16 evaluations."""

NATURAL: dict[str, Figures] = {
    "bicubic": (25.60, 0.6594, 8.68, 0.4716),
    "full": (26.38, 0.6871, 5.00, 0.1909),
    "skipdiff": (26.65, 0.6884, 4.95, 0.1886),
}
"""Table 2: ImageNet, 4 times; SkipDiff with (5, 20) and 20 evaluations."""

COST = {"full": (4.17, 17799.0), "skipdiff": (0.69, 2848.0)}
"""Table 3: seconds on one V100, and billions of multiply-adds (GMAC), which the paper calls GFLOP."""

CASES: dict[str, tuple[Figures, int]] = {
    "neither": ((24.79, 0.6766, 7.30, 0.0992), 100),
    "csa": ((25.80, 0.7204, 9.09, 0.1160), 10),
    "fsr": ((24.81, 0.6761, 7.31, 0.0987), 100),
    "csa, whole": ((25.59, 0.6835, 6.45, 0.0968), 16),
    "both": ((25.60, 0.6838, 6.47, 0.0967), 16),
}
"""Table 4 (faces): figures and evaluations."""

STARTS: dict[int, Figures] = {
    9: (25.65, 0.7066, 7.13, 0.0984),
    8: (25.61, 0.7005, 6.53, 0.0965),
    7: (25.56, 0.6836, 6.47, 0.0964),
    6: (25.50, 0.6480, 7.22, 0.1022),
    5: (25.31, 0.5925, 8.26, 0.1200),
    4: (25.03, 0.5270, 9.27, 0.1526),
    3: (24.64, 0.4615, 10.34, 0.1974),
    2: (24.15, 0.4017, 11.39, 0.2518),
    1: (23.60, 0.3512, 12.63, 0.3104),
}
"""Table 5 (faces): manual starts."""

COARSE_TRENDS = {"psnr": -1, "niqe": -1, "lpips": -1}
"""Figure 1: as S grows, PSNR falls (worse), NIQE and LPIPS fall (better)."""

REWARDS: dict[str, Figures] = {
    "NIQE": (25.60, 0.6838, 6.47, 0.0967),
    "LPIPS": (25.60, 0.6839, 6.47, 0.0961),
}
"""Table 6 (faces): the agent's reward."""

CONSISTENCY = {1: 0.49, 2: 0.64}
"""L-STD of CCSR with both stages over that of StableSR's chain, by evaluations (Sun et al. 2024)."""


def shown(figures: Figures, evaluations: int | None = None) -> str:
    """Format figures as a cell: ``25.60 / 0.6838 / 6.47 / 0.0967 (16)``."""
    psnr, ssim, niqe, lpips = figures
    cell = f"{psnr:.2f} / {ssim:.4f} / {niqe:.2f} / {lpips:.4f}"
    return cell if evaluations is None else f"{cell} ({evaluations})"
