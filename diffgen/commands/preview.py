"""`diffgen preview`: a few sources under every condition, or with swept settings, in one picture.

The images go into the run folder, so a later run does not make them again. Images of the recipe are made in the run's own
whole batches, so the run gives the same bytes as without a preview.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from diffgen.commands.sweeps import PreviewImage, PreviewRequest, preview_images
from diffgen.files import image_path, shown, write_atomically
from diffgen.models.networks import require_detector_file
from diffgen.output.contact_sheet import Tile, contact_sheet, png, source_shapes, source_tile
from diffgen.plan.batches import cut_batches, pending_batches
from diffgen.plan.plan import Plan
from diffgen.recipe.load import LoadedRecipe
from diffgen.recipe.sections import Condition
from diffgen.run.interrupts import STOP_CODES
from diffgen.run.loop import Making
from diffgen.run.progress import Progress
from diffgen.run.session import Notify, Session, make_ready
from diffgen.run.store.store import RunStore
from diffgen.run.worker_setup import MakeWorker
from diffgen.types import Batch, Source


@dataclass(frozen=True, slots=True)
class Preview:
    """The picture that was drawn (None if interrupted) and the images it shows, row by row."""

    path: Path | None
    made_now: int
    images: list[PreviewImage]
    stopped: str | None = None

    @property
    def exit_code(self) -> int:
        """0 drawn, 1 none of the images could be made, 129, 130 and 143 interrupted."""
        if self.stopped is not None:
            return STOP_CODES[self.stopped]
        return 0 if any(image.made for image in self.images) else 1

    def to_dict(self) -> dict[str, Any]:
        path = None if self.path is None else str(self.path)
        tiles = [image.facts() for image in self.images]
        return {"preview": path, "made_now": self.made_now, "stopped": self.stopped, "tiles": tiles}


def preview(
    loaded: LoadedRecipe,
    request: PreviewRequest,
    *,
    make_worker: MakeWorker | None = None,
    progress: Progress | None = None,
    notify: Notify = lambda _: None,
) -> Preview:
    """Make the images that are not made yet, and draw them in the run folder.

    Raises DiffgenError. A second identical call makes nothing and does not import torch.
    """
    session = Session.open(loaded)
    session.check_runnable()
    images = preview_images(session, request)
    with RunStore(session.folder, session.recipe.image.format) as store:
        for line in store.repaired:
            notify(f"repaired: {line}")
        session.write_recipe(replace_old=False)  # an existing run folder keeps the recipe of its dataset
        made_now, stopped = 0, None
        if _missing(images, store):
            require_detector_file(session.model.observers)
            session, batch_size, make = make_ready(session, store, make_worker, notify)
            images = preview_images(session, request)  # job ids may change now that the model's commit is known
            batches = _batches(session.plan, images, store, batch_size)
            count = len({item.job.id for batch in batches for item in batch.items} - store.done)
            more = f" (whole batches; {len(images)} of them are shown)" if count > len(images) else ""
            notify(f"{count} images to make in {shown(store.folder)}{more}")
            making = Making(session, store, progress or Progress(), notify, deadline=None, total=count)
            made_now, stopped = making.run(iter(batches), make)
        records = store.present
    images = [image.judged(records) for image in images]
    if stopped is not None:
        return Preview(None, made_now, images, stopped)
    path = session.folder / request.file_name("preview")
    write_atomically(path, png(_sheet(session, images, swept=bool(request.sweeps))))
    return Preview(path, made_now, images)


def _missing(images: Sequence[PreviewImage], store: RunStore) -> set[str]:
    return {image.item.job.id for image in images} - store.done


def _batches(plan: Plan, images: Sequence[PreviewImage], store: RunStore, batch_size: int) -> list[Batch]:
    """The run's own batches that have a missing image, and batches of the images that the run does not make.

    The latter have swept settings, or conditions that the run gives to other sources.
    """
    missing = _missing(images, store)
    of_run = [batch for batch in cut_batches(plan.items, batch_size) if any(i.job.id in missing for i in batch.items)]
    extra = missing - {item.job.id for batch in of_run for item in batch.items}
    extra_items = [image.item for image in images if image.item.job.id in extra]
    return pending_batches([*of_run, *cut_batches(extra_items, batch_size)], store.done, store.records.keys())


def _sheet(session: Session, images: Sequence[PreviewImage], swept: bool) -> Image.Image:
    """A row for each source; with swept settings, for each source and condition."""

    def row_of(image: PreviewImage) -> tuple[str, str]:
        return image.item.source.key, image.item.job.settings.condition if swept else ""

    rows, shown = [], {image.label for image in images}
    conditions = [condition for condition in session.recipe.conditions if condition.name in shown]
    for _, group in itertools.groupby(images, key=row_of):
        row = list(group)
        source = row[0].item.source
        first = source_tile(source, source_shapes(source, session.dataset))
        tiles = {image.label: _tile(image, session) for image in row}
        if not swept:  # a column for each condition, also where a picture is not edited under one
            tiles = {c.name: tiles.get(c.name) or _not_planned(c, source) for c in conditions}
        rows.append([first, *tiles.values()])
    return contact_sheet(rows, session.dataset.names)


def _not_planned(condition: Condition, source: Source) -> Tile:
    looks = ", ".join(look for look in source.looks if look in (condition.skip_if or ()))
    return Tile(None, f"{condition.name}: not planned for this picture{f' ({looks})' if looks else ''}")


def _tile(image: PreviewImage, session: Session) -> Tile:
    facts = image.facts()
    if facts["verdict"] == "failed":
        return Tile(None, f"{image.label}: failed\n{facts['error']}", good=False)
    accepted = facts["verdict"] == "accepted"
    verdict = f"{image.label}: {'accepted' if accepted else 'rejected, ' + facts['verdict']}"
    lines = [verdict, "   ".join(_settings(facts)), "   ".join(_scores(facts))]
    picture = image_path(session.folder, image.item.job.id, session.recipe.image.format)
    return Tile(picture, "\n".join(line for line in lines if line), image.entry.shapes(session.dataset), accepted)


def _settings(facts: dict[str, Any]) -> Iterator[str]:
    yield f"strength {facts['strength']:.2f}"
    if facts["object_strength"] is not None:
        yield f"objects {facts['object_strength']:.2f}"
    yield f"contrast {facts['contrast']:.3f}"
    if facts["shift_px"] is not None:
        yield f"shift {facts['shift_px']:.1f} px"


def _scores(facts: dict[str, Any]) -> Iterator[str]:
    for key in ("structure", "recall", "change", "effect", "clip"):
        if facts[key] is not None:
            yield f"{key} {facts[key]:.2f}"
    if facts["new_objects"] is not None:
        yield f"new objects {facts['new_objects']}"
