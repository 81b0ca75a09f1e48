"""How a source already looks: dark, foggy, snowy, without a sky. Some conditions cannot come about in such a picture.

The limits were set by the driving sets of BDD100K and DAWN (429 pictures by day, 240 by night, 100 in fog).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

from diffgen.checks.statistics import LONG_SIDE, condition_statistics
from diffgen.dataset.bars import find_bars
from diffgen.dataset.dataset import Dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.images import decode
from diffgen.errors import SourceError
from diffgen.files import read_regular
from diffgen.types import Source

logger = logging.getLogger(__name__)

Look = Literal["dark", "foggy", "snowy", "no-sky"]

MANY = 5000  # pictures to look at from which on it is said, as it takes a minute or more
_KIND, _ABOVE = "looks/1", "picture"  # raise the number when `looks` changes


def looks(statistics: Mapping[str, float]) -> tuple[Look, ...]:
    """What a picture looks like, by its `condition_statistics`.

    `dark` finds 93 of 100 nights, `foggy` 70 of 100 fogs, and neither finds any of the days. `snowy` means that most of the
    ground is white: a ploughed street between heaps of snow has the statistics of a bright street. `no-sky` means that the
    upper third is too dark to hold a daylight sky; 4 of 100 days are taken for it.
    """
    found: list[Look] = []
    if statistics["luminance"] < 0.2:
        found.append("dark")
    if statistics["gradient"] < 0.015 and statistics["min_channel"] > 0.4:
        found.append("foggy")
    elif statistics["near_white"] > 0.4 and statistics["saturation"] < 0.15:
        found.append("snowy")
    if statistics["sky"] < 0.33:
        found.append("no-sky")
    return tuple(found)


def with_looks(dataset: Dataset, splits: Collection[str], cache: FileCache) -> Dataset:
    """The dataset with the `looks` of the sources in `splits` that can be edited.

    Decodes each picture once in the life of the cache, 3 to 10 ms of one core for a picture of a megapixel. One that does
    not decode has no looks.
    """
    known = {path: value for path, (_, value) in cache.below(_KIND, _ABOVE).items()}
    wanted = [source for source in dataset.sources if source.split in splits and source.problem is None]
    missing = {s.image_digest: s for s in wanted if _entry(s) not in known}
    if len(missing) > MANY:
        logger.warning("checking once which of %d pictures are already dark, foggy or snowy", len(missing))
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
        for source, value in zip(missing.values(), pool.map(_look, missing.values()), strict=True):
            known[_entry(source)] = value or ""
            if value is not None:
                cache.put(_KIND, _entry(source), "", value)
    cache.flush()
    of = {source: tuple(value.split(",")) for source in wanted if (value := known[_entry(source)])}
    return replace(dataset, sources=tuple(replace(s, looks=of[s]) if s in of else s for s in dataset.sources))


def _entry(source: Source) -> str:
    """By content: a picture that is copied or renamed needs no second look."""
    return f"{_ABOVE}{os.sep}{source.image_digest}"


def _look(source: Source) -> str | None:
    """The looks, joined by commas; None if the file cannot be read just now."""
    try:
        pixels = decode(read_regular(source.path), least=LONG_SIDE)
    except OSError:
        return None
    except SourceError:
        return ""
    return ",".join(looks(condition_statistics(find_bars(pixels).inner(pixels))))
