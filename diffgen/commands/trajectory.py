"""`diffgen preview --trajectory`: the denoising steps of single images in one picture, to see what strength does.

img2img adds noise to the source up to the level that strength sets, and denoises from there. instruct starts from pure
noise with the source as a condition; strength sets the share of the change that is kept. text2img has no source.
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
from diffgen.errors import TransientError, UsageError
from diffgen.files import write_atomically
from diffgen.output.contact_sheet import Tile, contact_sheet, png, source_shapes, source_tile
from diffgen.recipe.load import LoadedRecipe
from diffgen.run.session import Notify, Session
from diffgen.run.store.store import RunStore
from diffgen.types import Item

TILE = 300  # pixels; rows are long


def preview_trajectory(
    loaded: LoadedRecipe,
    request: PreviewRequest,
    *,
    make_editor: Callable[[], Editor] | None = None,
    notify: Notify = lambda _: None,
) -> Path:
    """Draw the steps in the run folder, with a row for each image, and return its path.

    Each image is made in a batch of its own, and none is kept. Raises DiffgenError.
    """
    session = Session.open(loaded)
    if session.recipe.resolution.mode != "fit":
        raise UsageError("--trajectory shows whole pictures, not tiles", "add --set resolution.mode=fit")
    if make_editor is None:
        session = session.fetched()
    images = preview_images(session, request)
    with RunStore(session.folder, session.recipe.image.format):
        session.write_recipe(replace_old=False)
        editor, maps = (make_editor(), Maps({})) if make_editor else _loaded(session, notify)
        rows = []
        for image in images:
            source = image.item.source
            notify(f"{source.key} under {image.label}")
            shapes = source_shapes(source, session.dataset)
            first = replace(source_tile(source, shapes), caption=f"{source.key}\n{image.label}")
            after = tuple(labelled(shapes, image.item.job))
            steps = trajectory(editor, image.item, shapes, maps)
            rows.append([first, *(Tile(pixels, caption, after) for caption, pixels in steps)])
        path = session.folder / request.file_name("trajectory")
        write_atomically(path, png(contact_sheet(rows, session.dataset.names, TILE)))
    return path


def trajectory(editor: Editor, item: Item, shapes: tuple[Shape, ...], maps: Maps) -> list[tuple[str, Pixels]]:
    """(caption, picture at the source's size) of each step and, last, of the edit as the model made it, without `detail`.

    Raises SourceError when the source does not decode.
    """
    source, settings = item.source, item.job.settings
    canvas = working_canvas(source.width, source.height, settings)
    mask = working_mask(shapes, item.job, canvas)
    steps: list[tuple[str, Pixels]] = []

    def watch(caption: str, images: list[Pixels]) -> None:
        steps.append((caption, unfit(images[0], canvas)))

    if source.text is None:
        image = fit(decode(Path(source.path).read_bytes()), canvas)
    else:
        image = np.zeros((canvas.size[1], canvas.size[0], 3), np.uint8)  # text2img uses only its size
    inputs = settings.controls or ()
    controls = [maps(wanted, image) if wanted.folder is None else kept_map(source, wanted, canvas) for wanted in inputs]
    masks, views = None if mask is None else [mask], views_for(canvas, settings)
    batch = EditBatch([image], [item.job], masks, views, [controls] if controls else None, watch)
    (edited,) = editor.edit(batch)
    if isinstance(edited, TransientError):
        raise edited
    return [*steps, (f"the edit, strength {edited.strength:.2f}", unfit(edited.image, canvas))]


def _loaded(session: Session, notify: Notify) -> tuple[Editor, Maps]:
    session = session.on_device()
    assert session.device is not None
    device = session.device
    notify(f"model {session.model.name}, {device.reason}")
    return load_editor(session.model, device.name, device.dtype), load_maps(session.model, device.name)
