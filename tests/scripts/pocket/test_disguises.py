"""The same scene on another road, through a windscreen, by another camera."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.pocket.disguises import GROUND, SKY, more_road, other_paint, seen_otherwise, windscreen
from scripts.pocket.maps import MAP_NAMES
from scripts.pocket.marks import LIGHTS

SIDE = 96


@pytest.fixture
def crop() -> torch.Tensor:
    """96 px: sky above, a chequered wall between, chequered brown ground in the lower half."""
    crop = torch.zeros(3 + len(MAP_NAMES), SIDE, SIDE)
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    crop[:3] = 0.3 + 0.2 * ((row // 8 + column // 8) % 2)
    crop[2] *= 0.7
    crop[:3, : SIDE // 4] = 0.8
    crop[SKY, : SIDE // 4] = 1
    crop[GROUND, SIDE // 2 :] = 1
    crop[-1] = (0.7 - row / SIDE).clamp_min(0)
    return crop


def test_sky_ground_and_the_rest_are_each_painted_for_themselves(crop: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    made = [other_paint(crop, rng) for _ in range(24)]
    assert all(torch.equal(one[3:], crop[3:]) for one in made), "what is where stays"
    assert all(0 <= one[:3].min() <= one[:3].max() <= 1 for one in made)
    parts = [slice(0, SIDE // 4), slice(SIDE // 4, SIDE // 2), slice(SIDE // 2, SIDE)]
    ratios = torch.tensor([[float(one[1, part].mean() / crop[1, part].mean()) for part in parts] for one in made])
    assert (ratios.std(0) > 0.05).all(), "each part is at times lighter, at times darker"
    assert ((ratios[:, 2] - ratios[:, 1]).abs() > 0.1).sum() > 12, "not all by the same"


def test_more_road_comes_before_what_is_seen(crop: torch.Tensor) -> None:
    heads = 3 + MAP_NAMES.index(LIGHTS[0])
    crop[heads, -1, -1] = 1
    rng = np.random.default_rng(0)
    shown = set()
    for _ in range(12):
        made = more_road(crop, rng)
        assert made.shape == crop.shape
        kept = int((made[GROUND] == 0).all(1).sum()) + SIDE // 2  # rows of the crop that are still seen
        shown.add(kept)
        assert SIDE // 2 <= kept < 0.9 * SIDE
        assert torch.equal(made[:, :kept], crop[:, SIDE - kept :])
        assert made[GROUND, kept:].min() > 0.99
        assert made[heads, kept:].max() == 0
        steps = made[-1, :-1, 0] - made[-1, 1:, 0]
        assert torch.allclose(steps[made[-1, 1:, 0] > 0], torch.tensor(1 / SIDE), atol=1e-5), "one horizon"
        assert 0 <= made.min() <= made.max() <= 1
        lowest = made[:3, -3:]
        assert lowest.std(2).max() < 0.1, "empty"
    assert len(shown) > 5


def test_no_road_comes_before_what_is_cut_off(crop: torch.Tensor) -> None:
    crop[GROUND, :, : SIDE // 3] = 0
    assert more_road(crop, np.random.default_rng(0)) is crop


def test_ground_is_often_even_and_grey(crop: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    grounds = [other_paint(crop, rng)[:3, SIDE // 2 + 8 :] for _ in range(24)]
    bright = crop[0, SIDE // 2 + 8 :] > 0.4  # of the chequers, 1.67 times as bright as the others
    even = torch.tensor([float(one[0][bright].mean() / one[0][~bright].mean()) for one in grounds]) < 1.4
    assert 4 < even.sum() < 20
    redness = torch.tensor([float(one[0].mean() / one[2].mean()) for one in grounds])
    assert redness[even].mean() < redness[~even].mean()


def test_a_windscreen_veils_more_below_and_blurs(crop: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    dark = torch.zeros(3, SIDE, SIDE)
    veils = torch.stack([windscreen(dark, rng) for _ in range(24)])
    assert veils.min() >= 0
    assert veils[:, :, -8:].mean() > 1.2 * veils[:, :, :8].mean()
    assert len({round(float(veil.mean()), 6) for veil in veils}) == 24
    sharp = (crop[0, :, 1:] - crop[0, :, :-1]).abs().mean()
    seen = [windscreen(crop[:3], rng) for _ in range(8)]
    assert all((one[0, :, 1:] - one[0, :, :-1]).abs().mean() < sharp for one in seen)
    assert all(one.max() <= 1 for one in seen)


def test_some_crops_stay_as_they_are(crop: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    same = [torch.equal(seen_otherwise(crop[:3], rng), crop[:3]) for _ in range(60)]
    assert 6 < sum(same) < 36
