"""The same picture in two splits: by its bytes, and by how it looks. A detector is then tested on what it was trained on."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from diffgen.cache import FileCache, stamp
from diffgen.types import Source

# Two pictures whose 64-bit hashes differ in so many bits look the same (re-encoded, resized): with four chunks of 16 bits
# at least one chunk is then equal, which is how the pairs are found without comparing all with all.
NEAR_BITS = 3
_CHUNKS = 4


def identical(sources: Sequence[Source]) -> list[list[Source]]:
    """Groups of sources with the same image bytes that lie in more than one split."""
    groups: dict[str, list[Source]] = {}
    for source in sources:
        if source.image_digest:
            groups.setdefault(source.image_digest, []).append(source)
    return [group for group in groups.values() if len({source.split for source in group}) > 1]


def near(sources: Sequence[Source], cache: FileCache) -> list[tuple[Source, Source]]:
    """Pairs of sources in different splits that look the same and are not the same file. Reads every image once."""
    hashed = [(source, value) for source, value in zip(sources, _hashes(sources, cache), strict=True) if value]
    buckets: dict[tuple[int, int], list[int]] = {}
    for i, (_, value) in enumerate(hashed):
        for chunk in range(_CHUNKS):
            buckets.setdefault((chunk, value >> (16 * chunk) & 0xFFFF), []).append(i)
    pairs: set[tuple[int, int]] = set()
    for members in buckets.values():
        pairs.update(_close(members, hashed))
    return [(hashed[i][0], hashed[j][0]) for i, j in sorted(pairs)]


def _close(members: Sequence[int], hashed: Sequence[tuple[Source, int]]) -> Iterable[tuple[int, int]]:
    for place, i in enumerate(members):
        first, value = hashed[i]
        for j in members[place + 1 :]:
            second, other = hashed[j]
            apart = first.split != second.split and first.image_digest != second.image_digest
            if apart and (value ^ other).bit_count() <= NEAR_BITS:
                yield i, j


def _hashes(sources: Sequence[Source], cache: FileCache) -> list[int]:
    """A difference hash of each source, 0 where there is none (it does not decode, or it is flat)."""

    def one(source: Source) -> int:
        mark = stamp([source.path])
        known = cache.get("dhash", source.path, mark)
        value = int(known) if known is not None else _difference_hash(source.path)
        if known is None:
            cache.put("dhash", source.path, mark, str(value))
        return value

    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
        found = list(pool.map(one, sources))
    cache.flush()
    return found


def _difference_hash(path: Path) -> int:
    """64 bits: whether each pixel of the picture at 9 × 8 is brighter than its right neighbour (Krawetz, 2013)."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.draft("L", (72, 64))  # JPEG decodes to an eighth at little cost
            small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return 0
    bits = (np.diff(small, axis=1) > 0).ravel()
    # A flat picture has no differences and would look like every other flat one.
    return int.from_bytes(np.packbits(bits).tobytes(), "big") if 8 <= bits.sum() <= 56 else 0
