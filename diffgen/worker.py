"""One process's device: bytes in, bytes and facts out. Writes no file and takes no decision.

Decoding, checking and encoding run in the calling threads; the editor runs in one thread of its own, so several calls
overlap while the device is used by one at a time.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from diffgen import __version__
from diffgen.annotate import measure_annotations
from diffgen.annotators import load_annotator, same_names
from diffgen.blend import Mask, composite, native, object_mask
from diffgen.checks import luminance, measure, measure_clip, measure_detections, measure_imagined
from diffgen.clip import Clip, Vectors, load_clip
from diffgen.controls import Maps, kept_map, load_maps
from diffgen.detail import transfer
from diffgen.detect import Box, load_detector
from diffgen.editors import Edited, Editor, load_editor
from diffgen.editors.recent import Recent
from diffgen.errors import DiffgenError, OutOfMemory, SourceError, TransientError, UsageError, why
from diffgen.facts import AGAIN, luminance_matched, sure
from diffgen.geometry import Fit, Pixels, View, cut, decode, encode, fit, merge, plan_for, unfit, views_for
from diffgen.labels import LabelError, Shape, parse_labels
from diffgen.memory import RESIDENT
from diffgen.models import Model
from diffgen.relight import relit
from diffgen.tasks import expected, labelled, measure_task, measure_task_detections, paint_mask, working_mask
from diffgen.types import Batch, Item, Job, Record, Result, Settings, Source

logger = logging.getLogger(__name__)

# A row whose source does not decode is edited as this grey, so that its neighbours stay in their rows: results depend
# (in the last bits) on the composition of a batch. What is made from noise has it as its source.
_BLANK = 128
MOST_IN_VAIN = 3  # batches in a row: then the device is broken, not a batch


class Work(Protocol):
    """What the driver needs of a worker. `environment` describes the machine and versions, for the records."""

    environment: dict[str, Any]

    def __call__(self, batch: Batch) -> list[Result]:
        """One result per item, in order."""


MakeWorker = Callable[[], Work]
Detect = Callable[[Sequence[Pixels]], list[list[Box]]]


@dataclass(frozen=True, slots=True)
class Judges:
    """What looks at what was made: a detector by its weights, and the model's own CLIP, where it has one.

    `names` are the dataset's classes by id, by which the detector's are known; `inserted` those that it must have.
    """

    detector: Path | None = None
    names: tuple[str, ...] = ()
    inserted: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _Open:
    """A source ready to be edited, or the record of why it is not."""

    pixels: Pixels
    shapes: tuple[Shape, ...]
    fit: Fit
    maps: tuple[Pixels, ...] = ()  # of the settings' controls, at the working size
    failure: Record | None = None


class _Broken(TransientError):
    """The device failed at this row's batch."""


def _blank(source: Source) -> Pixels:
    return np.full((source.height, source.width, 3), _BLANK, dtype=np.uint8)


def _device_failed(error: RuntimeError) -> str:
    return f"the device failed: {(str(error).splitlines() or ['RuntimeError'])[0][:200]}"


@dataclass(frozen=True, slots=True)
class _Row:
    """One image for the editor: a picture at the working size, or a tile of it, as `view` says; `mask` where its objects
    have a strength of their own, or where a task paints."""

    image: Pixels
    job: Job
    mask: Mask | None
    view: View
    maps: tuple[Pixels, ...]


def _rows(opened: _Open, job: Job) -> list[_Row]:
    """A picture as the editor gets it: whole, or in tiles."""
    settings, image = job.settings, fit(opened.pixels, opened.fit)
    mask = working_mask(opened.shapes, job, opened.fit)
    views = views_for(opened.fit, settings)
    if len(views) == 1:
        return [_Row(image, job, mask, views[0], opened.maps)]
    side = settings.long_side // settings.multiple * settings.multiple

    def tile(view: View) -> _Row:
        maps = tuple(cut(found, view, side) for found in opened.maps)
        return _Row(cut(image, view, side), job, None if mask is None else cut(mask, view, side), view, maps)

    return [tile(view) for view in views]


