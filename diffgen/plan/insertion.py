"""Chooses where to insert an object: sized and placed like the dataset's own objects, away from all others. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from diffgen.dataset.dataset import Dataset
from diffgen.dataset.geometry import working_canvas
from diffgen.dataset.labels import Shape
from diffgen.errors import UsageError
from diffgen.types import Settings, Source, unit

Place = tuple[float, float, float, float]  # x0, y0, x1, y1 in shares of the picture
Sample = Callable[[str, int], float]  # (purpose, number of the try) -> a number in [0, 1)
MAX_TRIES = 64


@dataclass(frozen=True, slots=True)
class ObjectSize:
    """A labelled object: height and vertical centre in shares of the picture's height; width ÷ height in pixels."""

    height: float
    middle: float
    aspect: float


class SizePrior:
    """The empirical distribution of object sizes and vertical positions.

    Every object sits on a ring at its own mark in [0, 1). A new object changes only the samples next to its mark, so
    places, and with them images, stay the same as a dataset grows (consistent hashing, Karger et al. 1997).
    """

    def __init__(self, objects: Iterable[tuple[float, ObjectSize]]) -> None:
        ring = sorted(objects, key=lambda pair: pair[0])
        self._marks = [mark for mark, _ in ring]
        self._sizes = [size for _, size in ring]

    def __bool__(self) -> bool:
        return bool(self._sizes)

    def sample(self, at: float) -> ObjectSize:
        """The object whose mark follows `at` on the ring, a number in [0, 1)."""
        return self._sizes[bisect_left(self._marks, at) % len(self._sizes)]


def object_size(shape: Shape, size: tuple[int, int]) -> ObjectSize | None:
    """The size of an object in a picture of `size` (width, height) pixels; None if its box has no area."""
    x0, y0, x1, y1 = shape.box
    if x1 <= x0 or y1 <= y0:
        return None
    return ObjectSize(y1 - y0, (y0 + y1) / 2, (x1 - x0) * size[0] / ((y1 - y0) * size[1]))


def find_place(
    prior: SizePrior, shapes: Sequence[Shape], size: tuple[int, int], least: float, margin: float, sample: Sample
) -> Place | None:
    """A free place in a picture of `size` (width, height) pixels that holds `shapes`; None if MAX_TRIES found none.

    Size and vertical position come from the prior, the horizontal position is uniform. Both sides have `least` pixels or
    more, and every labelled object is at least `margin` pixels away.
    """
    width, height = size
    margin_x, margin_y = margin / width, margin / height
    for n in range(MAX_TRIES):
        template = prior.sample(sample("template", n))
        tall, wide = template.height, template.height * height * template.aspect / width
        if tall * height < least or wide * width < least or wide > 1 or tall > 1:
            continue
        left = sample("left", n) * (1 - wide)
        top = min(max(0.0, template.middle - tall / 2), 1 - tall)
        x0, y0, x1, y1 = left - margin_x, top - margin_y, left + wide + margin_x, top + tall + margin_y
        boxes = (shape.box for shape in shapes)
        if all(x1 <= box[0] or box[2] <= x0 or y1 <= box[1] or box[3] <= y0 for box in boxes):
            return round(left, 6), round(top, 6), round(left + wide, 6), round(top + tall, 6)
    return None


def find_places(
    dataset: Dataset,
    settings: Settings,
    least_object: int,
    sources: Iterable[Source],
    seeds: Callable[[Source], Sequence[int]],
) -> dict[str, tuple[Place, ...]]:
    """Source digest -> one place for each of its `seeds`; only sources with room for all of them.

    Both sides of a place have `least_object` pixels or more at the working size, and its feathered edge touches no other
    object. Raises UsageError when the dataset has no object to learn sizes from.
    """
    prior = _size_prior(dataset, settings)
    if not prior:
        raise UsageError(
            f"conditions: '{settings.condition}' inserts an object, but the dataset has no objects to take sizes and "
            "positions from",
            "label some objects first; any class will do",
        )
    places = {}
    for source in sources:
        size, shapes = (source.width, source.height), dataset.shapes.get(source.digest, ())
        scale = working_canvas(*size, settings).inner[0] / source.width
        least, margin = least_object / scale, ((settings.feather or 0) + 2) / scale
        tried = [find_place(prior, shapes, size, least, margin, partial(unit, seed)) for seed in seeds(source)]
        free = tuple(place for place in tried if place is not None)
        if len(free) == len(tried):
            places[source.digest] = free
    return places


def _size_prior(dataset: Dataset, settings: Settings) -> SizePrior:
    """Sizes of the inserted class; of all classes if none of its objects is labelled."""
    sources = {source.digest: source for source in dataset.sources if source.digest in dataset.shapes}
    rows = [(s, i, shape) for s in sources.values() for i, shape in enumerate(dataset.shapes[s.digest])]
    of_class = [row for row in rows if settings.classes and row[2].class_id in settings.classes]
    sized = ((s, i, object_size(shape, (s.width, s.height))) for s, i, shape in of_class or rows)
    return SizePrior((unit("template", s.image_digest, i), size) for s, i, size in sized if size is not None)
