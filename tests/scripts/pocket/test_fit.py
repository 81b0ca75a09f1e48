"""The measures of whether a night's lamps and windows shine, and of where snow lies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scripts.pocket.check import taught
from scripts.pocket.check_fit import LIT, SEVERITY, lights
from scripts.pocket.check_scenes import snow_lies
from scripts.pocket.maps import MAP_NAMES, make_maps
from scripts.pocket.marks import LIGHTS, Mark
from scripts.pocket.photos import Photo

SIDE = 128
GROUND = [np.array([[0, 0.6], [1, 0.6], [1, 1], [0, 1]], np.float32)]
BOXES = {
    "heads": [[0.2, 0.7, 0.28, 0.78], [0.4, 0.7, 0.48, 0.78]],
    "tails": [[0.7, 0.7, 0.78, 0.78]],
    "streets": [],
    "windows": [],
}
LAMPS = {kind: [np.array(box, np.float32) for box in boxes] for kind, boxes in BOXES.items()}


@pytest.fixture
def photo() -> Photo:
    noise = np.random.default_rng(0).integers(90, 120, (3, SIDE, SIDE), dtype=np.uint8)
    return Photo("a.png", "", torch.from_numpy(noise))


def test_lamps_shine_if_they_have_half_the_renderers_light(photo: Photo) -> None:
    mark = Mark(0.55, [], GROUND, [], LAMPS)
    image = photo.pixels.float() / 255
    maps = make_maps(image, mark)
    lit = taught(image, maps, "night", SEVERITY)
    unlit = maps.clone()
    unlit[[MAP_NAMES.index(kind) for kind in LIGHTS]] = 0
    dark = taught(image, unlit, "night", SEVERITY)
    assert float((lit - dark).amax()) > LIT
    one = torch.where(torch.arange(SIDE) < SIDE * 0.34, lit, dark)
    faint = dark + 0.4 * (lit - dark)
    pale = lit.clamp_min(0.9 * float(lit.max()))
    made = {"lit": lit, "dark": dark, "one": one, "faint": faint, "pale": pale}
    edits = [lambda _image, _text, night=night: night for night in made.values()]
    count, shine = lights([photo], {"a.png": mark}, edits, SIDE)
    assert count.tolist() == [2, 1, 0, 0]
    assert shine[:, :4].tolist() == [[2, 1, 0, 0], [0] * 4, [1, 0, 0, 0], [0] * 4, [2, 1, 0, 0]]
    assert shine[:4, 4].max() == 0
    assert shine[4, 4] > 0.2, "bright all over"


def test_snow_lies_where_it_is_as_light_as_the_renderers(photo: Photo) -> None:
    mark = Mark(0.55, [], GROUND, [], {kind: [] for kind in LIGHTS})
    image = photo.pixels.float() / 255
    maps = make_maps(image, mark)
    snowy = taught(image, maps, "snow", SEVERITY)

    def measured(made: torch.Tensor) -> list[float]:
        return list(snow_lies([image], [maps], lambda _image, _text: made, SEVERITY).values())

    assert measured(snowy) == [1, 0]
    left = torch.arange(SIDE) < SIDE // 2
    assert measured(torch.where(left, snowy, image)) == pytest.approx([0.5, 0], abs=0.05), "bare on the right"
    assert measured(torch.where(left, snowy, torch.ones(3, SIDE, SIDE))) == pytest.approx([1, 0.5], abs=0.05), (
        "all white there"
    )