def _with_levers(opened: _Open, settings: Settings, pixels: Pixels) -> Pixels:
    """Held objects in the scene's light, and the source's detail where it is wanted back, at the source's own size."""
    scene, objects = settings.detail or 0.0, settings.object_detail or 0.0
    held = settings.object_strength is not None and settings.object_strength < settings.strength
    amount: Mask | float = scene
    if opened.shapes and (held or objects):
        mask = object_mask(opened.shapes, *_native(opened, settings))
        if held:
            pixels = relit(opened.pixels, pixels, mask)
        if objects:
            amount = np.asarray(scene + (max(scene, objects) - scene) * mask, dtype=np.float32)
    return transfer(opened.pixels, pixels, amount) if np.any(amount) else pixels


def _native(opened: _Open, settings: Settings) -> tuple[Fit, float]:
    """The plan for masks at the source's own size, and the feather in its pixels."""
    height, width = opened.pixels.shape[:2]
    return native(width, height), (settings.feather or 0) * width / opened.fit.inner[0]


def _joined(edited: Sequence[Edited | TransientError], rows: Sequence[_Row]) -> Edited | TransientError:
    tiles: list[Edited] = []
    for one in edited:
        if isinstance(one, TransientError):
            return one
        tiles.append(one)
    if len(tiles) == 1:
        return tiles[0]
    return replace(tiles[0], image=merge([tile.image for tile in tiles], [row.view for row in rows]))


