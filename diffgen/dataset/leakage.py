"""Finding images that are in two splits, by bytes or by looks: a detector would be tested on its training data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.formats import SPLITS
from diffgen.dataset.images import opened
from diffgen.errors import SourceError
from diffgen.files import stamp
from diffgen.types import Source

# Images look the same (re-encoded, resized) if their 64-bit hashes differ in at most this many bits. At least one of four
# 16-bit chunks is then equal, so pairs are found without comparing every image with every other.
NEAR_BITS = 3
_CHUNKS = 4


def identical(sources: Sequence[Source]) -> list[list[Source]]:
    """Groups of sources in more than one split with the same image bytes."""
    groups: dict[str, list[Source]] = {}
    for source in sources:
        if source.image_digest:
            groups.setdefault(source.image_digest, []).append(source)
    return [group for group in groups.values() if len({source.split for source in group}) > 1]


def near(sources: Sequence[Source], cache: FileCache) -> list[tuple[Source, Source]]:
    """(look-alike, source) for each source that looks like one of an earlier split but has other bytes.

    Decodes every image whose hash is not cached. Gives one look-alike per source, because all frames of a fixed camera look
    alike.
    """
    groups: dict[int, list[Source]] = {}
    for source, value in zip(sources, _hashes(sources, cache), strict=True):
        if value:
            groups.setdefault(value, []).append(source)
    buckets: dict[tuple[int, int], list[int]] = {}
    for value in groups:
        for key in _keys(value):
            buckets.setdefault(key, []).append(value)
    pairs = []
    for value, members in groups.items():
        around = {other for key in _keys(value) for other in buckets[key] if (value ^ other).bit_count() <= NEAR_BITS}
        alike: dict[
            str, dict[str, Source]
        ] = {}  # by split and digest; two per split, as one may have the source's bytes
        for other in sorted(around):
            for source in groups[other]:
                kept = alike.setdefault(source.split, {})
                if len(kept) < 2:
                    kept.setdefault(source.image_digest, source)
        for source in members:
            earlier = SPLITS[: SPLITS.index(source.split)]
            others = (one for split in earlier for one in alike.get(split, {}).values())
            pairs += [(one, source) for one in others if one.image_digest != source.image_digest][:1]
    return sorted(pairs, key=lambda pair: pair[1].key)


def _keys(value: int) -> list[tuple[int, int]]:
    return [(chunk, value >> (16 * chunk) & 0xFFFF) for chunk in range(_CHUNKS)]


def _hashes(sources: Sequence[Source], cache: FileCache) -> list[int]:
    """The 64-bit difference hash of each source; 0 if it does not decode or has only one colour."""

    def cached_hash(source: Source) -> int:
        path = source.path
        return int(cache.known("dhash", path, stamp([path]), lambda: str(_difference_hash(Path(path)))))

    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
        hashes = list(pool.map(cached_hash, sources))
    cache.flush()
    return hashes


def _difference_hash(path: Path) -> int:
    """dHash (Krawetz, 2013): shrink to 9 × 8 pixels; 64 bits say whether each pixel's right neighbour is brighter."""
    try:
        with opened(path.read_bytes(), "decode") as image:
            image.draft("L", (72, 64))  # a JPEG decodes faster at up to an eighth of its size
            small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    except (OSError, SourceError):
        return 0
    bits = (np.diff(small, axis=1) > 0).ravel()
    # Flat images have hardly any differences, and would all look alike.
    return int.from_bytes(np.packbits(bits).tobytes(), "big") if 8 <= bits.sum() <= 56 else 0
