"""What a worker does on its device, a batch at a time, in one thread: control maps, edits, and the facts that need a model.
Survives a device that has too little memory, and gives up one that keeps failing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diffgen.checks.effect import NEAR
from diffgen.checks.second_look import Pair, SecondLook
from diffgen.checks.statistics import distance, small
from diffgen.dataset.geometry import Canvas
from diffgen.dataset.images import Pixels
from diffgen.editing.control_maps import Maps, kept_map
from diffgen.editing.editor import Edited, Editor
from diffgen.errors import Cancelled, DiffgenError, NotFinite, OutOfMemory, SourceError, TransientError, why
from diffgen.lru import LRUCache
from diffgen.run.picture import OpenedSource, Row, batch_of, blank, join_tiles, round_trip
from diffgen.types import Batch, Item, Record

logger = logging.getLogger(__name__)

MAX_CONSECUTIVE_FAILURES = 3  # failed batches in a row after which the device counts as broken
CACHED_ROUND_TRIPS = 256  # sources whose round trip was measured: the conditions of one source are edited in turn
MAX_NOT_FINITE = 8  # images after which a model whose numbers have overflowed each time counts as broken


class _DeviceError(TransientError):
    """The device failed at the batch of this row."""


def _device_failed(error: RuntimeError) -> str:
    return f"the device failed: {(str(error).splitlines() or ['RuntimeError'])[0][:200]}"


def failure(item: Item, error: object, kind: str = "transient") -> Record:
    """The record of an image that cannot be made. `kind` is "source" or "transient"."""
    return Record(item.job.id, "failed", kind=kind, error=f"{item.source.key}: {error}")


def _is_near(facts: Mapping[str, Any]) -> bool:
    """Whether an edit is so close to its source that it must be compared with the model's round trip."""
    return "task" not in facts and facts.get("change", NEAR) < NEAR


@dataclass(frozen=True, slots=True)
class Made:
    """A made image: its facts so far, its bytes and their sha256, and the inputs of the second look."""

    facts: dict[str, Any]
    image: bytes
    sha256: str
    pair: Pair