class Worker:
    """Edits batches with one loaded editor. Calls may overlap."""

    def __init__(
        self,
        editor: Editor,
        classes: int,
        keypoints: tuple[int, int] | None,
        environment: dict[str, Any],
        detector: Detect | None = None,
        clip: Clip | None = None,
        maps: Maps | None = None,
        known: Mapping[int, int] | None = None,
    ) -> None:
        """`known` is class id of the dataset -> of the detector, where it has that class."""
        self._known = known or {}
        self.environment = environment
        self._maps = maps or Maps({})
        self._editor = editor
        self._classes = classes
        self._keypoints = keypoints
        self._device = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._detector = detector
        self._seen: Recent[str, list[Box]] = Recent(64)  # what the detector finds in sources: conditions share them
        self._clip = clip
        self._looked: Recent[str, Vectors] = Recent(64)  # what CLIP sees in sources
        self._in_vain = 0  # batches that the device failed at since one went well
        self._room: int | None = None  # the largest batch that fitted since memory ran out

    def __call__(self, batch: Batch) -> list[Result]:
        opened = [self._open(item) for item in batch.items]
        jobs = [item.job for item in batch.items]
        pictures = [_rows(entry, job) for entry, job in zip(opened, jobs, strict=True)]
        edited, seconds = self._device.submit(self._timed, pictures).result()
        return [
            self._finish(item, entry, result, seconds)
            for item, entry, result in zip(batch.items, opened, edited, strict=True)
        ]

    def _open(self, item: Item) -> _Open:
        source, settings = item.source, item.job.settings
        plan = plan_for(source.width, source.height, settings)
        if source.text is not None:
            return _Open(_blank(source), (), plan)
        try:
            raw = Path(source.path).read_bytes()
            label = source.read_label() or b""
            if hashlib.sha256(raw + b"\0" + label).hexdigest() != source.digest:
                raise TransientError("the image or its label changed while the run was going on")
            pixels = decode(raw)
            if pixels.shape != (source.height, source.width, 3):
                raise SourceError(f"decodes to {pixels.shape[1]}×{pixels.shape[0]}, its header says otherwise")
            shapes = parse_labels(label, self._classes, self._keypoints)
            return _Open(pixels, shapes, plan, self._guiding(item, pixels, plan))
        except (SourceError, LabelError) as error:
            failure = Record(item.job.id, "failed", kind="source", error=f"{source.key}: {error}")
        except TransientError as error:
            failure = Record(item.job.id, "failed", kind="transient", error=f"{source.key}: {error}")
        except OSError as error:
            failure = Record(item.job.id, "failed", kind="transient", error=f"{source.key}: {why(error)}")
        nothing = np.zeros((plan.size[1], plan.size[0], 3), dtype=np.uint8)
        return _Open(_blank(source), (), plan, (nothing,) * len(settings.controls or ()), failure)

    def _guiding(self, item: Item, pixels: Pixels, plan: Fit) -> tuple[Pixels, ...]:
        """The maps that the settings' controls ask for, of the whole working picture: tiles are cut from one map."""
        if not item.job.settings.controls:
            return ()
        whole = fit(pixels, plan)
        maps = []
        for guide in item.job.settings.controls:
            if guide.folder is not None:
                maps.append(kept_map(item.source, guide, plan))
                continue
            try:
                maps.append(self._device.submit(self._maps, guide, whole).result())
            except RuntimeError as error:
                raise TransientError(f"the {guide.kind} map: {_device_failed(error)}") from None
        return tuple(maps)

    def _timed(self, pictures: Sequence[Sequence[_Row]]) -> tuple[list[Edited | TransientError], float]:
        """The edited images and the device's seconds per image: without the time a batch waits for its turn."""
        started = time.perf_counter()
        rows = [row for picture in pictures for row in picture]
        most = len(pictures)  # tiles run in batches no larger than pictures do
        found = [made for i in range(0, len(rows), most) for made in self._edit(rows[i : i + most])]
        if all(isinstance(made, _Broken) for made in found):
            self._in_vain += 1
            if self._in_vain == MOST_IN_VAIN:
                hint = "see 'diffgen doctor'; the same command goes on with what is made"
                raise DiffgenError(f"{MOST_IN_VAIN} batches in a row: {found[0]}", hint)
        else:
            self._in_vain = 0
        edited = iter(found)
        whole = [_joined([next(edited) for _ in picture], picture) for picture in pictures]
        return whole, (time.perf_counter() - started) / len(pictures)

    def _edit(self, rows: Sequence[_Row]) -> list[Edited | TransientError]:
        """Edit in one go; when memory runs out in halves, which is remembered, down to one image, which then fails."""
        if self._room is not None and len(rows) > self._room:
            return self._halves(rows)
        masks = [row.mask for row in rows if row.mask is not None]
        guided: dict[str, Any] = {"controls": [row.maps for row in rows]} if rows[0].maps else {}
        try:
            views, jobs = [row.view for row in rows], [row.job for row in rows]
            return list(self._editor.edit([row.image for row in rows], jobs, masks or None, views, **guided))
        except OutOfMemory as error:
            if len(rows) == 1:
                return [error]
            self._room = (len(rows) + 1) // 2
            logger.warning("no room for %d images at once: at most %d from now on", len(rows), self._room)
            return self._halves(rows)
        except RuntimeError as error:  # torch's word for a device that fails; a bug of ours has another name
            return [_Broken(_device_failed(error)) for _ in rows]

    def _halves(self, rows: Sequence[_Row]) -> list[Edited | TransientError]:
        half = (len(rows) + 1) // 2
        return self._edit(rows[:half]) + self._edit(rows[half:])

    def _finish(self, item: Item, opened: _Open, edited: Edited | TransientError, seconds: float) -> Result:
        job, settings = item.job, item.job.settings
        if opened.failure is not None:
            return Result(opened.failure)
        if isinstance(edited, TransientError):
            return Result(Record(job.id, "failed", kind="transient", error=f"{item.source.key}: {edited}"))
        pixels = unfit(edited.image, opened.fit)
        if pixels.shape != opened.pixels.shape:
            raise AssertionError(f"job {job.id}: made {pixels.shape} from {opened.pixels.shape}")
        done: dict[str, Any] = {}
        if settings.task is not None:
            whole, feather = _native(opened, settings)
            mask = paint_mask(opened.shapes, job, whole, feather)
            # A model that fails makes all of its picture black, of which the source would hide most.
            done = {"contrast": round(float(luminance(pixels).std()), 4)}
            done |= measure_task(opened.shapes, job, mask, whole)
            pixels = composite(opened.pixels, pixels, mask)
        pixels = _with_levers(opened, settings, pixels)
        try:
            note = f"diffgen {__version__}, job {job.id}"
            how = "edited" if item.source.text is None else "made"
            image = encode(pixels, settings.image_format, settings.quality, note, how)
        except (OSError, ValueError) as error:  # more pixels a side than the format can hold
            message = f"{item.source.key}: cannot be written as {settings.image_format}: {why(error)}"
            return Result(Record(job.id, "failed", kind="source", error=message))
        facts: dict[str, Any] = {"strength": round(edited.strength, 4)}
        if edited.object_strength is not None:
            facts["object_strength"] = round(edited.object_strength, 4)
        if item.source.text is None:
            facts |= measure(opened.pixels, pixels, opened.shapes) | done
        else:
            facts |= measure_imagined(pixels, asked=item.source.counts[0][0])
        if self._detector is not None or self._clip is not None:
            try:
                facts |= self._device.submit(self._second_looks, item, opened, pixels).result()
            except (OutOfMemory, RuntimeError) as error:
                reason = error if isinstance(error, OutOfMemory) else f"measuring: {_device_failed(error)}"
                return Result(Record(job.id, "failed", kind="transient", error=f"{item.source.key}: {reason}"))
        sha = hashlib.sha256(image).hexdigest()
        return Result(Record(job.id, "made", facts, sha, seconds=round(seconds, 3)), image)

    def _second_looks(self, item: Item, opened: _Open, pixels: Pixels) -> dict[str, Any]:
        """In the device's thread: these models are not made for several at once."""
        facts: dict[str, Any] = {}
        if self._detector is not None:
            facts |= self._detect(item, opened, pixels)
        if self._clip is not None:
            digest, look = item.source.digest, self._clip.look
            before = self._looked.get_or(digest, lambda _: look(opened.pixels))
            facts |= measure_clip(before, look(pixels), self._clip.read(item.job.prompt))
        return facts

    def _detect(self, item: Item, opened: _Open, pixels: Pixels) -> dict[str, Any]:
        assert self._detector is not None
        if item.source.text is not None:
            return measure_annotations(self._detector([pixels])[0], self._known)
        job, digest, shapes = item.job, item.source.digest, opened.shapes
        looks = [pixels, luminance_matched(opened.pixels, pixels)]
        if digest not in self._seen:
            self._seen[digest] = sure(self._detector([opened.pixels])[0])
        edited, matched = self._detector(looks)
        size = pixels.shape[1], pixels.shape[0]
        if job.settings.task is None:
            return measure_detections(self._seen[digest], edited, matched, shapes, size)
        before = expected(self._seen[digest], shapes, job)
        facts = measure_detections(before, edited, matched, labelled(shapes, job), size)
        return facts | measure_task_detections(shapes, job, edited, self._known)


