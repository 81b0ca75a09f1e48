"""What a detector and a CLIP model say of an image, as facts. The one place where both are loaded and called."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffgen.checks.auto_labels import measure_text2img_detections
from diffgen.checks.clip import Clip, Vectors, load_clip, measure_clip
from diffgen.checks.detections import AGAIN, Detection, measure_detections, sure
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

Detect = Callable[[Sequence[Pixels]], list[list[Detection]]]
REMEMBERED = 64  # sources whose half of the facts is kept: the conditions of one source follow each other


class SecondLook:
    """Not thread-safe: the models run on the device, one picture at a time."""

    def __init__(
        self,
        detector: Detect | None = None,
        known: Mapping[int, int] | None = None,
        clip: Clip | None = None,
        environment: Mapping[str, Any] | None = None,
    ) -> None:
        """`known` is class id of the dataset -> of the detector, where it has a class of that name. `environment` says
        which models these are."""
        self.environment = dict(environment or {})
        self._detector, self._known = detector, known or {}
        self._clip = clip
        self._detected: LRUCache[str, list[Detection]] = LRUCache(REMEMBERED)
        self._vectors: LRUCache[str, Vectors] = LRUCache(REMEMBERED)

    def __bool__(self) -> bool:
        """Whether there is anything to look with."""
        return self._detector is not None or self._clip is not None

    def facts(self, item: Item, shapes: Sequence[Shape], source: Pixels, edited: Pixels) -> dict[str, Any]:
        """Facts of an edit of `source`, both (H, W, 3) of one size; `shapes` are the source's. Raises OutOfMemory."""
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
        before = self._detected.get_or(item.source.digest, lambda _: sure(detector([source])[0]))
        found, matched = detector([edited, luminance_matched(source, edited)])
        size = edited.shape[1], edited.shape[0]
        if job.settings.task is None:
            return measure_detections(before, found, matched, shapes, size)
        facts = measure_detections(expected(before, shapes, job), found, matched, labelled(shapes, job), size)
        return facts | measure_task_detections(shapes, job, found, self._known)


def load_second_look(
    observers: Observers, names: Sequence[str], device: str, *, labels: bool, inserted: Collection[int] = ()
) -> SecondLook:
    """Load the recipe's detector and CLIP model; `names` are the dataset's classes by id.

    With `labels` the detector labels pictures made from noise, and must know all classes; otherwise it compares edits with
    sources, and must know those `inserted`. Raises UsageError when it does not, DiffgenError when it cannot be loaded.
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
        environment["ultralytics"] = version("ultralytics")
        found = load_detector(weights, device, confidence=AGAIN)
        detector, known = found, same_names(names, found.names)
        if unknown := [names[i] for i in sorted(inserted) if i not in known]:
            raise UsageError(
                f"detector: {weights} knows no class '{unknown[0]}', so it could not confirm what is inserted",
                f"use a detector of that class; this one knows: {', '.join(found.names[:20])}",
            )
    if observers.clip is not None:
        environment["clip"] = observers.clip.identity
        clip = load_clip(observers.clip, device)
    return SecondLook(detector, known, clip, environment)
