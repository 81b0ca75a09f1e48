"""Is a difference between two arms more than chance? Paired by seed, over the seeds and the pictures that there were."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
DRAWS = 2000

Statistic = Callable[
    [NDArray[np.int64], NDArray[np.float64]], float
]  # (seeds drawn, weight of each picture) -> difference


def sign_flip(differences: Sequence[float]) -> float:
    """Exact two-sided p of paired differences: how many of the 2ⁿ ways to set their signs give a sum at least as far from 0
    (Fisher, The Design of Experiments, 1935)."""
    values = np.asarray(differences, float)
    seen = abs(values.sum()) - 1e-12
    flips = np.array(list(product((-1.0, 1.0), repeat=len(values))))
    return float((np.abs(flips @ values) >= seen).mean())


def smallest_p(seeds: int) -> float:
    """The smallest that `sign_flip` can give."""
    return 2.0 ** (1 - seeds)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """The p of several contrasts, corrected for their number (Holm, 1979)."""
    corrected, least = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        least = max(least, min(1.0, (len(p) - rank) * p[name]))
        corrected[name] = least
    return {name: corrected[name] for name in p}


def bca(statistic: Statistic, seeds: int, pictures: int, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval by a bootstrap over seeds and over pictures, bias-corrected and accelerated (Efron, 1987).

    Both are drawn with replacement, independently, as in a crossed design (Owen, The pigeonhole bootstrap, 2007). The
    acceleration is that of leaving out one seed or one picture in turn.
    """
    rng = np.random.default_rng(seed)
    everyone, ones = np.arange(seeds), np.ones(pictures)
    seen = statistic(everyone, ones)
    drawn = np.array(
        [
            statistic(
                rng.integers(0, seeds, seeds), rng.multinomial(pictures, np.full(pictures, 1 / pictures)).astype(float)
            )
            for _ in range(draws)
        ]
    )
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or np.ptp(drawn) == 0:
        return seen, seen
    normal = NormalDist()
    below = np.clip(
        ((drawn < seen).mean() + (drawn <= seen).mean()) / 2, 1 / (2 * len(drawn)), 1 - 1 / (2 * len(drawn))
    )
    bias = normal.inv_cdf(float(below))
    left = [statistic(np.delete(everyone, i), ones) for i in range(seeds)] if seeds > 1 else []
    left += [statistic(everyone, np.where(np.arange(pictures) == i, 0.0, 1.0)) for i in range(pictures)]
    away = np.nanmean(left) - np.array([value for value in left if np.isfinite(value)])
    spread = float((away**2).sum() ** 1.5)
    acceleration = float((away**3).sum() / (6 * spread)) if spread > 0 else 0.0
    ends = []
    for share in (ALPHA / 2, 1 - ALPHA / 2):
        z = bias + normal.inv_cdf(share)
        ends.append(normal.cdf(bias + z / (1 - acceleration * z)))
    low, high = np.quantile(drawn, ends)
    return float(low), float(high)


def verdict(p: float, interval: tuple[float, float]) -> str:
    """ "shown", "harm shown" or "not shown"."""
    if p < ALPHA and interval[0] > 0:
        return "shown"
    return "harm shown" if p < ALPHA and interval[1] < 0 else "not shown"
