"""The features that pictures are compared by: statistics of brightness, colour and grain, and a network's embedding."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffgen.checks.statistics import LONG_SIDE, STATISTICS, Small, small, statistics_of
from diffgen.dataset.bars import find_bars
from diffgen.dataset.images import REC_709, Pixels, decode
from diffgen.errors import DiffgenError, SourceError, why
from diffgen.models.model import Model

Rows = NDArray[np.float64]
Embed = Callable[[Sequence[Pixels]], Rows]  # pictures -> (N, D) unit vectors

BANDS = ("fine", "middle", "coarse")  # of the spectrum
NAMES = (*STATISTICS, *BANDS, "lights")
SIGMAS = (1.0, 3.0, 9.0, 27.0)  # px at LONG_SIDE; the bands lie between them
LIGHT = 0.25  # by how much (0 to 1) a light is brighter than what is around it
AT_ONCE = 16  # pictures that a network looks at


@dataclass(frozen=True, slots=True)
class Features:
    """Features of N pictures: `statistics` (N, len(NAMES)), and `embedding` (N, D), unit vectors, if there is a network."""

    statistics: Rows
    embedding: Rows | None = None

    def __len__(self) -> int:
        return len(self.statistics)

    def of(self, rows: Sequence[int] | NDArray[np.intp]) -> Features:
        return Features(self.statistics[rows], None if self.embedding is None else self.embedding[rows])


def features(paths: Sequence[Path], embed: Embed | None = None) -> Features:
    """Read pictures and measure them, without uniform bars. Raises DiffgenError for one that cannot be read."""
    with ThreadPoolExecutor(2) as pool:
        pictures = list(pool.map(_read, paths))
        statistics = np.array(list(pool.map(statistics_row, pictures)), np.float64).reshape(len(paths), len(NAMES))
    if embed is None:
        return Features(statistics)
    parts = [embed(pictures[start : start + AT_ONCE]) for start in range(0, len(pictures), AT_ONCE)]
    return Features(statistics, np.concatenate(parts) if parts else None)


def _read(path: Path) -> Pixels:
    try:
        pixels = decode(path.read_bytes(), least=LONG_SIDE)
    except (OSError, SourceError) as error:
        raise DiffgenError(f"{path}: cannot read the picture: {why(error)}", "remove it, or save it again") from None
    return find_bars(pixels).inner(pixels)


def statistics_row(pixels: Pixels) -> list[float]:
    """The statistics of a picture (H, W, 3), in the order of NAMES: the nine of `checks.statistics`; of the luma's
    spectrum the log10 of the standard deviation in three bands, a factor of three wide each; and the share of the picture,
    in 1/1000, that is brighter than its surroundings, as lamps are."""
    picture = small(pixels)
    nine = statistics_of(picture)
    return [*(nine[name] for name in STATISTICS), *_bands_and_lights(picture)]


def _bands_and_lights(picture: Small) -> list[float]:
    import cv2

    luma = np.asarray(picture @ REC_709, np.float32) / 255
    blurred = [cv2.GaussianBlur(luma, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) for sigma in SIGMAS]
    pairs = itertools.pairwise(blurred)
    bands = [float(np.log10((first - second).std() + 1e-4)) for first, second in pairs]
    lights = 1000 * float((luma - blurred[-1] > LIGHT).mean())
    return [*bands, lights]


def load_embed(model: Model, device: str) -> tuple[Embed | None, str]:
    """The embedding network of the recipe and its name: its CLIP model, else its detector's backbone, else None."""
    clip, detector = model.observers.clip, model.observers.detector
    if clip is not None:
        from diffgen.checks.clip import load_clip

        look = load_clip(clip, device)
        return lambda pictures: np.array(look.look([look.prepare(p) for p in pictures]), np.float64), clip.name
    if detector is not None:
        weights = Path(str(detector.folder))
        return load_backbone(weights, device), f"the backbone of {weights.name}"
    return None, "none"


def load_backbone(weights: Path, device: str) -> Embed:
    """The backbone of an Ultralytics detector. Raises DiffgenError if it cannot be loaded."""
    from diffgen.checks.detectors.ultralytics import load_detector

    detector: Any = load_detector(weights, device)
    return lambda pictures: np.asarray(detector.embed(pictures), np.float64)
