"""Images that are in two splits, by their bytes or their looks: a detector would be tested on what it was trained on."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.formats import SPLITS
from diffgen.dataset.images import FORMATS
from diffgen.files import stamp
from diffgen.types import Source

# Images whose 64-bit hashes differ in at most this many bits look the same (re-encoded, resized). Of four chunks of 16 bits
# at least one is then equal, so pairs are found without comparing every image with every other.
NEAR_BITS = 3
_CHUNKS = 4
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def identical(sources: Sequence[Source]) -> list[list[Source]]:
    """Groups of sources with the same image bytes that lie in more than one split."""
    groups: dict[str, list[Source]] = {}
    for source in sources:
        if source.image_digest:
            groups.setdefault(source.image_digest, []).append(source)
    return [group for group in groups.values() if len({source.split for source in group}) > 1]


def near(sources: Sequence[Source], cache: FileCache) -> list[tuple[Source, Source]]:
    """(look-alike, source) for each source that looks like one of an earlier split without having the same bytes.

    Decodes every image whose hash is not cached. Only one look-alike is named per source, because frames of a fixed camera
    all look alike.
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
        first: dict[str, list[Source]] = {}  # per split at most two files, as one may have the source's bytes
        for other in sorted(around):
            for source in groups[other]:
                kept = first.setdefault(source.split, [])
                if len(kept) < 2 and source.image_digest not in {one.image_digest for one in kept}:
                    kept.append(source)
        for source in members:
            earlier = SPLITS[: SPLITS.index(source.split)]
            alike = (
                one for split in earlier for one in first.get(split, ()) if one.image_digest != source.image_digest
            )
            if (found := next(alike, None)) is not None:
                pairs.append((found, source))
    return sorted(pairs, key=lambda pair: pair[1].key)


def _keys(value: int) -> list[tuple[int, int]]:
    return [(chunk, value >> (16 * chunk) & 0xFFFF) for chunk in range(_CHUNKS)]


def _hashes(sources: Sequence[Source], cache: FileCache) -> list[int]:
    """A 64-bit difference hash of each source, 0 if it has none (it does not decode, or is of one colour)."""

    def one(source: Source) -> int:
        path = source.path
        return int(cache.known("dhash", path, stamp([path]), lambda: str(_difference_hash(Path(path)))))

    # Make Pillow's decompression-bomb warning an error: such images are skipped. Warning filters are process-wide, so they
    # are set once, outside the threads.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        found = list(pool.map(one, sources))
    cache.flush()
    return found


def _difference_hash(path: Path) -> int:
    """dHash (Krawetz, 2013): shrink to 9 × 8 pixels; 64 bits say whether each pixel's right neighbour is brighter."""
    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=FORMATS) as image:
            image.draft("L", (72, 64))  # lets the JPEG decoder shrink by up to 8, which is fast
            small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, *_TOO_LARGE):
        return 0
    bits = (np.diff(small, axis=1) > 0).ravel()
    # An image of one colour has no differences, and would look like every other one.
    return int.from_bytes(np.packbits(bits).tobytes(), "big") if 8 <= bits.sum() <= 56 else 0
