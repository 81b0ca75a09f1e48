"""What is shown, and what is chance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgen.commands.eval.significance import Resamples, bca, holm, sign_flip, smallest_p, verdict

SOME = st.lists(st.floats(-1, 1).filter(lambda x: abs(x) > 1e-6), min_size=1, max_size=9)


@given(SOME)
def test_sign_flip_is_the_count_over_all_signs(values: list[float]) -> None:
    seen = abs(sum(values)) - 1e-12
    flips = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(values))
    ]
    assert sign_flip(values) == pytest.approx(np.mean([flip >= seen for flip in flips]))
    assert sign_flip(values) >= smallest_p(len(values))


def test_the_smallest_p() -> None:
    assert sign_flip([0.02] * 8) == smallest_p(8) == pytest.approx(0.0078125)
    assert smallest_p(5) > 0.05 > smallest_p(6)
    assert sign_flip([0.01, -0.01]) == 1


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0, 1), min_size=1, max_size=6))
def test_holm(p: dict[str, float]) -> None:
    corrected = holm(p)
    assert set(corrected) == set(p)
    ranked = sorted(p, key=lambda name: p[name])
    assert corrected[ranked[0]] == pytest.approx(min(1, len(p) * p[ranked[0]]))
    for first, second in itertools.pairwise(ranked):
        assert corrected[first] <= corrected[second]
    assert all(p[name] <= corrected[name] <= 1 for name in p)


def planted(effect: float, seed: int, seeds: int = 8, pictures: int = 60) -> tuple[float, tuple[float, float]]:
    """(p, interval) of differences with noise of seeds and of pictures around an effect."""
    rng = np.random.default_rng(seed)
    table = (
        effect
        + rng.normal(0, 0.015, (seeds, 1))
        + rng.normal(0, 0.1, (1, pictures))
        + rng.normal(0, 0.05, (seeds, pictures))
    )
    p = sign_flip(list(table.mean(1)))
    resamples = Resamples(pictures, 400, seed)

    def mean(drawn: np.ndarray, row: int) -> float:
        weights = resamples.weights[row]
        return float((table[drawn].mean(0) @ weights) / weights.sum())

    return p, bca(mean, seeds, resamples, seed)


def test_a_planted_effect_is_shown_and_none_is_seldom() -> None:
    assert [verdict(*planted(0.1, seed)) for seed in range(10)].count("shown") == 10
    assert [verdict(*planted(-0.1, seed)) for seed in range(10)].count("harm shown") == 10
    assert [verdict(*planted(0.0, seed)) for seed in range(40)].count("not shown") >= 36


def test_the_interval_covers_the_truth() -> None:
    covered = [low <= 0.02 <= high for low, high in (planted(0.02, seed)[1] for seed in range(60))]
    assert sum(covered) >= 52


def test_without_spread_the_interval_is_a_point() -> None:
    assert bca(lambda seeds, row: 0.5, 3, Resamples(4, 20)) == (0.5, 0.5)


def test_draws_are_of_pictures_and_groups_leave_each_out_once() -> None:
    resamples = Resamples(450, 30)
    assert (resamples.weights[0] == 1).all()
    assert (resamples.weights[list(resamples.drawn)].sum(1) == 450).all()
    left = resamples.weights[list(resamples.left)]
    assert len(left) == 200
    assert ((left == 0).sum(0) == 1).all()
