"""Makes the images of a batch on one device: reads sources, returns encoded images and facts. Writes and decides nothing.

Reading, levers, measuring and encoding are tasks per picture, in a pool with one thread per core. Everything on the device
runs in its own thread, a batch at a time; calls overlap, so that the next batch is ready when the device is free.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from diffgen.checks.measure import measure, measure_text2img, view
from diffgen.checks.second_look import Pair, SecondLook
from diffgen.checks.structure import luminance
from diffgen.checks.tasks import measure_task
from diffgen.dataset.geometry import unfit, working_canvas
from diffgen.dataset.images import Pixels, encode
from diffgen.dataset.labels import LabelError, LabelSchema, Shape
from diffgen.editing.control_maps import Maps
from diffgen.editing.editor import Edited, Editor
from diffgen.editing.tasks import composite, paint_mask
from diffgen.errors import SourceError, TransientError, why
from diffgen.files import cpu_count
from diffgen.run.engine import Engine, Made, failure
from diffgen.run.picture import (
    OpenedSource,
    Row,
    blank,
    native_canvas,
    rows_of,
    with_levers,
)
from diffgen.run.sources import Sources, Targets
from diffgen.run.timings import Timings
from diffgen.types import Batch, Item, Record, Result
from diffgen.version import __version__

logger = logging.getLogger(__name__)


T = TypeVar("T")


class BatchWorker(Protocol):
    """What the loop needs of a worker. `environment` describes the machine and versions, for the records."""

    environment: dict[str, Any]
    stopping: Callable[[], bool]  # asked before a batch reaches the device
    timings: Timings

    def __call__(self, batch: Batch) -> list[Result]:
        """Make the batch's images: one result per item, in order. Raises Cancelled once `stopping` says so."""


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
        targets: Mapping[str, str] | None = None,
    ) -> None:
        """`shapes` are labels that are parsed already, by the source's digest; `targets` are the paths of the pictures that
        edits are matched with, by digest."""
        import cv2

        cv2.setNumThreads(1)  # each picture has a thread of its own
        known = shapes or {}
        self.environment = environment
        self.stopping: Callable[[], bool] = lambda: False
        self.timings = Timings()
        self._second_look = second_look or SecondLook()
        self._engine = Engine(editor, self._second_look, maps or Maps({}))
        self._sources = Sources(lambda source, label: known.get(source.digest) or schema.parse(label))
        self._targets = Targets(targets or {})
        self._queue = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._pictures = ThreadPoolExecutor(cpu_count(), thread_name_prefix="picture")

    def __call__(self, batch: Batch) -> list[Result]:
        jobs = [item.job for item in batch.items]
        opened = self._each("read", self._open, batch.items)
        maps: Sequence[tuple[Pixels, ...]] = [()] * len(jobs)
        if jobs[0].settings.controls:
            opened, maps = self._on_device("maps", self._engine.with_maps, batch, opened)
        rows = self._each("read", _rows, batch.items, opened, maps)
        edited, seconds = self._on_device("edit", self._engine.edit, rows, self.stopping)
        made: list[Made | Record] = self._each("finish", self._finish, batch.items, opened, edited)
        if self._engine.has_to_look(made):
            made = self._on_device("look", self._engine.look, batch, opened, made)
        return [_result(item, entry, seconds) for item, entry in zip(batch.items, made, strict=True)]

    def _on_device(self, part: str, work: Callable[..., T], *arguments: Any) -> T:
        """The result of work for the device, which does one thing at a time."""

        def timed() -> T:
            with self.timings.part(part):
                return work(*arguments)

        return self._queue.submit(timed).result()

    def _each(self, part: str, work: Callable[..., T], items: Sequence[Item], *lists: Sequence[Any]) -> list[T]:
        """The results of work on each picture, in order. Errors are raised with the job that caused them."""

        def timed(item: Item, *arguments: Any) -> T:
            try:
                with self.timings.part(part):
                    return work(item, *arguments)
            except Exception as error:
                if hasattr(error, "add_note"):  # Python 3.11
                    error.add_note(f"job {item.job.id} ({item.source.key}, {item.job.settings.condition})")
                raise

        return list(self._pictures.map(timed, items, *lists))

    def _open(self, item: Item) -> OpenedSource:
        source = item.source
        canvas = working_canvas(source.width, source.height, item.job.settings)
        if source.text is not None:
            return OpenedSource(blank(source), canvas)
        try:
            picture = self._sources(source)
            picture.fitted(canvas)
            return OpenedSource(picture, canvas)
        except (SourceError, LabelError, TransientError, OSError) as error:
            kind = "source" if isinstance(error, (SourceError, LabelError)) else "transient"
            return OpenedSource(blank(source), canvas, failure(item, why(error), kind))

    def _finish(self, item: Item, opened: OpenedSource, edited: Edited | TransientError) -> Made | Record:
        """The image at the source's size with its levers, and its facts; a record if there is none."""
        job, settings, source = item.job, item.job.settings, opened.picture
        if opened.failure is not None:
            return opened.failure
        if isinstance(edited, TransientError):
            return failure(item, edited)
        pixels = unfit(edited.image, opened.canvas)
        if pixels.shape != source.pixels.shape:
            raise AssertionError(f"job {job.id}: made {pixels.shape} from {source.pixels.shape}")
        facts: dict[str, Any] = {}
        if settings.task is not None:
            whole, feather = native_canvas(opened, settings)
            mask = paint_mask(source.shapes, job, whole, feather)
            # Measured before compositing: a model that fails paints all black, and the source would cover most of it.
            facts = {"contrast": round(float(luminance(pixels).std()), 4)}
            facts |= measure_task(source.shapes, job, mask, whole)
            pixels = composite(source.pixels, pixels, mask)
        try:
            target = self._targets(job.target)
        except (SourceError, TransientError, OSError) as error:
            return failure(item, why(error))
        pixels, lever_facts = with_levers(opened, job, pixels, target)
        pixels = source.bars.held(source.pixels, pixels)
        try:
            note = f"diffgen {__version__}, job {job.id}"
            how = "edited" if item.source.text is None else "made"
            image = encode(pixels, settings.image_format, settings.quality, note, how)
        except (OSError, ValueError) as error:  # a side is longer than the format allows
            return failure(item, f"cannot be written as {settings.image_format}: {why(error)}", "source")
        if item.source.text is None:
            measured = measure(source.view, view(pixels, source.bars), source.shapes, source.bars)
        else:
            measured = measure_text2img(pixels, asked=item.source.counts[0][0])
        strengths = {"strength": round(edited.strength, 4)}
        if edited.object_strength is not None:
            strengths["object_strength"] = round(edited.object_strength, 4)
        pair = self._second_look.prepared(Pair(item, source.shapes, source.pixels, pixels))
        return Made(strengths | measured | lever_facts | facts, image, hashlib.sha256(image).hexdigest(), pair)


def _rows(item: Item, opened: OpenedSource, maps: tuple[Pixels, ...]) -> list[Row]:
    return rows_of(opened, item.job, maps)


def _result(item: Item, made: Made | Record, seconds: float) -> Result:
    if isinstance(made, Record):
        return Result(made)
    return Result(Record(item.job.id, "made", made.facts, made.sha256, seconds=round(seconds, 3)), made.image)
