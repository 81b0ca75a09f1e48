"""Is a difference between two arms more than chance? Paired by seed, over the seeds and the pictures that there were."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
DRAWS = 1000
GROUPS = 200  # of pictures, for the acceleration
MOST_SEEDS = 20  # signs that are tried one by one

Statistic = Callable[[NDArray[np.int64], int], float]  # (seeds drawn, row of Resamples.weights) -> difference


class Resamples:
    """How often each picture counts in each of the bootstrap's draws, the same for all that is compared.

    Row 0 of `weights` (rows, pictures) is the pictures as they are; `drawn` and `left` are the rows of the draws, and of
    those that leave a group of pictures out.
    """

    def __init__(self, pictures: int, draws: int = DRAWS, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(pictures, np.full(pictures, 1 / pictures), draws)
        groups = np.array_split(np.arange(pictures), min(pictures, GROUPS))
        left = np.ones((len(groups), pictures))
        for row, group in zip(left, groups, strict=True):
            row[group] = 0
        self.weights = np.concatenate([np.ones((1, pictures)), drawn, left]).astype(np.float32)
        self.drawn, self.left = range(1, draws + 1), range(draws + 1, len(self.weights))


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


def bca(statistic: Statistic, seeds: int, resamples: Resamples, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval by a bootstrap over seeds and over pictures, bias-corrected and accelerated (Efron, 1987).

    Both are drawn with replacement, independently, as in a crossed design (Owen, The pigeonhole bootstrap, 2007). The
    acceleration is that of leaving out one seed, or one group of pictures, in turn.
    """
    rng = np.random.default_rng(seed)
    everyone = np.arange(seeds)
    seen = statistic(everyone, 0)
    drawn = np.array([statistic(rng.integers(0, seeds, seeds), row) for row in resamples.drawn])
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or np.ptp(drawn) == 0:
        return seen, seen
    normal = NormalDist()
    below = np.clip(
        ((drawn < seen).mean() + (drawn <= seen).mean()) / 2, 1 / (2 * len(drawn)), 1 - 1 / (2 * len(drawn))
    )
    bias = normal.inv_cdf(float(below))
    without = [statistic(np.delete(everyone, i), 0) for i in range(seeds)] if seeds > 1 else []
    without += [statistic(everyone, row) for row in resamples.left]
    away = np.nanmean(without) - np.array([value for value in without if np.isfinite(value)])
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