class Engine:
    """Not thread-safe: one thread calls it."""

    def __init__(self, editor: Editor, second_look: SecondLook, maps: Maps) -> None:
        self._editor, self._second_look, self._maps = editor, second_look, maps
        self._failed_in_a_row = 0  # batches since the device last succeeded
        self._not_finite: int | None = 0  # images whose numbers overflowed; None once another one was made
        self._max_batch: int | None = None  # images per batch, set once memory has run out
        self._round_trips: LRUCache[tuple[str, Canvas, str], float] = LRUCache(CACHED_ROUND_TRIPS)

    def with_maps(
        self, batch: Batch, opened: Sequence[OpenedSource]
    ) -> tuple[list[OpenedSource], list[tuple[Pixels, ...]]]:
        """The sources, and for each the map of each control, of the whole working picture: tiles are cut from it. A source
        whose map cannot be made has failed, and has black ones."""
        sources, maps = [], []
        for item, entry in zip(batch.items, opened, strict=True):
            black = np.zeros((entry.canvas.size[1], entry.canvas.size[0], 3), dtype=np.uint8)
            own = (black,) * len(item.job.settings.controls or ())
            if entry.failure is None:
                try:
                    own = self._control_maps(item, entry)
                except (SourceError, TransientError, OSError) as error:
                    kind = "source" if isinstance(error, SourceError) else "transient"
                    entry = OpenedSource(blank(item.source), entry.canvas, failure(item, why(error), kind))
            sources.append(entry)
            maps.append(own)
        return sources, maps

    def _control_maps(self, item: Item, opened: OpenedSource) -> tuple[Pixels, ...]:
        maps = []
        for control in item.job.settings.controls or ():
            if control.folder is not None:
                maps.append(kept_map(item.source, control, opened.canvas))
                continue
            try:
                maps.append(self._maps(control, opened.picture.fitted(opened.canvas)))
            except RuntimeError as error:
                raise TransientError(f"the {control.kind} map: {_device_failed(error)}") from None
        return tuple(maps)

    def edit(
        self, pictures: Sequence[Sequence[Row]], stopping: Callable[[], bool]
    ) -> tuple[list[Edited | TransientError], float]:
        """The edited images, and the device's seconds per image. Raises Cancelled once `stopping` returns True,
        DiffgenError if going on is pointless."""
        if stopping():
            raise Cancelled
        started = time.perf_counter()
        rows = [row for picture in pictures for row in picture]
        size = len(pictures)  # batches of tiles are no larger than batches of pictures
        edited = [result for i in range(0, len(rows), size) for result in self._edit(rows[i : i + size])]
        self._stop_if_broken(edited)
        tiles = iter(edited)
        whole = [join_tiles([next(tiles) for _ in picture], picture) for picture in pictures]
        return whole, (time.perf_counter() - started) / len(pictures)

    def _stop_if_broken(self, edited: Sequence[Edited | TransientError]) -> None:
        """Raises DiffgenError after too many failures in a row: of the device, or of a model that has made nothing yet."""
        if any(isinstance(result, Edited) for result in edited):
            self._failed_in_a_row, self._not_finite = 0, None
        elif all(isinstance(result, _DeviceError) for result in edited):
            self._failed_in_a_row += 1
            if self._failed_in_a_row == MAX_CONSECUTIVE_FAILURES:
                hint = "see 'diffgen doctor'; the same command resumes the run"
                raise DiffgenError(f"{MAX_CONSECUTIVE_FAILURES} batches in a row: {edited[0]}", hint)
        elif self._not_finite is not None and all(isinstance(result, NotFinite) for result in edited):
            self._not_finite += len(edited)
            if self._not_finite >= MAX_NOT_FINITE:
                hint = "change `dtype:` in the recipe; the same command then makes what is missing"
                raise DiffgenError(f"all of the first {self._not_finite} images: {edited[0]}", hint)

    def _edit(self, rows: Sequence[Row]) -> list[Edited | TransientError]:
        """Edit rows as one batch. When memory runs out, halve the batch, for the rest of the run; one image then fails."""
        if self._max_batch is not None and len(rows) > self._max_batch:
            return self._halves(rows)
        try:
            return self._editor.edit(batch_of(rows))
        except OutOfMemory as error:
            if len(rows) == 1:
                return [error]
            self._max_batch = (len(rows) + 1) // 2
            logger.warning(
                "out of memory with a batch of %d images: using at most %d from now on", len(rows), self._max_batch
            )
            return self._halves(rows)
        except RuntimeError as error:  # torch raises it when a device fails
            return [_DeviceError(_device_failed(error)) for _ in rows]

    def _halves(self, rows: Sequence[Row]) -> list[Edited | TransientError]:
        half = (len(rows) + 1) // 2
        return self._edit(rows[:half]) + self._edit(rows[half:])

    def has_to_look(self, made: Sequence[Made | Record]) -> bool:
        """Whether there is anything for `look` to do."""
        images = [entry for entry in made if isinstance(entry, Made)]
        return any(self._second_look or _is_near(entry.facts) for entry in images)

    def look(self, batch: Batch, opened: Sequence[OpenedSource], made: Sequence[Made | Record]) -> list[Made | Record]:
        """The made images with the facts that need the device; a failure record if these cannot be measured."""
        looked = list(made)
        images = {i: entry for i, entry in enumerate(made) if isinstance(entry, Made)}
        facts = self._second_facts([entry.pair for entry in images.values()])
        for (i, entry), more in zip(images.items(), facts, strict=True):
            item = batch.items[i]
            try:
                if isinstance(more, TransientError):
                    raise more
                found = entry.facts | more
                if _is_near(found):
                    found["round_trip"] = self._round_trip(item, opened[i])
                looked[i] = replace(entry, facts=found)
            except TransientError as error:
                looked[i] = failure(item, error)
            except RuntimeError as error:
                looked[i] = failure(item, f"measuring: {_device_failed(error)}")
        return looked

    def _second_facts(self, pairs: Sequence[Pair]) -> list[dict[str, Any] | TransientError]:
        """The facts of the second look, or why there are none. If the batch does not fit in memory, one picture at a
        time."""
        if not self._second_look or not pairs:
            return [{} for _ in pairs]
        try:
            return list(self._second_look.facts(pairs))
        except OutOfMemory as error:
            if len(pairs) == 1:
                return [error]
            return [facts for pair in pairs for facts in self._second_facts([pair])]
        except RuntimeError as error:
            failed = TransientError(f"measuring: {_device_failed(error)}")
            return [failed for _ in pairs]

    def _round_trip(self, item: Item, opened: OpenedSource) -> float:
        """The `distance` of a source from its own round trip through the model's VAE. Raises TransientError."""

        def measured(_: Any) -> float:
            bars, made = opened.picture.bars, round_trip(opened, item.job, self._editor.round_trip)
            return round(distance(opened.picture.view.small, small(bars.inner(made))), 2)

        return self._round_trips.get_or((item.source.digest, opened.canvas, item.job.settings.mode), measured)
