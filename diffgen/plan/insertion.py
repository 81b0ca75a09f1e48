"""Where an object may be painted in: as large and as high in the picture as the dataset's own, on free ground. Pure."""

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
Draw = Callable[[str, int], float]  # (what for, which try) -> a number in [0, 1)
TRIES = 64


@dataclass(frozen=True, slots=True)
class ObjectSize:
    """A labelled object's height and the middle of it, in shares of its picture's height; width ÷ height in pixels."""

    height: float
    middle: float
    aspect: float


class SizePrior:
    """The sizes and heights that objects have, each drawn as often as it occurs.

    On a ring, by a mark in [0, 1) of its own: an object more in the dataset changes only the draws next to its mark, so
    that places, and with them images, stay as a dataset grows (consistent hashing, Karger et al. 1997).
    """

    def __init__(self, objects: Iterable[tuple[float, ObjectSize]]) -> None:
        ring = sorted(objects, key=lambda pair: pair[0])
        self._marks = [mark for mark, _ in ring]
        self._templates = [template for _, template in ring]

    def __bool__(self) -> bool:
        return bool(self._templates)

    def draw(self, at: float) -> ObjectSize:
        return self._templates[bisect_left(self._marks, at) % len(self._templates)]


def object_size(shape: Shape, size: tuple[int, int]) -> ObjectSize | None:
    """Of an object in a picture of `size` (width, height) pixels; None for one without area."""
    x0, y0, x1, y1 = shape.box
    if x1 <= x0 or y1 <= y0:
        return None
    return ObjectSize(y1 - y0, (y0 + y1) / 2, (x1 - x0) * size[0] / ((y1 - y0) * size[1]))


def find_place(
    law: SizePrior, shapes: Sequence[Shape], size: tuple[int, int], least: float, margin: float, draw: Draw
) -> Place | None:
    """A free place in a picture of `size` pixels that holds `shapes`, or None where some tries found none.

    Size and height by the law, from left to right anywhere; both sides at least `least` pixels, and `margin` pixels away
    from every labelled object.
    """
    width, height = size
    apart_x, apart_y = margin / width, margin / height
    for n in range(TRIES):
        template = law.draw(draw("template", n))
        tall, wide = template.height, template.height * height * template.aspect / width
        if tall * height < least or wide * width < least or wide > 1 or tall > 1:
            continue
        left = draw("left", n) * (1 - wide)
        top = min(max(0.0, template.middle - tall / 2), 1 - tall)
        x0, y0, x1, y1 = left - apart_x, top - apart_y, left + wide + apart_x, top + tall + apart_y
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
    """Source digest -> a place for each of its `seeds`, for the sources that have room for all of them.

    No side of a place is under `least_object` pixels of the working size, and what is painted around it touches no other
    object. Raises UsageError when the dataset has no object to learn from.
    """
    law = _size_prior(dataset, settings)
    if not law:
        raise UsageError(
            f"conditions: '{settings.condition}' inserts an object, and the dataset has none to learn sizes and places from",
            "label some objects first, of any class",
        )
    found = {}
    for source in sources:
        size, shapes = (source.width, source.height), dataset.shapes.get(source.digest, ())
        scale = working_canvas(*size, settings).inner[0] / source.width
        least, margin = least_object / scale, ((settings.feather or 0) + 2) / scale
        places = [find_place(law, shapes, size, least, margin, partial(unit, seed)) for seed in seeds(source)]
        free = tuple(place for place in places if place is not None)
        if len(free) == len(places):
            found[source.digest] = free
    return found


def _size_prior(dataset: Dataset, settings: Settings) -> SizePrior:
    """Sizes and heights of the class that is inserted, or, where none is labelled, of all classes."""
    sources = {source.digest: source for source in dataset.sources if source.digest in dataset.shapes}
    rows = [(s, i, shape) for s in sources.values() for i, shape in enumerate(dataset.shapes[s.digest])]
    own = [row for row in rows if settings.classes and row[2].class_id in settings.classes]
    marked = [
        (unit("template", s.image_digest, i), object_size(shape, (s.width, s.height))) for s, i, shape in own or rows
    ]
    return SizePrior((mark, template) for mark, template in marked if template is not None)
