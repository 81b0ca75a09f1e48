"""Which images to look at before a run: a few sources, under every condition or under swept settings."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffgen.checks.clip import judged_clip
from diffgen.checks.detections import judged_recall
from diffgen.checks.effect import judged_effect
from diffgen.checks.structure import judged_structure
from diffgen.dataset.masks import require_opencv
from diffgen.errors import DiffgenError, UsageError
from diffgen.output.outcome import Entry, Judging
from diffgen.plan.select import Edit, fits
from diffgen.plan.settings import edits_of
from diffgen.recipe.load import overridden
from diffgen.recipe.schema import Recipe
from diffgen.recipe.yaml_reader import read_yaml
from diffgen.run.session import Session
from diffgen.types import Item, Record

UNSWEPT = ("name", "share", "task", "classes")  # they say which images there are, not how they look


@dataclass(frozen=True, slots=True)
class Sweep:
    """A field of a condition, and the values that it takes in turn."""

    field: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """What a user wants to see: how many sources, which conditions (all when empty), which sweeps."""

    number: int = 4
    conditions: tuple[str, ...] = ()
    sweeps: tuple[Sweep, ...] = ()


@dataclass(frozen=True, slots=True)
class PreviewImage:
    """One image to look at, its first attempt. `settings` are its swept values; `judging` has its thresholds, which may
    be swept too."""

    entry: Entry
    settings: dict[str, Any]
    judging: Judging

    @property
    def item(self) -> Item:
        return self.entry.item

    @property
    def made(self) -> bool:
        return self.entry.made

    @property
    def label(self) -> str:
        values = (f"{key} {value}" for key, value in self.settings.items())
        return ", ".join([self.item.job.settings.condition, *values])

    def judged(self, records: Mapping[str, Record]) -> PreviewImage:
        """With what became of it, by the records of the run folder."""
        return replace(self, entry=self.judging.entry(self.item, records.get(self.item.job.id)))

    def facts(self) -> dict[str, Any]:
        """What is known of it, JSON-ready."""
        job, record, verdict = self.item.job, self.entry.record, self.entry.verdict
        about = {"source": self.item.source.key, "condition": job.settings.condition, **self.settings, "job": job.id}
        if record is None or verdict is None or not self.made:
            return {**about, "verdict": "failed", "error": "not made" if record is None else record.error}
        return {
            **about,
            "verdict": "accepted" if verdict.accepted else verdict.reason,
            "structure": judged_structure(record.facts),
            "recall": judged_recall(record.facts),
            "happened": judged_effect(record.facts, job.settings.condition),
            "clip": judged_clip(record.facts),
            "new_objects": record.facts.get("new_objects"),
            "contrast": record.facts["contrast"],
            "shift_px": record.facts.get("shift_px"),
            "strength": record.facts["strength"],
            "object_strength": record.facts.get("object_strength"),
        }


def read_sweep(text: str) -> Sweep:
    """`strength=0.3,0.5`: a field of a condition and its values, each as YAML. Raises UsageError."""
    field, sign, values = text.partition("=")
    found = read_yaml(f"[{values}]", Path(f"--sweep {text}"))
    if not sign or not field.strip() or not found:
        raise UsageError(f"--sweep {text}: not of the form field=value,value", "for example --sweep strength=0.3,0.5")
    if field.strip() in UNSWEPT:
        raise UsageError(
            f"--sweep {text}: '{field.strip()}' says which images there are, not how they look",
            "sweep strength, guidance, steps, detail, …",
        )
    return Sweep(field.strip(), tuple(found))


def preview_images(session: Session, request: PreviewRequest) -> list[PreviewImage]:
    """The images to show: for each source, for each condition, for each combination of swept values.

    The sources are the first to be edited in plan order, those with objects before those without. Each is shown under every
    condition that suits it (tasks want objects or room), also where `share` or `assign` gives the condition to others.
    Raises DiffgenError for no sources, UsageError for a condition or field that does not exist.
    """
    plan, dataset = session.plan, session.dataset
    names = _names(session.recipe, request.conditions)
    fields = [sweep.field for sweep in request.sweeps]
    if twice := [field for field in fields if fields.count(field) > 1]:
        raise UsageError(f"--sweep {twice[0]}: given twice", f"give its values in one: --sweep {twice[0]}=0.3,0.4")
    wanted = _edits(session, session.recipe, names)
    suited = (source for source, _ in plan.edits if any(fits(source, edit, plan.places) for edit in wanted))
    shown = sorted(suited, key=lambda source: not source.counts)[: request.number]
    if not shown:
        raise DiffgenError("the recipe selects no source to edit", "'diffgen plan' says why")
    columns = []
    for values in itertools.product(*(sweep.values for sweep in request.sweeps)):
        settings = dict(zip(fields, values, strict=True))
        as_yaml = [f"{key}={json.dumps(value, default=str)}" for key, value in settings.items()]
        recipe = overridden(session.loaded, [f"conditions.{name}.{text}" for name in names for text in as_yaml]).recipe
        edits = _edits(session, recipe, names)
        own = tuple((source, tuple(edit for edit in edits if fits(source, edit, plan.places))) for source in shown)
        few = replace(plan, edits=own, variants=1)
        if few.needs_masks:
            require_opencv()
        judging = Judging(recipe, dataset, session.review)
        columns.append([PreviewImage(Entry(item), settings, judging) for item in few.items])
    return [cell for row in zip(*columns, strict=True) for cell in row]


def _edits(session: Session, recipe: Recipe, names: Sequence[str]) -> list[Edit]:
    return [edit for edit in edits_of(recipe, session.model, session.dataset) if edit[0].name in names]


def _names(recipe: Recipe, wanted: Sequence[str]) -> list[str]:
    names = [condition.name for condition in recipe.conditions]
    if unknown := [name for name in wanted if name not in names]:
        raise UsageError(
            f"--condition {unknown[0]}: the recipe has no such condition", f"its conditions: {', '.join(names)}"
        )
    return [name for name in names if not wanted or name in wanted]
