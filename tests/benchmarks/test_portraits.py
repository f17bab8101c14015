"""The portraits that sample pictures show: aligned, whatever the pose and size in the original."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.paper.pictures import photographs
from benchmarks.paper.portraits import PORTRAITS, align
from skipdiff_env.diffusion import random_model, tiny_config

EYES, MOUTH = ((70.0, 80.0), (110.0, 80.0)), (90.0, 120.0)


def face(eyes=EYES, mouth=MOUTH, side=240):
    """A grey picture with a dot at each eye (red) and at the mouth (blue)."""
    picture = np.full((side, side, 3), 128, np.uint8)
    for (x, y), colour in ((eyes[0], (255, 0, 0)), (eyes[1], (255, 0, 0)), (mouth, (0, 0, 255))):
        picture[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4] = colour
    return picture


def centre(mask):
    rows, columns = np.nonzero(mask)
    return columns.mean() + 0.5, rows.mean() + 0.5


def places(aligned):
    """(x, y) of left eye, right eye and mouth as shares of the side."""
    side = len(aligned)
    red = (aligned[..., 0] > 180) & (aligned[..., 2] < 80)
    blue = (aligned[..., 2] > 180) & (aligned[..., 0] < 80)
    left, right = red.copy(), red.copy()
    left[:, side // 2 :], right[:, : side // 2] = False, False
    return np.array([centre(mask) for mask in (left, right, blue)]) / side


def test_eyes_and_mouth_come_to_lie_where_the_formula_puts_them():
    # eyes 40 apart, mouth 40 below: half the side is 80, its centre (90, 84)
    expected = (np.array([EYES[0], EYES[1], MOUTH]) + 0.5 - [90, 84] + 80) / 160
    np.testing.assert_allclose(places(align(face(), EYES, MOUTH, 128)), expected, atol=0.01)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_turned_face_comes_out_upright(turn):
    side = 240

    def turned(point):
        x, y = point
        for _ in range(turn):  # as np.rot90 does: counter-clockwise
            x, y = y, side - 1 - x
        return x, y

    picture = np.ascontiguousarray(np.rot90(face(side=side), turn))
    got = align(picture, (turned(EYES[0]), turned(EYES[1])), turned(MOUTH), 128)
    np.testing.assert_allclose(places(got), places(align(face(side=side), EYES, MOUTH, 128)), atol=0.01)


@pytest.mark.parametrize("portrait", PORTRAITS, ids=lambda portrait: portrait.photograph.name)
def test_portraits_are_there_and_darker_at_the_eyes(portrait):
    picture = portrait.read(128)
    assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8 and picture.std() > 30
    grey = picture.mean(axis=2)
    # by the formula the eyes lie a quarter of the side apart, and about 6 pixels above the middle
    eyes = [grey[52:64, x - 8 : x + 8].min() for x in (48, 80)]
    assert max(eyes) < grey[66:80, 40:88].mean() - 40  # cheeks and nose


def test_models_of_faces_show_portraits_and_others_the_bundled_photographs():
    faces, natural = (photographs(random_model(tiny_config(scale=scale))) for scale in (8, 4))
    assert [faces.name(i) for i in range(len(faces))] == ["astronaut", "hopper"]
    assert [natural.name(i) for i in range(len(natural))] != ["astronaut", "hopper"]
