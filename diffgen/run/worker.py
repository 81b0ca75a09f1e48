"""Makes the images of a batch on one device: reads sources, returns encoded images and facts. Writes and decides nothing.

Decoding, checking and encoding run in the calling threads. The editor runs in one thread of its own, so calls overlap
while the device serves one at a time.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from diffgen.checks.effect import NEAR
from diffgen.checks.measure import measure, measure_text2img, view
from diffgen.checks.second_look import SecondLook
from diffgen.checks.statistics import distance, small
from diffgen.checks.structure import luminance
from diffgen.checks.tasks import measure_task
from diffgen.dataset.bars import find_bars
from diffgen.dataset.geometry import Canvas, fit, unfit, working_canvas
from diffgen.dataset.images import Pixels, decode, encode
from diffgen.dataset.labels import LabelError, LabelSchema, Shape
from diffgen.editing.control_maps import Maps, kept_map
from diffgen.editing.editor import Edited, Editor
from diffgen.editing.tasks import composite, paint_mask
from diffgen.errors import Cancelled, DiffgenError, NotFinite, OutOfMemory, SourceError, TransientError, why
from diffgen.lru import LRUCache
from diffgen.run.picture import (
    OpenedSource,
    Row,
    batch_of,
    blank,
    join_tiles,
    native_canvas,
    round_trip,
    rows_of,
    with_levers,
)
from diffgen.types import Batch, Item, Record, Result
from diffgen.version import __version__

logger = logging.getLogger(__name__)

MAX_CONSECUTIVE_FAILURES = 3  # failed batches in a row after which the device counts as broken
CACHED_ROUND_TRIPS = 256  # sources whose round trip was measured: the conditions of one source are edited in turn
MAX_NOT_FINITE = 8  # images after which a model whose numbers have overflowed each time counts as broken


class BatchWorker(Protocol):
    """What the loop needs of a worker. `environment` describes the machine and versions, for the records."""

    environment: dict[str, Any]
    stopping: Callable[[], bool]  # asked before a batch reaches the device

    def __call__(self, batch: Batch) -> list[Result]:
        """Make the batch's images: one result per item, in order. Raises Cancelled once `stopping` says so."""


class _DeviceError(TransientError):
    """The device failed at the batch of this row."""


def _device_failed(error: RuntimeError) -> str:
    return f"the device failed: {(str(error).splitlines() or ['RuntimeError'])[0][:200]}"


def _failure(item: Item, kind: str, reason: object) -> Record:
    return Record(item.job.id, "failed", kind=kind, error=f"{item.source.key}: {reason}")


