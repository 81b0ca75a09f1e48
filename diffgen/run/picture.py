"""One picture on its way through the worker: opened, cut into tiles, joined, and finished with the pixel levers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffgen.dataset.geometry import Canvas, View, cut, fit, merge, views_for
from diffgen.dataset.images import Pixels
from diffgen.dataset.labels import Shape
from diffgen.dataset.masks import Mask, identity_canvas, object_mask
from diffgen.editing.detail_transfer import transfer
from diffgen.editing.editor import EditBatch, Edited
from diffgen.editing.harmonise import harmonise
from diffgen.editing.tasks import working_mask
from diffgen.errors import TransientError
from diffgen.types import Job, Record, Settings, Source

# A row whose source does not decode is edited as this grey, so that its neighbours stay in their rows: results depend
# (in the last bits) on the composition of a batch. What is made from noise has it as its source.
_BLANK = 128


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """A source ready to be edited, or the record of why it is not."""

    pixels: Pixels
    shapes: tuple[Shape, ...]
    canvas: Canvas
    maps: tuple[Pixels, ...] = ()  # of the settings' controls, at the working size
    failure: Record | None = None


def blank(source: Source) -> Pixels:
    return np.full((source.height, source.width, 3), _BLANK, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Row:
    """One image for the editor: a picture at the working size, or a tile of it, as `view` says; `mask` where its objects
    have a strength of their own, or where a task paints."""

    image: Pixels
    job: Job
    mask: Mask | None
    view: View
    maps: tuple[Pixels, ...]


def rows_of(opened: OpenedSource, job: Job) -> list[Row]:
    """A picture as the editor gets it: whole, or in tiles."""
    settings, image = job.settings, fit(opened.pixels, opened.canvas)
    mask = working_mask(opened.shapes, job, opened.canvas)
    views = views_for(opened.canvas, settings)
    if len(views) == 1:
        return [Row(image, job, mask, views[0], opened.maps)]
    side = settings.long_side // settings.multiple * settings.multiple

    def tile(view: View) -> Row:
        maps = tuple(cut(found, view, side) for found in opened.maps)
        return Row(cut(image, view, side), job, None if mask is None else cut(mask, view, side), view, maps)

    return [tile(view) for view in views]


def batch_of(rows: Sequence[Row]) -> EditBatch:
    """Rows of one settings and one size as the editor takes them: all of them have a mask and maps, or none has."""
    masks = [row.mask for row in rows if row.mask is not None]
    return EditBatch(
        [row.image for row in rows],
        [row.job for row in rows],
        masks or None,
        [row.view for row in rows],
        [row.maps for row in rows] if rows[0].maps else None,
    )


def with_levers(opened: OpenedSource, settings: Settings, pixels: Pixels) -> Pixels:
    """Held objects in the scene's light, and the source's detail where it is wanted back, at the source's own size."""
    scene, objects = settings.detail or 0.0, settings.object_detail or 0.0
    held = settings.object_strength is not None and settings.object_strength < settings.strength
    amount: Mask | float = scene
    if opened.shapes and (held or objects):
        mask = object_mask(opened.shapes, *native_canvas(opened, settings))
        if held:
            pixels = harmonise(opened.pixels, pixels, mask)
        if objects:
            amount = np.asarray(scene + (max(scene, objects) - scene) * mask, dtype=np.float32)
    return transfer(opened.pixels, pixels, amount) if np.any(amount) else pixels


def native_canvas(opened: OpenedSource, settings: Settings) -> tuple[Canvas, float]:
    """The canvas for masks at the source's own size, and the feather in its pixels."""
    height, width = opened.pixels.shape[:2]
    return identity_canvas(width, height), (settings.feather or 0) * width / opened.canvas.inner[0]


def join_tiles(edited: Sequence[Edited | TransientError], rows: Sequence[Row]) -> Edited | TransientError:
    tiles: list[Edited] = []
    for one in edited:
        if isinstance(one, TransientError):
            return one
        tiles.append(one)
    if len(tiles) == 1:
        return tiles[0]
    return replace(tiles[0], image=merge([tile.image for tile in tiles], [row.view for row in rows]))
