"""Uniform bars are found where they are, and nowhere else."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffgen.dataset.bars import Bars, find_bars

pytestmark = pytest.mark.property


def street(seed: int, width: int = 200, height: int = 140) -> np.ndarray:
    """Large shapes and grain: every line of it has many colours."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (8, 12, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.clip(np.asarray(coarse, np.int16) + rng.normal(0, 12, (height, width, 1)), 0, 255).astype(np.uint8)


def boxed(inner: np.ndarray, colour: int, bars: Bars) -> np.ndarray:
    widths = ((bars.top, bars.bottom), (bars.left, bars.right), (0, 0))
    return np.pad(inner, widths, constant_values=colour)


def jpeg(pixels: np.ndarray, quality: int, subsampling: int) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(out))


THICK = st.one_of(st.just(0), st.integers(20, 60))


@given(
    st.integers(0, 1000), st.sampled_from([0, 114, 255]), st.builds(Bars, THICK, THICK, THICK, THICK),
    st.integers(75, 98), st.sampled_from([0, 2]),
)  # fmt: skip
def test_bars_are_found_in_a_jpeg(seed: int, colour: int, bars: Bars, quality: int, subsampling: int) -> None:
    picture = jpeg(boxed(street(seed), colour, bars), quality, subsampling)
    found = find_bars(picture)
    for side in ("top", "bottom", "left", "right"):
        wanted, got = getattr(bars, side), getattr(found, side)
        assert got <= wanted + 2, f"{side}: a strip of the picture would be held"
        # A bar beside pixels of its own colour may be missed; that costs an edited bar, not a wrong picture.
        assert got == 0 or abs(got - wanted) <= 2, side


@pytest.mark.parametrize("colour", [0, 114, 255])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_bars_around_a_picture_of_other_colours_are_found(colour: int, subsampling: int) -> None:
    inner = np.clip(street(3), 40, 100) if colour != 114 else np.clip(street(3), 150, 240)
    wanted = Bars(33, 21, 0, 40)
    found = find_bars(jpeg(boxed(inner, colour, wanted), 90, subsampling))
    assert abs(np.subtract(*[(b.top, b.bottom, b.left, b.right) for b in (found, wanted)])).max() <= 1
    exact = find_bars(boxed(inner, colour, wanted))
    assert exact == wanted


def test_a_picture_scaled_with_its_bars() -> None:
    inner = np.clip(street(4, 400, 240), 60, 200)
    whole = Image.fromarray(boxed(inner, 0, Bars(80, 80, 0, 0)))
    found = find_bars(np.asarray(whole.resize((250, 250), Image.Resampling.LANCZOS)))
    assert abs(found.top - 50) <= 2
    assert abs(found.bottom - 50) <= 2


def test_skies_and_plain_pictures_have_none() -> None:
    ragged = np.full((140, 200, 3), 255, np.uint8)  # a blown-out sky over roofs
    for x in range(200):
        ragged[40 + (x * 37) % 60 :, x] = street(5)[40 + (x * 37) % 60 :, x]
    assert not find_bars(ragged)
    graded = np.repeat(np.linspace(255, 90, 140).astype(np.uint8)[:, None, None], 200, 1).repeat(3, 2)
    assert not find_bars(np.ascontiguousarray(graded))
    assert not find_bars(np.full((140, 200, 3), 7, np.uint8)), "nothing would be left to edit"
    assert not find_bars(street(6))
    assert not find_bars(boxed(street(7), 0, Bars(3, 0, 0, 0))), "thinner than what a camera's border is"


def test_held_is_the_source_in_the_bars_and_the_edit_elsewhere() -> None:
    source, edited, bars = street(8), street(9), Bars(10, 4, 0, 20)
    made = bars.held(source, edited)
    assert (bars.inner(made) == bars.inner(edited)).all()
    assert (made[:10] == source[:10]).all()
    assert (made[-4:] == source[-4:]).all()
    assert (made[:, -20:] == source[:, -20:]).all()
    assert Bars().held(source, edited) is edited
