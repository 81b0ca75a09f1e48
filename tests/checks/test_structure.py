"""Facts about edits with known answers, and the verdicts over facts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from diffgen.checks import agreement, double_angle, judge, judged_structure, luminance, measure, registration
from diffgen.labels import Shape
from diffgen.recipe import Checks, presets
from diffgen.types import Record
from tests.fakes import photo

OBJECT = Shape(0, (0.15, 0.2, 0.45, 0.6))
OTHER = Shape(1, (0.6, 0.5, 0.9, 0.9))
SCENE = photo(11, (320, 240))


def painted_out(pixels: np.ndarray, shape: Shape) -> np.ndarray:
    """The object replaced by something else with edges of its own."""
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = (int(v * side) for v, side in zip(shape.box, (width, height, width, height), strict=True))
    out = pixels.copy()
    y, x = np.mgrid[y0 - 4 : y1 + 4, x0 - 4 : x1 + 4]
    out[y0 - 4 : y1 + 4, x0 - 4 : x1 + 4] = (127 + 60 * np.sin((x + y) / 3.0))[..., None]
    return out


def test_the_source_against_itself_is_perfect() -> None:
    facts = measure(SCENE, SCENE, [OBJECT, OTHER])
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
    facts = measure(SCENE, edited, [OBJECT, OTHER])
    assert min(facts["structure"]) > 0.75
    assert facts["shift_px"] < 0.3
    assert judge(Record("x", "made", facts), Checks()).accepted


def test_an_object_painted_out_is_seen_and_its_neighbour_is_not_blamed() -> None:
    facts = measure(SCENE, painted_out(SCENE, OBJECT), [OBJECT, OTHER])
    assert facts["structure"][0] < 0.2
    assert facts["structure"][1] > 0.95
    assert judge(Record("x", "made", facts), Checks()).reason == "structure"


def test_another_picture_is_unlike() -> None:
    facts = measure(SCENE, photo(99, (320, 240))[::-1, ::-1], [OBJECT])
    assert facts["structure"][0] < 0.3
    assert facts["structure_image"] < 0.3


def moved(pixels: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """The picture shifted right by dx and down by dy pixels, the border drawn on."""
    image = Image.fromarray(pixels)
    coefficients = (1, 0, -dx, 0, 1, -dy)
    out = np.array(image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC))
    border = int(np.ceil(max(abs(dx), abs(dy))))
    return np.pad(out[border:-border, border:-border], ((border, border), (border, border), (0, 0)), mode="edge")


SHIFTS = [(1, 0), (0, 1), (2.5, 0), (0, -2.5), (-6, 0), (3.6, 4.8), (-1.5, 2)]


@pytest.mark.parametrize("size", [(128, 96), (320, 240), (240, 320), (1000, 600)], ids=str)
@pytest.mark.parametrize(("dx", "dy"), SHIFTS)
def test_a_shift_is_measured_within_half_a_pixel(size: tuple[int, int], dx: float, dy: float) -> None:
    pixels = photo(11, size)
    shift, peak = registration(luminance(pixels), luminance(moved(pixels, dx, dy)))
    assert shift == pytest.approx(np.hypot(dx, dy), abs=0.5)
    assert peak > 0.1


def test_a_shift_is_measured_through_a_change_of_light() -> None:
    dark = (moved(SCENE, 2.5, 0) * 0.3).astype(np.uint8)
    facts = measure(SCENE, dark, [OBJECT])
    assert facts["shift_px"] == pytest.approx(2.5, abs=0.5)
    assert judge(Record("x", "made", facts), Checks(registration=2)).reason == "registration"


@pytest.mark.parametrize("size", [(64, 48), (1, 1), (1, 40), (40, 1), (3, 3)], ids=str)
def test_a_flat_picture_is_degenerate_and_nothing_breaks(size: tuple[int, int]) -> None:
    flat = np.full((size[1], size[0], 3), 90, np.uint8)
    facts = measure(flat, flat, [OBJECT])
    assert facts["contrast"] == 0.0
    assert facts["shift_px"] == 0.0
    assert judge(Record("x", "made", facts), Checks()).reason == "degenerate"


def test_an_object_outside_the_picture_is_not_measured() -> None:
    outlined = Shape(0, (1.0, 0.2, 1.005, 0.4), ((1.0, 0.2), (1.005, 0.2), (1.005, 0.4)))
    facts = measure(SCENE, SCENE, [Shape(0, (1.0, 0.2, 1.005, 0.4)), Shape(0, (0.5, 0.5, 0.5, 0.9)), outlined])
    assert facts["structure"][0] is None
    assert facts["structure"][2] is None
    assert judge(Record("x", "made", facts), Checks()).accepted


def test_an_object_over_the_border_is_measured_by_what_is_inside() -> None:
    assert measure(SCENE, SCENE, [Shape(0, (-0.005, 0.2, 0.45, 1.005))])["structure"] == [1.0]


def test_an_outlined_object_is_measured_within_its_outline() -> None:
    """A thin ship across its hull: all around it is another picture, and it is as it was."""
    source, other = photo(1, (320, 240)), photo(2, (320, 240))
    ship = ((0.1, 0.1), (0.2, 0.1), (0.9, 0.9), (0.8, 0.9))
    rows, columns = np.mgrid[:240, :320] / np.array([240, 320])[:, None, None]
    along = (rows - 0.1) / 0.8 * 0.7
    inside = (rows > 0.05) & (rows < 0.95) & (columns > along + 0.05) & (columns < along + 0.25)
    edited = np.where(inside[..., None], source, other)
    (outlined,) = measure(source, edited, [Shape(0, (0.1, 0.1, 0.9, 0.9), ship)])["structure"]
    (boxed,) = measure(source, edited, [Shape(0, (0.1, 0.1, 0.9, 0.9))])["structure"]
    assert outlined > 0.95
    assert boxed < 0.6


def test_agreement_is_bounded() -> None:
    a, b = double_angle(luminance(SCENE)), double_angle(luminance(np.rot90(photo(4, (240, 320)))))
    for one, two in ((a, a), (a, b), (a, -a)):
        value = agreement(one, two, (0, 0, 320, 240))
        assert value is not None
        assert -1.0001 <= value <= 1.0001


def facts(**changes: object) -> dict[str, object]:
    return {
        "contrast": 0.2, "shift_px": 0.1, "shift_peak": 0.9, "structure": [0.9], "sides_px": [50.0],
        "structure_image": 0.9, **changes,
    }  # fmt: skip


# (name, facts, checks, reason or None)
VERDICTS: list[tuple[str, dict[str, object], dict[str, object], str | None]] = [
    ("good", {}, {}, None),
    ("flat", {"contrast": 0.01}, {}, "degenerate"),
    ("flat, not checked", {"contrast": 0.01}, {"contrast": None}, None),
    ("at the contrast threshold", {"contrast": 0.02}, {}, None),
    ("shifted", {"shift_px": 3.1}, {}, "registration"),
    ("at the shift threshold", {"shift_px": 2.0}, {}, None),
    ("shifted, not checked", {"shift_px": 9.0}, {"registration": None}, None),
    ("a shift that means nothing", {"shift_px": 9.0, "shift_peak": 0.05}, {}, None),
    ("object lost", {"structure": [0.1]}, {}, "structure"),
    ("at the structure threshold", {"structure": [0.2]}, {}, None),
    ("object lost, not checked", {"structure": [0.1]}, {"structure": None}, None),
    ("one of four lost is the lower quartile's business", {"structure": [0.0, 0.9, 0.9, 0.9],
      "sides_px": [50.0] * 4}, {}, "structure"),
    ("one of five lost", {"structure": [0.0, 0.9, 0.9, 0.9, 0.9], "sides_px": [50.0] * 5}, {}, None),
    ("two of five lost", {"structure": [0.0, 0.1, 0.9, 0.9, 0.9], "sides_px": [50.0] * 5}, {}, "structure"),
    ("a tiny object lost", {"structure": [0.0, 0.9], "sides_px": [7.9, 50.0]}, {}, None),
    ("an object that cannot be measured", {"structure": [None], "sides_px": [50.0]}, {}, None),
    ("no objects, picture like its source", {"structure": [], "sides_px": []}, {}, None),
    ("no objects, picture unlike", {"structure": [], "sides_px": [], "structure_image": 0.1}, {}, "structure"),
    ("flat comes before structure", {"contrast": 0.0, "structure": [0.0]}, {}, "degenerate"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "checks", "reason"), [v[1:] for v in VERDICTS], ids=[v[0] for v in VERDICTS])
def test_judge(changes: dict[str, object], checks: dict[str, object], reason: str | None) -> None:
    verdict = judge(Record("x", "made", facts(**changes)), Checks.model_validate(checks))
    assert (verdict.accepted, verdict.reason) == (reason is None, reason)


def test_a_failed_record_is_rejected_whatever_the_checks() -> None:
    off = Checks(structure=None, registration=None, contrast=None)
    assert judge(Record("x", "failed", kind="source", error="gone"), off).reason == "failed"


def test_judged_structure_does_not_depend_on_the_order_of_objects() -> None:
    values, sides = [0.1, 0.5, None, 0.7, 0.9], [20.0, 20.0, 20.0, 4.0, 20.0]
    forward = judged_structure(facts(structure=values, sides_px=sides))
    backward = judged_structure(facts(structure=values[::-1], sides_px=sides[::-1]))
    assert forward == backward == 0.1


@pytest.mark.parametrize("condition", presets())
def test_a_copy_passes_all_but_that_something_happened(condition: str) -> None:
    facts = measure(SCENE, SCENE, [OBJECT, OTHER])
    assert judge(Record("x", "made", facts), Checks(), condition).reason == "unchanged"
    assert judge(Record("x", "made", facts), Checks(happened=None), condition).accepted
    assert judge(Record("x", "made", facts), Checks(), "of-my-own").accepted


SPOILED: list[tuple[str, Callable[[np.ndarray], np.ndarray], str]] = [
    ("shifted", lambda a: moved(a, 5, 0), "registration"),
    ("mirrored", lambda a: a[:, ::-1], "structure"),
    ("upside down", lambda a: a[::-1], "structure"),
    ("emptied", lambda a: np.full_like(a, 100), "degenerate"),
    ("melted", lambda a: np.array(Image.fromarray(a).resize((5, 4)).resize((320, 240))), "structure"),
]


@pytest.mark.parametrize(("change", "reason"), [(c, r) for _, c, r in SPOILED], ids=[n for n, _, _ in SPOILED])
def test_what_spoils_a_picture_fails_the_check_for_it(change: Callable[[np.ndarray], np.ndarray], reason: str) -> None:
    facts = measure(SCENE, np.ascontiguousarray(change(SCENE)), [OBJECT, OTHER])
    checks = Checks() if reason == "registration" else Checks(registration=None)  # a mirrored one may look shifted too
    assert judge(Record("x", "made", facts), checks, "night").reason == reason