class Worker:
    """Edits batches with one loaded editor. Calls may overlap."""

    def __init__(
        self,
        editor: Editor,
        schema: LabelSchema,
        environment: dict[str, Any],
        second_look: SecondLook | None = None,
        maps: Maps | None = None,
        shapes: Mapping[str, tuple[Shape, ...]] | None = None,
    ) -> None:
        """`shapes` are labels that are parsed already, by the source's digest."""
        self.environment = environment
        self.stopping: Callable[[], bool] = lambda: False
        self._editor = editor
        self._schema = schema
        self._second_look = second_look or SecondLook()
        self._maps = maps or Maps({})
        self._shapes = shapes or {}
        self._device = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._failed_in_a_row = 0  # batches since the device last succeeded
        self._not_finite: int | None = 0  # images whose numbers overflowed; None once another one was made
        self._max_batch: int | None = None  # images per batch, set once memory has run out
        self._round_trips: LRUCache[tuple[str, Canvas, str], float] = LRUCache(CACHED_ROUND_TRIPS)

    def __call__(self, batch: Batch) -> list[Result]:
        opened = [self._open(item) for item in batch.items]
        jobs = [item.job for item in batch.items]
        pictures = [rows_of(entry, job) for entry, job in zip(opened, jobs, strict=True)]
        edited, seconds = self._device.submit(self._timed, pictures).result()
        return [
            self._finish(item, entry, result, seconds)
            for item, entry, result in zip(batch.items, opened, edited, strict=True)
        ]

    def _open(self, item: Item) -> OpenedSource:
        source, settings = item.source, item.job.settings
        canvas = working_canvas(source.width, source.height, settings)
        if source.text is not None:
            return OpenedSource(blank(source), (), canvas)
        try:
            raw = Path(source.path).read_bytes()
            label = source.read_label() or b""
            if hashlib.sha256(raw + b"\0" + label).hexdigest() != source.digest:
                raise TransientError("the image or its label changed during the run")
            pixels = decode(raw)
            if pixels.shape != (source.height, source.width, 3):
                raise SourceError(f"decodes to {pixels.shape[1]}×{pixels.shape[0]}, not the size in its header")
            shapes = self._shapes.get(source.digest) or self._schema.parse(label)
            return OpenedSource(
                pixels, shapes, canvas, self._control_maps(item, pixels, canvas), bars=find_bars(pixels)
            )
        except (SourceError, LabelError, TransientError, OSError) as error:
            kind = "source" if isinstance(error, (SourceError, LabelError)) else "transient"
            failure = _failure(item, kind, why(error))
        black = np.zeros((canvas.size[1], canvas.size[0], 3), dtype=np.uint8)
        return OpenedSource(blank(source), (), canvas, (black,) * len(settings.controls or ()), failure)

    def _control_maps(self, item: Item, pixels: Pixels, canvas: Canvas) -> tuple[Pixels, ...]:
        """The map of each control, of the whole working picture: tiles are cut from it."""
        if not item.job.settings.controls:
            return ()
        whole = fit(pixels, canvas)
        maps = []
        for control in item.job.settings.controls:
            if control.folder is not None:
                maps.append(kept_map(item.source, control, canvas))
                continue
            try:
                maps.append(self._device.submit(self._maps, control, whole).result())
            except RuntimeError as error:
                raise TransientError(f"the {control.kind} map: {_device_failed(error)}") from None
        return tuple(maps)

    def _timed(self, pictures: Sequence[Sequence[Row]]) -> tuple[list[Edited | TransientError], float]:
        """The edited images, and the device's seconds per image: without the time that a batch waits for the device."""
        if self.stopping():
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
                "out of memory with a batch of %d images: at most %d from now on", len(rows), self._max_batch
            )
            return self._halves(rows)
        except RuntimeError as error:  # torch raises it when a device fails
            return [_DeviceError(_device_failed(error)) for _ in rows]

    def _halves(self, rows: Sequence[Row]) -> list[Edited | TransientError]:
        half = (len(rows) + 1) // 2
        return self._edit(rows[:half]) + self._edit(rows[half:])

    def _finish(self, item: Item, opened: OpenedSource, edited: Edited | TransientError, seconds: float) -> Result:
        job, settings = item.job, item.job.settings
        if opened.failure is not None:
            return Result(opened.failure)
        if isinstance(edited, TransientError):
            return Result(_failure(item, "transient", edited))
        pixels = unfit(edited.image, opened.canvas)
        if pixels.shape != opened.pixels.shape:
            raise AssertionError(f"job {job.id}: made {pixels.shape} from {opened.pixels.shape}")
        task_facts: dict[str, Any] = {}
        if settings.task is not None:
            whole, feather = native_canvas(opened, settings)
            mask = paint_mask(opened.shapes, job, whole, feather)
            # Measured before compositing: a model that fails paints all black, and the source would cover most of it.
            task_facts = {"contrast": round(float(luminance(pixels).std()), 4)}
            task_facts |= measure_task(opened.shapes, job, mask, whole)
            pixels = composite(opened.pixels, pixels, mask)
        pixels, lever_facts = with_levers(opened, job, pixels)
        pixels = opened.bars.held(opened.pixels, pixels)
        try:
            note = f"diffgen {__version__}, job {job.id}"
            how = "edited" if item.source.text is None else "made"
            image = encode(pixels, settings.image_format, settings.quality, note, how)
        except (OSError, ValueError) as error:  # a side is longer than the format allows
            return Result(_failure(item, "source", f"cannot be written as {settings.image_format}: {why(error)}"))
        facts: dict[str, Any] = {"strength": round(edited.strength, 4)}
        if edited.object_strength is not None:
            facts["object_strength"] = round(edited.object_strength, 4)
        if item.source.text is None:
            facts |= (
                measure(view(opened.pixels, opened.bars), view(pixels, opened.bars), opened.shapes, opened.bars)
                | lever_facts
                | task_facts
            )
        else:
            facts |= measure_text2img(pixels, asked=item.source.counts[0][0])
        try:
            if "task" not in facts and facts.get("change", NEAR) < NEAR:
                facts["round_trip"] = self._device.submit(self._round_trip, item, opened).result()
            if self._second_look:
                look = self._second_look.facts
                facts |= self._device.submit(look, item, opened.shapes, opened.pixels, pixels).result()
        except TransientError as error:
            return Result(_failure(item, "transient", error))
        except RuntimeError as error:
            return Result(_failure(item, "transient", f"measuring: {_device_failed(error)}"))
        sha = hashlib.sha256(image).hexdigest()
        return Result(Record(job.id, "made", facts, sha, seconds=round(seconds, 3)), image)

    def _round_trip(self, item: Item, opened: OpenedSource) -> float:
        """The `distance` of a source from its own round trip through the model's VAE. Raises TransientError."""

        def measured(_: Any) -> float:
            made = round_trip(opened, item.job, self._editor.round_trip)
            return round(distance(*(small(opened.bars.inner(picture)) for picture in (opened.pixels, made))), 2)

        return self._round_trips.get_or((item.source.digest, opened.canvas, item.job.settings.mode), measured)
