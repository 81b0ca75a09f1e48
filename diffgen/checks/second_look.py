"""Facts from a detector and a CLIP model. The only place where both are loaded and called."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffgen.checks.auto_labels import measure_text2img_detections
from diffgen.checks.clip import Clip, Vectors, load_clip, measure_clip
from diffgen.checks.detections import FOUND_AGAIN, Detection, confident, measure_detections
from diffgen.checks.detectors import load_labeller
from diffgen.checks.detectors.names import same_names
from diffgen.checks.detectors.ultralytics import load_detector
from diffgen.checks.statistics import luminance_matched
from diffgen.checks.tasks import expected, labelled, measure_task_detections
from diffgen.dataset.images import Pixels
from diffgen.dataset.labels import Shape
from diffgen.errors import UsageError
from diffgen.lru import LRUCache
from diffgen.models.networks import Observers
from diffgen.types import Item
from diffgen.version import installed_version

Detect = Callable[[Sequence[Pixels]], list[list[Detection]]]
CACHED_SOURCES = 64  # whose detections and vectors are kept: the conditions of one source are edited in turn


class SecondLook:
    """Not thread-safe: the models run on the device, one picture at a time."""

    def __init__(
        self,
        detector: Detect | None = None,
        known: Mapping[int, int] | None = None,
        clip: Clip | None = None,
        environment: Mapping[str, Any] | None = None,
    ) -> None:
        """`known` maps the dataset's class ids to the detector's. `environment` names the models, for the records."""
        self.environment = dict(environment or {})
        self._detector, self._known = detector, known or {}
        self._clip = clip
        self._detected: LRUCache[str, list[Detection]] = LRUCache(CACHED_SOURCES)
        self._vectors: LRUCache[str, Vectors] = LRUCache(CACHED_SOURCES)

    def __bool__(self) -> bool:
        """Whether there is a detector or a CLIP model."""
        return self._detector is not None or self._clip is not None

    def facts(self, item: Item, shapes: Sequence[Shape], source: Pixels, edited: Pixels) -> dict[str, Any]:
        """Facts of an edit of `source`, both (H, W, 3) of one size. `shapes` are the source's. Raises OutOfMemory."""
        facts: dict[str, Any] = {}
        if self._detector is not None:
            facts |= self._detect(self._detector, item, shapes, source, edited)
        if self._clip is not None:
            look = self._clip.look
            before = self._vectors.get_or(item.source.digest, lambda _: look(source))
            facts |= measure_clip(before, look(edited), self._clip.read(item.job.prompt))
        return facts

    def _detect(
        self, detector: Detect, item: Item, shapes: Sequence[Shape], source: Pixels, edited: Pixels
    ) -> dict[str, Any]:
        job = item.job
        if item.source.text is not None:
            return measure_text2img_detections(detector([edited])[0], self._known)
        before = self._detected.get_or(item.source.digest, lambda _: confident(detector([source])[0]))
        after, matched = detector([edited, luminance_matched(source, edited)])
        size = edited.shape[1], edited.shape[0]
        if job.settings.task is None:
            return measure_detections(before, after, matched, shapes, size)
        facts = measure_detections(expected(before, shapes, job), after, matched, labelled(shapes, job), size)
        return facts | measure_task_detections(shapes, job, after, self._known)


def load_second_look(
    observers: Observers, names: Sequence[str], device: str, *, labels: bool, inserted: Collection[int] = ()
) -> SecondLook:
    """Load the recipe's detector and CLIP model. `names` are the dataset's classes by id.

    With `labels` the detector labels pictures made from noise and must know all classes. Otherwise it compares edits with
    sources and must know the `inserted` classes. Raises UsageError if it lacks one, DiffgenError if it cannot be loaded.
    """
    detector: Detect | None = None
    known: dict[int, int] = {}
    environment: dict[str, Any] = {}
    clip = None
    if observers.detector is not None and labels:
        environment["detector"] = observers.detector.identity
        detector, known = load_labeller(observers.detector, names, device)
    elif observers.detector is not None:
        weights = Path(str(observers.detector.folder))
        environment["detector"] = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
        environment["ultralytics"] = installed_version("ultralytics")
        detector = ultralytics = load_detector(weights, device, confidence=FOUND_AGAIN)
        known = same_names(names, ultralytics.names)
        if unknown := [names[i] for i in sorted(inserted) if i not in known]:
            raise UsageError(
                f"detector: {weights} has no class '{unknown[0]}', so it cannot confirm inserted objects",
                f"use a detector with that class; this one has: {', '.join(ultralytics.names[:20])}",
            )
    if observers.clip is not None:
        environment["clip"] = observers.clip.identity
        clip = load_clip(observers.clip, device)
    return SecondLook(detector, known, clip, environment)
