"""How much of an image's and of its objects' structure an edit kept, with known answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from diffgen.checks.structure import agreement, double_angle, luminance
from diffgen.checks.verdict import judge
from diffgen.dataset.labels import Shape
from diffgen.recipe.sections import Checks
from diffgen.types import Record
from tests.checks.scenes import OBJECT, OTHER, SCENE, facts_of
from tests.fakes import photo


def painted_out(pixels: np.ndarray, shape: Shape) -> np.ndarray:
    """The object replaced by something else with edges of its own."""
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = (int(v * side) for v, side in zip(shape.box, (width, height, width, height), strict=True))
    out = pixels.copy()
    y, x = np.mgrid[y0 - 4 : y1 + 4, x0 - 4 : x1 + 4]
    out[y0 - 4 : y1 + 4, x0 - 4 : x1 + 4] = (127 + 60 * np.sin((x + y) / 3.0))[..., None]
    return out


def test_the_source_against_itself_is_perfect() -> None:
    facts = facts_of(SCENE, SCENE, [OBJECT, OTHER])
    assert facts["structure"] == [1.0, 1.0]
    assert facts["structure_image"] == 1.0
    assert facts["shift_px"] == 0.0
    assert facts["shift_peak"] == pytest.approx(1.0, abs=0.001)
    assert facts["sides_px"] == [96.0, 96.0]


LIGHT: list[tuple[str, Callable[[np.ndarray], np.ndarray]]] = [
    ("darkened", lambda a: a * 0.3),
    ("brightened", lambda a: 255 - (255 - a) * 0.5),
    ("gamma", lambda a: 255 * (a / 255) ** 2.2),
    ("inverted", lambda a: 255 - a),
    ("fog", lambda a: a * 0.4 + 140),
    ("a lamp on one side", lambda a: a * np.linspace(0.2, 1, a.shape[1])[None, :, None]),
]


@pytest.mark.parametrize("change", [c for _, c in LIGHT], ids=[n for n, _ in LIGHT])
def test_light_may_change(change: Callable[[np.ndarray], np.ndarray]) -> None:
    edited = change(SCENE.astype(np.float64)).clip(0, 255).astype(np.uint8)
    facts = facts_of(SCENE, edited, [OBJECT, OTHER])
    assert min(facts["structure"]) > 0.75
    assert facts["shift_px"] < 0.3
    assert judge(Record("x", "made", facts), Checks()).accepted


def test_an_object_painted_out_is_seen_and_its_neighbour_is_not_blamed() -> None:
    facts = facts_of(SCENE, painted_out(SCENE, OBJECT), [OBJECT, OTHER])
    assert facts["structure"][0] < 0.2
    assert facts["structure"][1] > 0.95
    assert judge(Record("x", "made", facts), Checks()).reason == "structure"


def test_another_picture_is_unlike() -> None:
    facts = facts_of(SCENE, photo(99, (320, 240))[::-1, ::-1], [OBJECT])
    assert facts["structure"][0] < 0.3
    assert facts["structure_image"] < 0.3


@pytest.mark.parametrize("size", [(64, 48), (1, 1), (1, 40), (40, 1), (3, 3)], ids=str)
def test_a_flat_picture_is_degenerate_and_nothing_breaks(size: tuple[int, int]) -> None:
    flat = np.full((size[1], size[0], 3), 90, np.uint8)
    facts = facts_of(flat, flat, [OBJECT])
    assert facts["contrast"] == 0.0
    assert facts["shift_px"] == 0.0
    assert judge(Record("x", "made", facts), Checks()).reason == "degenerate"


def test_an_object_outside_the_picture_is_not_measured() -> None:
    outlined = Shape(0, (1.0, 0.2, 1.005, 0.4), ((1.0, 0.2), (1.005, 0.2), (1.005, 0.4)))
    facts = facts_of(SCENE, SCENE, [Shape(0, (1.0, 0.2, 1.005, 0.4)), Shape(0, (0.5, 0.5, 0.5, 0.9)), outlined])
    assert facts["structure"][0] is None
    assert facts["structure"][2] is None
    assert judge(Record("x", "made", facts), Checks()).accepted


def test_an_object_over_the_border_is_measured_by_what_is_inside() -> None:
    assert facts_of(SCENE, SCENE, [Shape(0, (-0.005, 0.2, 0.45, 1.005))])["structure"] == [1.0]


def test_an_outlined_object_is_measured_within_its_outline() -> None:
    """A thin ship across its hull: all around it is another picture, and it is as it was."""
    source, other = photo(1, (320, 240)), photo(2, (320, 240))
    ship = ((0.1, 0.1), (0.2, 0.1), (0.9, 0.9), (0.8, 0.9))
    rows, columns = np.mgrid[:240, :320] / np.array([240, 320])[:, None, None]
    along = (rows - 0.1) / 0.8 * 0.7
    inside = (rows > 0.05) & (rows < 0.95) & (columns > along + 0.05) & (columns < along + 0.25)
    edited = np.where(inside[..., None], source, other)
    (outlined,) = facts_of(source, edited, [Shape(0, (0.1, 0.1, 0.9, 0.9), ship)])["structure"]
    (boxed,) = facts_of(source, edited, [Shape(0, (0.1, 0.1, 0.9, 0.9))])["structure"]
    assert outlined > 0.95
    assert boxed < 0.6


def test_agreement_is_bounded() -> None:
    a, b = double_angle(luminance(SCENE)), double_angle(luminance(np.rot90(photo(4, (240, 320)))))
    for one, two in ((a, a), (a, b), (a, -a)):
        value = agreement(one, two, (0, 0, 320, 240))
        assert value is not None
        assert -1.0001 <= value <= 1.0001


def test_an_object_without_edges_in_the_source_is_not_judged() -> None:
    source = photo(1)
    source[2:26, 2:36] = 255
    edited = (source * 0.9).astype(np.uint8)
    edited[10, 10] = 200
    facts = facts_of(source, edited, [Shape(0, (0.12, 0.15, 0.42, 0.36))])
    assert facts["structure"] == [None]
