"""The worker's steps on one picture: cut it into tiles, join them, and apply the pixel levers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diffgen.dataset.geometry import Canvas, View, cut, merge, unfit, views_for
from diffgen.dataset.images import Pixels
from diffgen.dataset.masks import Mask, identity_canvas, object_mask
from diffgen.editing.editor import EditBatch, Edited
from diffgen.editing.levers.detail_transfer import transfer
from diffgen.editing.levers.harmonise import harmonise
from diffgen.editing.levers.lights import with_lights
from diffgen.editing.levers.match import matched
from diffgen.editing.levers.restore import lost_objects, with_objects
from diffgen.editing.levers.sensor import exposed
from diffgen.editing.tasks import working_mask
from diffgen.errors import TransientError
from diffgen.run.sources import Picture
from diffgen.types import Job, Record, Settings, Source

# Grey level that stands in for a source that does not decode, so the other images keep their rows in the batch (the last
# bits of a result depend on the batch). Also the "source" of text-to-image pictures.
_BLANK = 128
RESTORED_FEATHER = 4  # px of the working size, around objects that are restored


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """A source ready to be edited at the size of `canvas`, or the record of why it is not."""

    picture: Picture
    canvas: Canvas
    failure: Record | None = None

    @property
    def scale(self) -> float:
        """Source pixels for each pixel of the working size."""
        return float(self.picture.pixels.shape[1] / self.canvas.inner[0])


def blank(source: Source) -> Picture:
    """A grey picture of the source's size."""
    return Picture(np.full((source.height, source.width, 3), _BLANK, dtype=np.uint8))


@dataclass(frozen=True, slots=True)
class Row:
    """One image of an editor's batch: a picture at the working size, or the tile `view` of it. `mask` is set if objects
    have a strength of their own, or a task paints."""

    image: Pixels
    job: Job
    mask: Mask | None
    view: View
    maps: tuple[Pixels, ...]


def rows_of(opened: OpenedSource, job: Job, maps: tuple[Pixels, ...] = ()) -> list[Row]:
    """The rows of a picture: one for the whole picture, or one for each tile. `maps` are as large as the working picture,
    one for each of the settings' controls."""
    settings, image = job.settings, opened.picture.fitted(opened.canvas)
    mask = working_mask(opened.picture.shapes, job, opened.canvas)
    views = views_for(opened.canvas, settings)
    if len(views) == 1:
        return [Row(image, job, mask, views[0], maps)]
    side = settings.tile_side // settings.multiple * settings.multiple

    def tile(view: View) -> Row:
        pieces = tuple(cut(whole, view, side) for whole in maps)
        return Row(cut(image, view, side), job, None if mask is None else cut(mask, view, side), view, pieces)

    return [tile(view) for view in views]


def batch_of(rows: Sequence[Row]) -> EditBatch:
    """An editor's batch of rows with equal settings and size. All rows have a mask or none has; the same for maps."""
    masks = [row.mask for row in rows if row.mask is not None]
    return EditBatch(
        [row.image for row in rows],
        [row.job for row in rows],
        masks or None,
        [row.view for row in rows],
        [row.maps for row in rows] if rows[0].maps else None,
    )


def with_levers(
    opened: OpenedSource, job: Job, pixels: Pixels, target: Pixels | None = None
) -> tuple[Pixels, dict[str, Any]]:
    """Match the light of less-edited objects to the scene, bring back the source's detail and lost objects, take on the tone
    of a `target`, light lamps, and add what a camera adds; at the source's size. Also the facts of that: `restored`, the
    label rows restored."""
    settings, source, shapes = job.settings, opened.picture.pixels, opened.picture.shapes
    scene, objects = settings.detail or 0.0, settings.object_detail or 0.0
    weaker_objects = settings.object_strength is not None and settings.object_strength < settings.strength
    amount: Mask | float = scene
    facts: dict[str, Any] = {}
    if shapes and (weaker_objects or objects):
        mask = object_mask(shapes, *native_canvas(opened, settings))
        if weaker_objects:
            pixels = harmonise(source, pixels, mask)
        if objects:
            amount = np.asarray(scene + (max(scene, objects) - scene) * mask, dtype=np.float32)
    if np.any(amount):
        pixels = transfer(source, pixels, amount)
    if shapes and settings.object_restore is not None:
        rows = lost_objects(opened.picture.view.field, pixels, shapes, settings.object_restore)
        pixels = with_objects(source, pixels, shapes, rows, RESTORED_FEATHER * opened.scale)
        facts = {"restored": list(rows)} if rows else {}
    if settings.match is not None and target is not None:
        pixels = matched(pixels, target, settings.match.method, settings.match.amount)
    if settings.lights is not None:
        pixels = with_lights(pixels, source, shapes, settings.lights, job.seed)
    return pixels if settings.sensor is None else exposed(pixels, settings.sensor, job.seed), facts


def native_canvas(opened: OpenedSource, settings: Settings) -> tuple[Canvas, float]:
    """The canvas for masks at the source's size, and the feather in source pixels."""
    height, width = opened.picture.pixels.shape[:2]
    return identity_canvas(width, height), (settings.feather or 0) * opened.scale


def join_tiles(edited: Sequence[Edited | TransientError], rows: Sequence[Row]) -> Edited | TransientError:
    """A picture joined from its edited tiles, or the first tile's error."""
    tiles: list[Edited] = []
    for tile in edited:
        if isinstance(tile, TransientError):
            return tile
        tiles.append(tile)
    if len(tiles) == 1:
        return tiles[0]
    return replace(tiles[0], image=merge([tile.image for tile in tiles], [row.view for row in rows]))


def round_trip(opened: OpenedSource, job: Job, through: Callable[[Pixels], Pixels]) -> Pixels:
    """The source, (H, W, 3), after `through` at the working size: what the model's VAE alone makes of it. One image at a
    time, and not in a batch, so that it is the same in a run that was stopped."""
    rows = rows_of(opened, job)
    return unfit(merge([through(row.image) for row in rows], [row.view for row in rows]), opened.canvas)
