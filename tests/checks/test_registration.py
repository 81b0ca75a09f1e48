"""How far an edit has shifted, with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from diffgen.checks.registration import registration
from diffgen.checks.structure import luminance
from diffgen.checks.verdict import judge
from diffgen.recipe.sections import Checks
from diffgen.types import Record
from tests.checks.scenes import OBJECT, SCENE, facts_of, moved
from tests.fakes import photo

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
    facts = facts_of(SCENE, dark, [OBJECT])
    assert facts["shift_px"] == pytest.approx(2.5, abs=0.5)
    assert judge(Record("x", "made", facts), Checks(registration=2)).reason == "registration"
