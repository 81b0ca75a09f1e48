"""The distance between edits and pictures of the target, compared as sets, because they are not pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from diffgen.commands.tune.features import NAMES, Features, Rows

SIGMA, SCALE = 10.0, 1000.0  # of CMMD
FLOOR = 0.01  # of a deviation, so that a statistic in which all targets agree does not outweigh the others
RESAMPLED = 200  # times

Weights = NDArray[np.float64] | None


class Yardstick:
    """Measures distances to the target's pictures."""

    def __init__(self, target: Features) -> None:
        self.target = target
        self._scale = np.maximum(target.statistics.std(0), FLOOR)

    def by_statistic(self, made: Features, weights: Weights = None) -> dict[str, float]:
        """For each statistic the Wasserstein distance of its values, in standard deviations of the target's."""
        return {
            name: float(wasserstein_distance(made.statistics[:, i], self.target.statistics[:, i], weights)) / scale
            for i, (name, scale) in enumerate(zip(NAMES, self._scale, strict=True))
        }

    def statistics(self, made: Features, weights: Weights = None) -> float:
        """Mean of `by_statistic`."""
        return float(np.mean(list(self.by_statistic(made, weights).values())))

    def embedding(self, made: Features, weights: Weights = None) -> float | None:
        """`cmmd` of the embeddings; None without a network."""
        if made.embedding is None or self.target.embedding is None:
            return None
        return cmmd(made.embedding, self.target.embedding, weights)

    def both(self, made: Features, weights: Weights = None) -> tuple[float, ...]:
        """The distance in statistics and, with a network, that of the embeddings."""
        distance = self.embedding(made, weights)
        return (self.statistics(made, weights), *(() if distance is None else (distance,)))

    def interval(self, made: Features, reference: Sequence[float], times: int = RESAMPLED) -> tuple[float, float]:
        """95 % of the `ratio` to `reference` over resampled pictures, made ones and targets: how far so few pictures can
        be trusted."""
        rng = np.random.default_rng(0)
        values = []
        for _ in range(times):
            target = self.target.of(rng.integers(0, len(self.target), len(self.target)))
            picked = made.of(rng.integers(0, len(made), len(made)))
            other = Yardstick(target)
            other._scale = self._scale
            values.append(ratio(other.both(picked), reference))
        low, high = np.quantile(values, (0.025, 0.975))
        return float(low), float(high)


def ratio(distances: Sequence[float], reference: Sequence[float]) -> float:
    """Mean of the distances, each divided by its reference: 1 is the distance of the reference."""
    return float(np.mean([d / max(r, 1e-9) for d, r in zip(distances, reference, strict=True)]))


def cmmd(first: Rows, second: Rows, weights: Weights = None) -> float:
    """CMMD of two sets of unit vectors, (N, D) and (M, D) (Jayasumana et al., Rethinking FID, CVPR 2024): the squared
    maximum mean discrepancy (biased estimate) with a Gaussian kernel of sigma 10, times 1000. `weights` are the first set's,
    (N,)."""
    a = np.full(len(first), 1 / len(first)) if weights is None else weights / weights.sum()
    b = np.full(len(second), 1 / len(second))

    def mean(x: Rows, wx: Rows, y: Rows, wy: Rows) -> float:
        apart = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
        return float(wx @ np.exp(-np.maximum(apart, 0) / (2 * SIGMA**2)) @ wy)

    return SCALE * (mean(first, a, first, a) + mean(second, b, second, b) - 2 * mean(first, a, second, b))
