"""Control maps of edges: images in, maps out. No model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diffgen.editing.control_maps import PALETTE, Maps, canny, soft_edges
from diffgen.types import ControlInput
from tests.fakes import photo, step

EDGES = pytest.mark.parametrize("edges", [canny, soft_edges], ids=["canny", "softedge"])


@EDGES
def test_a_shifted_edge_shifts_the_map(edges: Any) -> None:
    first, second = edges(step(24)).astype(int), edges(step(31)).astype(int)
    assert np.array_equal(first[:, 10:40], second[:, 17:47])
    assert first[:, 22:26].max() == 255
    assert first[:, :10].max() == 0


@EDGES
def test_a_map_is_as_large_as_its_picture_and_the_same_each_time(edges: Any) -> None:
    for size in [(64, 48), (41, 67)]:
        image = photo(1, size)
        found = edges(image)
        assert (found.shape, found.dtype) == (image.shape[:2], np.uint8)
        assert found.max() > 0
        assert np.array_equal(found, edges(image.copy()))


@EDGES
def test_a_plain_picture_has_no_edges(edges: Any) -> None:
    assert edges(np.full((40, 40, 3), 127, np.uint8)).max() == 0


def test_canny_is_black_and_white_and_thin() -> None:
    found = canny(step(24))
    assert set(np.unique(found)) == {0, 255}
    assert (found == 255).sum() == 48  # one pixel a row


def test_soft_edges_grow_with_the_contrast_and_do_not_amplify_grain() -> None:
    peaks = [soft_edges(step(24, low=100, high=100 + rise)).max() for rise in (10, 20, 40, 80)]
    assert peaks == sorted(set(peaks))
    assert peaks[-1] == 255
    grain = np.random.default_rng(0).normal(127, 3, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    assert soft_edges(grain).mean() < 15


def test_soft_edges_see_colour_where_grey_does_not() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, :20], image[:, 20:] = (150, 0, 0), (0, 76, 0)  # about as bright
    assert soft_edges(image)[:, 18:22].max() == 255


def test_each_map_of_a_picture_is_made_once() -> None:
    seen: list[int] = []

    def depth(image: np.ndarray) -> np.ndarray:
        seen.append(1)
        return image[..., 0]

    maps = Maps({"d": depth, "s": lambda image: image[..., 0] % 150})
    first, second = photo(1), photo(2)
    for _ in range(3):  # three conditions
        for image in (first, second):
            found = maps(ControlInput("depth", "a model", 1.0, estimator="d"), image)
            assert np.array_equal(found, np.repeat(image[..., :1], 3, axis=2))
    assert len(seen) == 2
    painted = maps(ControlInput("segmentation", "m", 1.0, estimator="s"), first)
    assert np.array_equal(painted[5, 7], PALETTE[first[5, 7, 0] % 150])
    assert np.array_equal(maps(ControlInput("canny", "m", 1.0), first)[..., 2], canny(first))
    assert np.array_equal(maps(ControlInput("softedge", "m", 1.0), first)[..., 1], soft_edges(first))


def test_the_palette_is_that_of_ade20k() -> None:
    assert PALETTE.shape == (150, 3)
    names = {0: (120, 120, 120), 2: (6, 230, 230), 6: (140, 140, 140), 12: (150, 5, 61), 20: (0, 102, 200)}
    for index, colour in names.items():  # wall, sky, road, person, car
        assert tuple(PALETTE[index]) == colour
    assert tuple(PALETTE[149]) == (92, 0, 255)
