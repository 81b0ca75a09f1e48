"""What looks like a light and is none, drawn on crops for training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.pocket import decoys
from scripts.pocket.decoys import BONNET_DEPTH, DEPTH, GROUND, with_decoys
from scripts.pocket.maps import MAP_NAMES
from scripts.pocket.marks import LIGHTS

HEADS = 3 + MAP_NAMES.index("heads")
SIDE = 96


@pytest.fixture
def crop() -> torch.Tensor:
    """Grey ground in the lower half of 96 px, a lamp on its left."""
    crop = torch.zeros(3 + len(MAP_NAMES), SIDE, SIDE)
    crop[:3] = 0.3
    crop[GROUND, SIDE // 2 :] = 1
    crop[DEPTH] = 0.5
    crop[HEADS, SIDE - 4, 4] = 1
    return crop


def drawn(
    crop: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    on_road: float,
    bonnet: float,
    head: float = 0.0,
    wheel: float = 0.0,
) -> list[torch.Tensor]:
    for name, share in (("ON_ROAD", on_road), ("BONNET", bonnet), ("HEAD", head), ("WHEEL", wheel)):
        monkeypatch.setattr(decoys, name, share)
    rng = np.random.default_rng(0)
    return [with_decoys(crop.clone(), rng) for _ in range(24)]


def test_paint_and_sunshine_lie_on_the_ground_alone(crop: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    made = drawn(crop, monkeypatch, 1.0, 0.0)
    assert all(torch.equal(one[3:], crop[3:]) for one in made), "what is where stays"
    assert all(torch.equal(one[:3, : SIDE // 2], crop[:3, : SIDE // 2]) for one in made)
    changed = [(one[0] - crop[0]).abs() > 0.05 for one in made]
    assert sum(bool(where.any()) for where in changed) > 18
    assert any(one[:3].max() > 0.6 for one in made), "paint"
    assert any(one[:3].min() < 0.2 for one in made), "shadow"
    assert len({one[:3].sum().item() for one in made}) > 18, "each is another"


def test_a_bonnet_is_near_and_has_no_light(crop: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    for one in drawn(crop, monkeypatch, 0.0, 1.0):
        lowest = one[:, -1]
        near = lowest[DEPTH] < 2 * BONNET_DEPTH
        assert near.any()
        assert lowest[GROUND][near].max() < 0.1
        assert torch.equal(one[-1], crop[-1]), "the height over the horizon is that of the picture"
        assert torch.equal(one[:, : SIDE // 2], crop[:, : SIDE // 2])
        hidden = one[DEPTH] < 2 * BONNET_DEPTH
        lights = one[3 + MAP_NAMES.index(LIGHTS[0]) :][: len(LIGHTS)]
        assert lights[:, hidden].max() < 0.1
        assert 0 <= one[:3].min() <= one[:3].max() <= 1


def test_where_there_is_no_ground_there_is_nothing(crop: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    crop[GROUND] = 0
    assert all(torch.equal(one, crop) for one in drawn(crop, monkeypatch, 1.0, 1.0))


@pytest.mark.parametrize(("head", "wheel", "large"), [(1.0, 0.0, 0.2), (0.0, 1.0, 0.05)], ids=["head", "wheel"])
def test_a_thing_hides_what_is_behind_it_and_has_no_light(
    head: float, wheel: float, large: float, crop: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    crop[HEADS] = 1
    crop[GROUND] = 1
    made = drawn(crop, monkeypatch, 0.0, 0.0, head, wheel)
    areas = []
    for one in made:
        assert torch.equal(one[-1], crop[-1]), "the height over the horizon is that of the picture"
        assert 0 <= one.min() <= one.max() <= 1
        hidden = one[GROUND] < 0.5
        assert torch.allclose(one[HEADS], one[GROUND]), "no lamp shines through it"
        assert (one[DEPTH][hidden] < 0.5).all(), "it is nearer than what it hides"
        free = one[GROUND] == 1
        assert torch.allclose(one[:, free], crop[:, free], atol=1e-4)
        areas.append(float(hidden.float().mean()))
    assert min(areas) < large / 4
    assert max(areas) > large, "small and large ones"
