"""A few sources under every condition, or under swept settings, in one picture: what a run would make, seen before it.

It fills the run folder that the run then goes on with, so nothing that is shown is made twice. Images of the recipe itself
are made in the run's own batches, each as a whole, so that a run comes out with the same bytes as without a preview.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from diffgen.commands.sweeps import PreviewImage, PreviewRequest, preview_images
from diffgen.files import image_path, write_atomically
from diffgen.output.contact_sheet import Tile, contact_sheet, made_shapes, png, read_shapes, source_tile
from diffgen.output.outcome import judge_attempt
from diffgen.plan.batches import cut_batches, pending_batches
from diffgen.plan.plan import Plan
from diffgen.recipe.load import LoadedRecipe
from diffgen.run.loop import make_images
from diffgen.run.progress import Progress, Silent
from diffgen.run.session import Notify, keep_recipe, make_ready, prepare
from diffgen.run.store.store import RunStore
from diffgen.run.summary import STOP_CODES
from diffgen.run.worker_setup import Detectors, MakeWorker
from diffgen.types import Batch, Record

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
    look: PreviewRequest,
    *,
    make_worker: MakeWorker | None = None,
    progress: Progress | None = None,
    talk: Notify = lambda _: None,
) -> Preview:
    """Make what the picture needs and is not made yet, and draw it as preview.png in the run folder.

    Raises DiffgenError. A second identical call makes nothing and loads no torch.
    """
    prepared = prepare(loaded)
    cells = preview_images(loaded, look, prepared.plan, prepared.model)
    with RunStore(prepared.output, loaded.recipe.image.format) as store:
        keep_recipe(store, loaded)
        made_now, stopped = 0, None
        if _missing(cells, store):
            judges = Detectors(loaded.detector)
            prepared, batch_size, make = make_ready(store, prepared, judges, make_worker, talk)
            cells = preview_images(loaded, look, prepared.plan, prepared.model)  # now that the model's commit is known
            batches = _batches(prepared.plan, cells, store, batch_size)
            count = len({item.job.id for batch in batches for item in batch.items} - store.done())
            talk(f"{count} images to make in {store.folder}")
            rounds = iter([batches])
            made_now, stopped = make_images(store, prepared, rounds, make, None, progress or Silent(), talk)
        records = store.present()
        cells = [_judged(cell, records, prepared.plan) for cell in cells]
        if stopped is not None:
            return Preview(None, made_now, cells, stopped)
        path = store.folder / PICTURE
        write_atomically(path, png(_sheet(store, prepared.plan, cells, swept=bool(look.sweeps))))
    return Preview(path, made_now, cells)


def _missing(cells: Sequence[PreviewImage], store: RunStore) -> set[str]:
    return {cell.item.job.id for cell in cells} - store.done()


def _judged(cell: PreviewImage, records: dict[str, Record], plan: Plan) -> PreviewImage:
    return replace(cell, judged=judge_attempt(cell.item, cell.checks, records.get(cell.item.job.id), plan))


def _batches(plan: Plan, cells: Sequence[PreviewImage], store: RunStore, batch_size: int) -> list[Batch]:
    """What is to be made: the run's own batches that hold a missing image, as a run would make them, and batches of what
    the run has no place for (swept settings, conditions that are other sources')."""
    missing = _missing(cells, store)
    own = [batch for batch in cut_batches(plan.items, batch_size) if any(i.job.id in missing for i in batch.items)]
    placed = {item.job.id for batch in own for item in batch.items}
    others = [cell.item for cell in cells if cell.item.job.id in missing - placed]
    return pending_batches([*own, *cut_batches(others, batch_size)], store.done(), store.records.keys())


def _sheet(store: RunStore, plan: Plan, cells: Sequence[PreviewImage], swept: bool) -> Image.Image:
    """A row for each source; where settings are swept, for each source and condition."""

    def row_of(cell: PreviewImage) -> tuple[str, str]:
        return cell.item.source.key, cell.item.job.settings.condition if swept else ""

    rows = []
    for _, group in itertools.groupby(cells, key=row_of):
        row = list(group)
        source = row[0].item.source
        rows.append([source_tile(source, read_shapes(source, plan)), *(_tile(cell, store, plan) for cell in row)])
    return contact_sheet(rows, plan.dataset.names)


def _tile(cell: PreviewImage, store: RunStore, plan: Plan) -> Tile:
    facts = cell.facts()
    if facts["verdict"] == "failed":
        return Tile(None, f"{cell.label}: failed\n{facts['error']}", good=False)
    accepted = facts["verdict"] == "accepted"
    verdict = f"{cell.label}: {'accepted' if accepted else 'rejected, ' + facts['verdict']}"
    lines = [verdict, "   ".join(_settings(facts)), "   ".join(_scores(facts))]
    picture = image_path(store.folder, cell.item.job.id, store.image_format)
    return Tile(picture, "\n".join(line for line in lines if line), made_shapes(cell.judged, plan), accepted)


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
