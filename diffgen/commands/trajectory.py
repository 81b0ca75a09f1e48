"""The way of single images from their source through noise to the edit, in one picture: what strength does.

It shows what the editor's family does: img2img noises the source as far as its strength says and denoises it from there;
instruct begins at pure noise with the source as a condition, and strength says how much of the change is taken; text2img has
no source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from diffgen.checks.tasks import labelled
from diffgen.commands.sweeps import PreviewRequest, preview_images
from diffgen.dataset.geometry import fit, unfit, views_for, working_canvas
from diffgen.dataset.images import Pixels, decode
from diffgen.dataset.labels import Shape
from diffgen.editing.control_maps import Maps, kept_map, load_maps
from diffgen.editing.editor import EditBatch, Editor
from diffgen.editing.families import load_editor
from diffgen.editing.tasks import working_mask
from diffgen.errors import UsageError
from diffgen.files import write_atomically
from diffgen.output.contact_sheet import Tile, contact_sheet, png, source_shapes, source_tile
from diffgen.recipe.load import LoadedRecipe
from diffgen.run.session import Notify, Session
from diffgen.run.store.store import RunStore
from diffgen.types import Item

PICTURE = "trajectory.png"
TILE = 300  # pixels; rows are long


def preview_trajectory(
    loaded: LoadedRecipe,
    request: PreviewRequest,
    *,
    make_editor: Callable[[], Editor] | None = None,
    notify: Notify = lambda _: None,
) -> Path:
    """Draw trajectory.png in the run folder, a row for each image to look at, and return its path.

    Each image is made on its own, and none of them is kept. Raises DiffgenError.
    """
    session = Session.open(loaded)
    if session.recipe.resolution.mode != "fit":
        raise UsageError("--trajectory shows whole pictures, not tiles", "add --set resolution.mode=fit")
    if make_editor is None:
        session = session.fetched()
    cells = preview_images(session, request)
    with RunStore(session.folder, session.recipe.image.format):
        session.write_recipe(replace_old=False)
        editor, maps = (make_editor(), Maps({})) if make_editor else _loaded(session, notify)
        rows = []
        for cell in cells:
            source = cell.item.source
            notify(f"{source.key} under {cell.label}")
            shapes = source_shapes(source, session.dataset)
            first = replace(source_tile(source, shapes), caption=f"{source.key}\n{cell.label}")
            after = tuple(labelled(shapes, cell.item.job))
            rows.append(
                [first, *(Tile(seen, caption, after) for caption, seen in trajectory(editor, cell.item, shapes, maps))]
            )
        path = session.folder / PICTURE
        write_atomically(path, png(contact_sheet(rows, session.dataset.names, TILE)))
    return path


def trajectory(editor: Editor, item: Item, shapes: tuple[Shape, ...], maps: Maps) -> list[tuple[str, Pixels]]:
    """(what is seen, the picture at the source's size) in turn, the edit last: as the model made it, without `detail`.

    Raises SourceError for a source that does not decode.
    """
    source, settings = item.source, item.job.settings
    canvas = working_canvas(source.width, source.height, settings)
    mask = working_mask(shapes, item.job, canvas)
    seen: list[tuple[str, Pixels]] = []

    def watch(caption: str, images: list[Pixels]) -> None:
        seen.append((caption, unfit(images[0], canvas)))

    if source.text is None:
        image = fit(decode(Path(source.path).read_bytes()), canvas)
    else:
        image = np.zeros((canvas.size[1], canvas.size[0], 3), np.uint8)  # made from noise: only the size counts
    guides = settings.controls or ()
    controls = [maps(guide, image) if guide.folder is None else kept_map(source, guide, canvas) for guide in guides]
    batch = EditBatch(
        [image],
        [item.job],
        None if mask is None else [mask],
        views_for(canvas, settings),
        [controls] if controls else None,
        watch,
    )
    (edited,) = editor.edit(batch)
    return [*seen, (f"the edit, strength {edited.strength:.2f}", unfit(edited.image, canvas))]


def _loaded(session: Session, notify: Notify) -> tuple[Editor, Maps]:
    session = session.on_device()
    assert session.device is not None
    device = session.device
    notify(f"model {session.model.name}, {device.reason}")
    return load_editor(session.model, device.name, device.dtype), load_maps(session.model, device.name)
