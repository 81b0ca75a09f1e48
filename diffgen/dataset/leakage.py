"""The same picture in two splits: by its bytes, and by how it looks. A detector is then tested on what it was trained on."""

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

# Two pictures whose 64-bit hashes differ in so many bits look the same (re-encoded, resized): with four chunks of 16 bits
# at least one chunk is then equal, which is how the pairs are found without comparing all with all.
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
    """(look-alike, source): each source that looks like one of an earlier split without being the same file.

    Reads every image once. One look-alike is named for each source: frames of a fixed camera look like all others.
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
        first: dict[str, list[Source]] = {}  # per split, two files at the most: one may be the source's own bytes
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
    """A difference hash of each source, 0 where there is none (it does not decode, or it is flat)."""

    def one(source: Source) -> int:
        path = source.path
        return int(cache.known("dhash", path, stamp([path]), lambda: str(_difference_hash(Path(path)))))

    # Pictures too large to be read are none to decode here; and filters hold for all threads, so they are set in one.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        found = list(pool.map(one, sources))
    cache.flush()
    return found


def _difference_hash(path: Path) -> int:
    """64 bits: whether each pixel of the picture at 9 × 8 is brighter than its right neighbour (Krawetz, 2013)."""
    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=FORMATS) as image:
            image.draft("L", (72, 64))  # JPEG decodes to an eighth at little cost
            small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, *_TOO_LARGE):
        return 0
    bits = (np.diff(small, axis=1) > 0).ravel()
    # A flat picture has no differences and would look like every other flat one.
    return int.from_bytes(np.packbits(bits).tobytes(), "big") if 8 <= bits.sum() <= 56 else 0
