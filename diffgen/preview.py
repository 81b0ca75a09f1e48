"""A few sources under every condition, or under swept settings, in one picture: what a run would make, seen before it.

It fills the run folder that the run then goes on with, so nothing that is shown is made twice. Images of the recipe itself
are made in the run's own batches, each as a whole, so that a run comes out with the same bytes as without a preview.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from diffgen.blend import require_masks
from diffgen.checks import judge, judged_recall, judged_structure
from diffgen.errors import DiffgenError, UsageError
from diffgen.models import aliases
from diffgen.plan import Plan, cut_batches, edits_of, pending_batches
from diffgen.progress import Progress, Silent
from diffgen.recipe import Checks, LoadedRecipe, overridden
from diffgen.run import STOP_CODES, Prepared, Talk, make_images, make_ready, prepare
from diffgen.sheet import Tile, contact_sheet, read_shapes
from diffgen.store import RunStore, image_path, write_atomically
from diffgen.types import Batch, Item, Record, Source
from diffgen.worker import Judges, MakeWorker
from diffgen.yamltree import read_yaml

PICTURE = "preview.png"
UNSWEPT = ("name", "share")  # they say which images there are, not how they look


@dataclass(frozen=True, slots=True)
class Sweep:
    """A field of a condition, and the values that it takes in turn."""

    field: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """The recipe with one value of each sweep; `settings` are those values, by field."""

    settings: dict[str, Any]
    loaded: LoadedRecipe


@dataclass(frozen=True, slots=True)
class Cell:
    """One image of the preview: its first attempt, by which checks it is judged, and its record when there is one."""

    item: Item
    settings: dict[str, Any]
    checks: Checks
    record: Record | None = None

    def facts(self) -> dict[str, Any]:
        """What is known of it, JSON-ready."""
        job, record = self.item.job, self.record
        about = {"source": self.item.source.key, "condition": job.settings.condition, **self.settings, "job": job.id}
        if record is None:
            return {**about, "verdict": None}
        if record.status != "made":
            return {**about, "verdict": "failed", "error": record.error}
        verdict = judge(record, self.checks, job.settings.condition)
        return {
            **about,
            "verdict": "accepted" if verdict.accepted else verdict.reason,
            "structure": judged_structure(record.facts),
            "recall": judged_recall(record.facts),
            "shift_px": record.facts["shift_px"],
            "strength": record.facts["strength"],
            "object_strength": record.facts.get("object_strength"),
        }


@dataclass(frozen=True, slots=True)
class Preview:
    """The picture that was drawn (None when it was interrupted) and what it shows, row by row."""

    path: Path | None
    made_now: int
    cells: list[Cell]
    stopped: str | None = None

    @property
    def exit_code(self) -> int:
        """0 drawn, 1 none of the images could be made, 130 and 143 interrupted."""
        if self.stopped is not None:
            return STOP_CODES[self.stopped]
        return 0 if any(cell.record is not None and cell.record.status == "made" for cell in self.cells) else 1

    def to_dict(self) -> dict[str, Any]:
        path = None if self.path is None else str(self.path)
        tiles = [cell.facts() for cell in self.cells]
        return {"preview": path, "made_now": self.made_now, "stopped": self.stopped, "tiles": tiles}


def read_sweep(text: str) -> Sweep:
    """`strength=0.3,0.5`: a field of a condition and its values, each as YAML. Raises UsageError."""
    field, sign, values = text.partition("=")
    found = read_yaml(f"[{values}]", Path(f"--sweep {text}"))
    if not sign or not field.strip() or not found:
        raise UsageError(f"--sweep {text}: not of the form field=value,value", "for example --sweep strength=0.3,0.5")
    if field in UNSWEPT:
        raise UsageError(f"--sweep {text}: '{field}' changes no image", "sweep strength, guidance, steps, detail, …")
    return Sweep(field.strip(), tuple(found))


def preview(
    loaded: LoadedRecipe,
    *,
    number: int = 4,
    conditions: Sequence[str] = (),
    sweeps: Sequence[Sweep] = (),
    make_worker: MakeWorker | None = None,
    progress: Progress | None = None,
    talk: Talk = lambda _: None,
) -> Preview:
    """Make what the picture needs and is not made yet, and draw it as preview.png in the run folder.

    `conditions` are those to show, all when empty. Raises DiffgenError; a second identical call makes nothing and loads no
    torch.
    """
    prepared = prepare(loaded)
    variants = _variants(loaded, _names(loaded, conditions), sweeps)
    cells = _cells(prepared, variants, number)
    with RunStore(prepared.output, loaded.recipe.image.format) as store:
        if not (store.folder / "recipe.yaml").exists():  # that of a run stays what its dataset was made by
            write_atomically(store.folder / "recipe.yaml", loaded.to_yaml(store.folder, aliases()))
        made_now, stopped = 0, None
        if _missing(cells, store):
            judges = Judges(loaded.detector, loaded.clip)
            prepared, batch_size, make = make_ready(store, prepared, judges, make_worker, talk)
            cells = _cells(prepared, variants, number)  # again: now the model's commit is known
            batches = _batches(prepared.plan, cells, store, batch_size)
            count = len({item.job.id for batch in batches for item in batch.items} - store.done())
            talk(f"{count} images to make in {store.folder}")
            rounds = iter([batches])
            made_now, stopped = make_images(store, loaded.recipe, rounds, make, None, progress or Silent(), talk)
        records = store.present()
        cells = [replace(cell, record=records.get(cell.item.job.id)) for cell in cells]
        if stopped is not None:
            return Preview(None, made_now, cells, stopped)
        path = store.folder / PICTURE
        write_atomically(path, _png(_sheet(store, prepared.plan, cells, swept=bool(sweeps))))
    return Preview(path, made_now, cells)


def _names(loaded: LoadedRecipe, wanted: Sequence[str]) -> list[str]:
    names = [condition.name for condition in loaded.recipe.conditions]
    if unknown := [name for name in wanted if name not in names]:
        raise UsageError(
            f"--condition {unknown[0]}: the recipe has no such condition", f"its conditions: {', '.join(names)}"
        )
    return [name for name in names if not wanted or name in wanted]


def _variants(loaded: LoadedRecipe, names: Sequence[str], sweeps: Sequence[Sweep]) -> list[Variant]:
    """The recipe for each combination of the swept values, with the conditions of `names` alone."""
    found = []
    for values in itertools.product(*(sweep.values for sweep in sweeps)):
        settings = dict(zip((sweep.field for sweep in sweeps), values, strict=True))
        sets = [
            f"conditions.{name}.{key}={json.dumps(value, default=str)}"
            for name in names
            for key, value in settings.items()
        ]
        changed = overridden(loaded, sets)
        kept = [condition for condition in changed.recipe.conditions if condition.name in names]
        recipe = changed.recipe.model_copy(update={"conditions": kept})
        found.append(Variant(settings, LoadedRecipe(recipe, changed.path, changed.raw)))
    return found


def _cells(prepared: Prepared, variants: Sequence[Variant], number: int) -> list[Cell]:
    """The images to show: for each source, for each condition, for each combination of swept values.

    The sources are the first to be edited in plan order, those with objects before those without. All conditions are shown
    of each, also those that the recipe's `share` or `assign` gives to other sources.
    """
    shown = sorted((source for source, _ in prepared.plan.edits), key=lambda source: not source.counts)[:number]
    if not shown:
        raise DiffgenError("the recipe selects no source to edit", "'diffgen plan' says why")
    columns = []
    for variant in variants:
        recipe = variant.loaded.recipe
        edits = edits_of(recipe, prepared.model)
        plan = replace(prepared.plan, edits=tuple((source, edits) for source in shown), variants=1)
        if plan.needs_masks:
            require_masks()
        checks = {condition.name: recipe.checks_for(condition) for condition in recipe.conditions}
        columns.append([Cell(item, variant.settings, checks[item.job.settings.condition]) for item in plan.items])
    return [cell for row in zip(*columns, strict=True) for cell in row]


def _missing(cells: Sequence[Cell], store: RunStore) -> set[str]:
    return {cell.item.job.id for cell in cells} - store.done()


def _batches(plan: Plan, cells: Sequence[Cell], store: RunStore, batch_size: int) -> list[Batch]:
    """What is to be made: the run's own batches that hold a missing image, as a run would make them, and batches of what
    the run has no place for (swept settings, conditions that are other sources')."""
    missing = _missing(cells, store)
    own = [batch for batch in cut_batches(plan.items, batch_size) if any(i.job.id in missing for i in batch.items)]
    placed = {item.job.id for batch in own for item in batch.items}
    others = [cell.item for cell in cells if cell.item.job.id in missing - placed]
    return pending_batches([*own, *cut_batches(others, batch_size)], store.done(), store.records.keys())


def _sheet(store: RunStore, plan: Plan, cells: Sequence[Cell], swept: bool) -> Image.Image:
    """A row for each source; where settings are swept, for each source and condition."""

    def row_of(cell: Cell) -> tuple[str, str]:
        return cell.item.source.key, cell.item.job.settings.condition if swept else ""

    rows = []
    for _, group in itertools.groupby(cells, key=row_of):
        row = list(group)
        source = row[0].item.source
        shapes = read_shapes(source, plan)
        tiles = [_tile(cell, store, shapes) for cell in row]
        rows.append([Tile(Path(source.path), _size(source), shapes), *tiles])
    return contact_sheet(rows, plan.dataset.names)


def _size(source: Source) -> str:
    return f"{source.key}\n{source.width} × {source.height} px"


def _tile(cell: Cell, store: RunStore, shapes: Any) -> Tile:
    title = ", ".join([cell.item.job.settings.condition, *(f"{key} {value}" for key, value in cell.settings.items())])
    facts = cell.facts()
    if cell.record is None or cell.record.status != "made":
        return Tile(None, f"{title}: failed\n{facts.get('error') or 'not made'}", good=False)
    accepted = facts["verdict"] == "accepted"
    caption = f"{title}: {'accepted' if accepted else 'rejected, ' + facts['verdict']}\n{'   '.join(_scores(facts))}"
    return Tile(image_path(store.folder, cell.item.job.id, store.image_format), caption, shapes, accepted)


def _scores(facts: dict[str, Any]) -> Iterator[str]:
    yield f"strength {facts['strength']:.2f}"
    if facts["object_strength"] is not None:
        yield f"objects {facts['object_strength']:.2f}"
    for key in ("structure", "recall"):
        if facts[key] is not None:
            yield f"{key} {facts[key]:.2f}"
    yield f"shift {facts['shift_px']:.1f} px"


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
