"""Distances between sets of pictures: by hand where that can be done, and in the direction that a person would say."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from diffgen.commands.tune.distance import Yardstick, cmmd, ratio
from diffgen.commands.tune.features import NAMES, Features, features, statistics_row
from diffgen.errors import DiffgenError
from tests.fakes import photo, put, save


def test_cmmd_is_that_of_the_paper() -> None:
    """Between one vector and another it is 2 · 1000 · (1 − exp(−d²/200)): worked out by hand."""
    east, north = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert cmmd(east, north) == pytest.approx(2000 * (1 - math.exp(-2 / 200)))
    both = np.concatenate([east, north])
    # Of {e, n} and {e}: k(e,e) = 1, k(e,n) = q; mean kxx = (1 + q) / 2, kyy = 1, kxy = (1 + q) / 2.
    q = math.exp(-2 / 200)
    assert cmmd(both, east) == pytest.approx(1000 * (1 - (1 + q) / 2))


def test_cmmd_of_a_set_with_itself_is_nothing_and_weights_are_repeats() -> None:
    rng = np.random.default_rng(0)
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 6, 8)))
    assert cmmd(first, first) == pytest.approx(0, abs=1e-9)
    repeated = np.concatenate([first, first[:2]])
    assert cmmd(first, second, np.array([2.0, 2, 1, 1, 1, 1])) == pytest.approx(cmmd(repeated, second))


def test_darker_pictures_are_nearer_to_a_night() -> None:
    def rows(share: float, seeds: range) -> Features:
        return Features(np.array([statistics_row((photo(i) * share).astype(np.uint8)) for i in seeds]))

    yardstick = Yardstick(rows(0.2, range(20)))
    far, near, same = (yardstick.statistics(rows(share, range(20, 40))) for share in (1.0, 0.5, 0.2))
    assert same < near < far
    reference = yardstick.both(rows(1.0, range(20, 40)))
    low, high = yardstick.interval(rows(0.5, range(20, 40)), reference)
    assert low < ratio(yardstick.both(rows(0.5, range(20, 40))), reference) < high < 1


def test_lamps_and_grain_are_told() -> None:
    dark = np.full((270, 480, 3), 20, np.uint8)
    lit = dark.copy()
    lit[100:108, 200:208] = 255
    grainy = np.clip(dark + np.random.default_rng(0).normal(0, 8, dark.shape), 0, 255).astype(np.uint8)
    by_name = [dict(zip(NAMES, statistics_row(picture), strict=True)) for picture in (dark, lit, grainy)]
    assert by_name[1]["lights"] > by_name[0]["lights"] == by_name[2]["lights"] == 0
    assert by_name[2]["fine"] > by_name[2]["coarse"] > by_name[0]["coarse"]


def test_bars_are_left_out(tmp_path: Path) -> None:
    boxed = np.zeros((200, 160, 3), np.uint8)
    boxed[40:160] = photo(3, (160, 120))
    plain, barred = features(
        [save(tmp_path / "a.png", photo(3, (160, 120))), save(tmp_path / "b.png", boxed)]
    ).statistics
    assert barred[0] == pytest.approx(plain[0], abs=0.02)


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiffgenError, match=r"broken.jpg: cannot read the picture"):
        features([put(tmp_path / "broken.jpg", "no picture")])
