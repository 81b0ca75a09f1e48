"""Facts from a detector and a CLIP model. The only place where both are loaded and called."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffgen.checks.auto_labels import measure_text2img_detections
from diffgen.checks.clip import Clip, Planes, Vectors, load_clip, measure_clip
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


@dataclass(frozen=True, slots=True)
class Pair:
    """An edit and its source, (H, W, 3) of one size, with the source's labelled objects. `matched` and `square` are what
    `SecondLook.prepared` makes of them."""

    item: Item
    shapes: Sequence[Shape]
    source: Pixels
    edited: Pixels
    matched: Pixels | None = None
    square: Planes | None = None


class SecondLook:
    """Not thread-safe, except `prepared`. The models run on the device: on the edits of a whole batch, but on each source
    alone, so that a source's results do not depend on its batch."""

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

    def prepared(self, pair: Pair) -> Pair:
        """The inputs that need no model: the edit at the source's brightness, and the edit as CLIP sees it."""
        compared = self._detector is not None and pair.item.source.text is None
        return replace(
            pair,
            matched=luminance_matched(pair.source, pair.edited) if compared else None,
            square=None if self._clip is None else self._clip.prepare(pair.edited),
        )

    def facts(self, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
        """Facts of each edit of a batch. Raises OutOfMemory."""
        found: list[dict[str, Any]] = [{} for _ in pairs]
        if self._detector is not None:
            found = self._detect(self._detector, pairs)
        if self._clip is not None:
            look, prepare = self._clip.look, self._clip.prepare
            edits = look([pair.square for pair in pairs if pair.square is not None])
            for facts, pair, after in zip(found, pairs, edits, strict=True):
                source = pair.source
                before = self._vectors.get_or(pair.item.source.digest, lambda _, s=source: look([prepare(s)])[0])  # type: ignore[misc]
                facts |= measure_clip(before, after, self._clip.read(pair.item.job.prompt))
        return found

    def _detect(self, detector: Detect, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
        def look(pair: Pair) -> list[Detection]:
            return self._detected.get_or(pair.item.source.digest, lambda _: confident(detector([pair.source])[0]))

        before = [[] if pair.matched is None else look(pair) for pair in pairs]
        matched = [pair.matched for pair in pairs if pair.matched is not None]
        seen = detector([*(pair.edited for pair in pairs), *matched])
        bright = iter(seen[len(pairs) :])
        return [
            measure_text2img_detections(after, self._known)
            if pair.matched is None
            else self._compared(pair, old, after, next(bright))
            for pair, old, after in zip(pairs, before, seen, strict=False)
        ]

    def _compared(
        self, pair: Pair, before: list[Detection], after: list[Detection], matched: list[Detection]
    ) -> dict[str, Any]:
        job, shapes = pair.item.job, pair.shapes
        size = pair.edited.shape[1], pair.edited.shape[0]
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
