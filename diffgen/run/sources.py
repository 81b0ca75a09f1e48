"""Reads the sources of a run: each once for all of its conditions, while the cache has space."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from threading import Lock

from diffgen.checks.measure import View, view
from diffgen.dataset.bars import NO_BARS, Bars, find_bars
from diffgen.dataset.geometry import Canvas, fit
from diffgen.dataset.images import Pixels, decode
from diffgen.dataset.labels import Shape
from diffgen.errors import SourceError, TransientError
from diffgen.lru import LRUCache
from diffgen.types import Source

ROOM = 512 * 2**20  # bytes of the pictures that are kept, with what is measured of them
TARGET_SIDE = 480  # px; at most twice as large are pictures that edits are matched with
KEPT_TARGETS = 64
SHARE, LEAST = 5, 2**17  # how many times its pixels' bytes a picture takes with that; bytes that the smallest one takes


class Picture:
    """A source's pixels, (H, W, 3) upright, its labelled objects and bars; derived values are cached."""

    def __init__(self, pixels: Pixels, shapes: tuple[Shape, ...] = (), bars: Bars = NO_BARS) -> None:
        self.pixels, self.shapes, self.bars = pixels, shapes, bars
        self._fitted: dict[Canvas, Pixels] = {}

    @cached_property
    def view(self) -> View:
        """The measurements of the picture."""
        return view(self.pixels, self.bars)

    def fitted(self, canvas: Canvas) -> Pixels:
        """The picture at the working size."""
        if canvas not in self._fitted:
            self._fitted[canvas] = fit(self.pixels, canvas)
        return self._fitted[canvas]


class Sources:
    """Reads sources, and keeps the latest ones. Calls may overlap."""

    def __init__(self, shapes_of: Callable[[Source, bytes], tuple[Shape, ...]], room: int = ROOM) -> None:
        """`shapes_of` parses a source's label text."""
        self._shapes_of, self._room = shapes_of, room
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._lock = Lock()

    def __call__(self, source: Source) -> Picture:
        """The source's picture. Raises SourceError, LabelError, OSError, and TransientError if it is not as planned."""
        with self._lock:
            if source.digest in self._kept:
                self._kept.move_to_end(source.digest)
                return self._kept[source.digest]
        picture = self._read(source)
        with self._lock:
            self._kept[source.digest] = picture
            while len(self._kept) > 1 and sum(_bytes(p) for p in self._kept.values()) > self._room:
                self._kept.popitem(last=False)
        return picture

    def _read(self, source: Source) -> Picture:
        raw = Path(source.path).read_bytes()
        label = source.read_label() or b""
        if hashlib.sha256(raw + b"\0" + label).hexdigest() != source.digest:
            raise TransientError("the image or its label changed during the run")
        pixels = decode(raw)
        if pixels.shape != (source.height, source.width, 3):
            raise SourceError(f"decodes to {pixels.shape[1]}×{pixels.shape[0]}, not the size in its header")
        return Picture(pixels, self._shapes_of(source, label), find_bars(pixels))


def _bytes(picture: Picture) -> int:
    return LEAST + SHARE * picture.pixels.nbytes


class Targets:
    """Reads pictures that edits are matched with, by digest. Calls may overlap."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._paths, self._lock = paths, Lock()
        self._kept: LRUCache[str, Pixels] = LRUCache(KEPT_TARGETS)

    def __call__(self, digest: str | None) -> Pixels | None:
        """A small copy of the picture; None for None. Raises SourceError, OSError, and TransientError if it has changed."""
        if digest is None:
            return None
        with self._lock:
            if digest not in self._kept:
                raw = Path(self._paths[digest]).read_bytes()
                if hashlib.sha256(raw).hexdigest()[:32] != digest:
                    raise TransientError(f"the picture to match changed during the run: {self._paths[digest]}")
                self._kept[digest] = decode(raw, least=TARGET_SIDE)
            return self._kept[digest]
