"""A few sources under every condition, or under swept settings, in one picture: what a run would make, seen before it.

It fills the run folder that the run then goes on with, so nothing that is shown is made twice. Images of the recipe itself
are made in the run's own batches, each as a whole, so that a run comes out with the same bytes as without a preview.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from diffgen.commands.sweeps import PreviewImage, PreviewRequest, preview_images
from diffgen.files import image_path, write_atomically
from diffgen.models.networks import require_detector_file
from diffgen.output.contact_sheet import Tile, contact_sheet, png, source_shapes, source_tile
from diffgen.plan.batches import cut_batches, pending_batches
from diffgen.plan.plan import Plan
from diffgen.recipe.load import LoadedRecipe
from diffgen.run.loop import Making
from diffgen.run.progress import Progress, Silent
from diffgen.run.session import Notify, Session, make_ready
from diffgen.run.store.store import RunStore
from diffgen.run.summary import STOP_CODES
from diffgen.run.worker_setup import MakeWorker
from diffgen.types import Batch

PICTURE = "preview.png"


@dataclass(frozen=True, slots=True)
class Preview:
    """The picture that was drawn (None when it was interrupted) and what it shows, row by row."""

    path: Path | None
    made_now: int
    cells: list[PreviewImage]
    stopped: str | None = None

    @property
    def exit_code(self) -> int:
        """0 drawn, 1 none of the images could be made, 130 and 143 interrupted."""
        if self.stopped is not None:
            return STOP_CODES[self.stopped]
        return 0 if any(cell.made for cell in self.cells) else 1

    def to_dict(self) -> dict[str, Any]:
        path = None if self.path is None else str(self.path)
        tiles = [cell.facts() for cell in self.cells]
        return {"preview": path, "made_now": self.made_now, "stopped": self.stopped, "tiles": tiles}


def preview(
    loaded: LoadedRecipe,
    request: PreviewRequest,
    *,
    make_worker: MakeWorker | None = None,
    progress: Progress | None = None,
    notify: Notify = lambda _: None,
) -> Preview:
    """Make what the picture needs and is not made yet, and draw it as preview.png in the run folder.

    Raises DiffgenError. A second identical call makes nothing and loads no torch.
    """
    session = Session.open(loaded)
    cells = preview_images(session, request)
    with RunStore(session.folder, session.recipe.image.format) as store:
        session.write_recipe(replace_old=False)  # the recipe of a run stays the one that its dataset was made by
        made_now, stopped = 0, None
        if _missing(cells, store):
            require_detector_file(session.model.observers)
            session, batch_size, make = make_ready(session, store, make_worker, notify)
            cells = preview_images(session, request)  # now that the model's commit is known
            batches = _batches(session.plan, cells, store, batch_size)
            count = len({item.job.id for batch in batches for item in batch.items} - store.done())
            notify(f"{count} images to make in {store.folder}")
            making = Making(session, store, progress or Silent(), notify)
            made_now, stopped = making.run(iter([batches]), make)
        records = store.present()
    cells = [cell.judged(records) for cell in cells]
    if stopped is not None:
        return Preview(None, made_now, cells, stopped)
    path = session.folder / PICTURE
    write_atomically(path, png(_sheet(session, cells, swept=bool(request.sweeps))))
    return Preview(path, made_now, cells)


def _missing(cells: Sequence[PreviewImage], store: RunStore) -> set[str]:
    return {cell.item.job.id for cell in cells} - store.done()


def _batches(plan: Plan, cells: Sequence[PreviewImage], store: RunStore, batch_size: int) -> list[Batch]:
    """The batches to make: the run's own that hold a missing image, and batches of what the run has no place for.

    The latter are swept settings, and conditions that the run gives to other sources.
    """
    missing = _missing(cells, store)
    own = [batch for batch in cut_batches(plan.items, batch_size) if any(i.job.id in missing for i in batch.items)]
    placed = {item.job.id for batch in own for item in batch.items}
    others = [cell.item for cell in cells if cell.item.job.id in missing - placed]
    return pending_batches([*own, *cut_batches(others, batch_size)], store.done(), store.records.keys())


def _sheet(session: Session, cells: Sequence[PreviewImage], swept: bool) -> Image.Image:
    """A row for each source; where settings are swept, for each source and condition."""

    def row_of(cell: PreviewImage) -> tuple[str, str]:
        return cell.item.source.key, cell.item.job.settings.condition if swept else ""

    rows = []
    for _, group in itertools.groupby(cells, key=row_of):
        row = list(group)
        source = row[0].item.source
        first = source_tile(source, source_shapes(source, session.dataset))
        rows.append([first, *(_tile(cell, session) for cell in row)])
    return contact_sheet(rows, session.dataset.names)


def _tile(cell: PreviewImage, session: Session) -> Tile:
    facts = cell.facts()
    if facts["verdict"] == "failed":
        return Tile(None, f"{cell.label}: failed\n{facts['error']}", good=False)
    accepted = facts["verdict"] == "accepted"
    verdict = f"{cell.label}: {'accepted' if accepted else 'rejected, ' + facts['verdict']}"
    lines = [verdict, "   ".join(_settings(facts)), "   ".join(_scores(facts))]
    picture = image_path(session.folder, cell.item.job.id, session.recipe.image.format)
    return Tile(picture, "\n".join(line for line in lines if line), cell.entry.shapes(session.dataset), accepted)


def _settings(facts: dict[str, Any]) -> Iterator[str]:
    yield f"strength {facts['strength']:.2f}"
    if facts["object_strength"] is not None:
        yield f"objects {facts['object_strength']:.2f}"
    yield f"contrast {facts['contrast']:.2f}"
    if facts["shift_px"] is not None:
        yield f"shift {facts['shift_px']:.1f} px"


def _scores(facts: dict[str, Any]) -> Iterator[str]:
    for key in ("structure", "recall", "happened", "clip"):
        if facts[key] is not None:
            yield f"{key} {facts[key]:.2f}"
    if facts["new_objects"] is not None:
        yield f"new objects {facts['new_objects']}"