def load_worker(
    model: Model,
    device: str,
    dtype: str,
    threads: int,
    classes: int,
    keypoints: tuple[int, int] | None,
    judges: Judges | None = None,
) -> Worker:
    """Load the model (this imports torch) and make the worker for it. Raises DiffgenError when it cannot be loaded."""
    import torch

    torch.set_num_threads(threads)
    editor = load_editor(model, device, dtype)
    environment = describe_environment(device, dtype, threads)
    if model.layout != RESIDENT:
        environment |= {"memory": str(model.layout)}
    if model.layout.quantised:
        environment |= {"bitsandbytes": _version("bitsandbytes")}
    detector: Detect | None = None
    clip = None
    known: dict[int, int] = {}
    if judges is not None and judges.detector is not None:
        environment |= {
            "detector": hashlib.sha256(judges.detector.read_bytes()).hexdigest()[:16],
            "ultralytics": _version("ultralytics"),
        }
        detector = load_detector(judges.detector, device, confidence=AGAIN)
        known = same_names(judges.names, detector.names)
        if unknown := [judges.names[i] for i in sorted(judges.inserted) if i not in known]:
            raise UsageError(
                f"detector: {judges.detector} knows no class '{unknown[0]}', so it could not confirm what is inserted",
                f"use a detector of that class; this one knows: {', '.join(detector.names[:20])}",
            )
    networks = {role: [n for n in model.networks if n.role == role] for role in ("controlnet", "clip", "detector")}
    if judges is not None and networks["detector"]:
        (weights,) = networks["detector"]
        environment |= {"detector": weights.identity}
        detector, known = load_annotator(weights, judges.names, device)
    if judges is not None and networks["clip"]:
        (weights,) = networks["clip"]
        environment |= {"clip": weights.identity}
        clip = load_clip(weights, device)
    if networks["controlnet"]:
        import cv2

        environment |= {"opencv": cv2.__version__}
    maps = load_maps(model, device)
    return Worker(editor, classes, keypoints, environment, detector, clip, maps, known)


def describe_environment(device: str, dtype: str, threads: int) -> dict[str, Any]:
    """What may change the last bits of an image: device, number type, threads and versions."""
    import torch

    name = (
        torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or platform.machine()
    )
    packages = ("torch", "diffusers", "transformers", "numpy", "pillow")
    return {
        "device": device,
        "device_name": name,
        "dtype": dtype,
        "threads": threads,
        "python": platform.python_version(),
        "diffgen": __version__,
        **{package: _version(package) for package in packages},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
