"""Chooses the images of a preview: a few sources, under every condition or with swept settings."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffgen.checks.clip import judged_clip
from diffgen.checks.detections import judged_recall
from diffgen.checks.effect import judged_change, judged_effect
from diffgen.checks.structure import judged_structure
from diffgen.errors import DiffgenError, UsageError
from diffgen.output.outcome import Entry, Judging
from diffgen.plan.select import Edit, fits
from diffgen.plan.settings import edits_of
from diffgen.recipe.load import overridden
from diffgen.recipe.schema import Recipe
from diffgen.recipe.yaml_reader import read_yaml
from diffgen.run.session import Session
from diffgen.types import Item, Record, digest_of

LONGEST = 100  # characters of a picture's name, from which on it is cut
UNSWEPT = ("name", "share", "task", "classes")  # these choose which images are made, not how they look


@dataclass(frozen=True, slots=True)
class Sweep:
    """A field of a condition and the values to try."""

    field: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """What to preview: how many sources, which conditions (empty: all), which sweeps."""

    number: int = 4
    conditions: tuple[str, ...] = ()
    sweeps: tuple[Sweep, ...] = ()

    def file_name(self, kind: str) -> str:
        """File name of the preview: one per choice of conditions and sweeps, so that previews can be compared."""
        swept = (f"{sweep.field}={','.join(map(str, sweep.values))}" for sweep in self.sweeps)
        name = re.sub(r"[^\w.,=+-]+", "_", "-".join([kind, *self.conditions, *swept]))
        return f"{name if len(name) < LONGEST else f'{name[:LONGEST]}-{digest_of(name)[:8]}'}.png"


@dataclass(frozen=True, slots=True)
class PreviewImage:
    """One image of a preview: an item's first attempt. `settings` are its swept values; `judging` has its thresholds,
    which may be swept too."""

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
        """The image with its record and verdict; `records` are the run folder's, by job id."""
        return replace(self, entry=self.judging.entry(self.item, records.get(self.item.job.id)))

    def facts(self) -> dict[str, Any]:
        """The image's verdict and scores, JSON-ready."""
        job, record, verdict = self.item.job, self.entry.record, self.entry.verdict
        about = {"source": self.item.source.key, "condition": job.settings.condition, **self.settings, "job": job.id}
        if record is None or verdict is None or not self.made:
            return {**about, "verdict": "failed", "error": "not made" if record is None else record.error}
        return {
            **about,
            "verdict": "accepted" if verdict.accepted else verdict.reason,
            "structure": judged_structure(record.facts),
            "recall": judged_recall(record.facts),
            "change": judged_change(record.facts),
            "effect": judged_effect(record.facts, job.settings.condition),
            "clip": judged_clip(record.facts),
            "new_objects": record.facts.get("new_objects"),
            "contrast": record.facts["contrast"],
            "shift_px": record.facts.get("shift_px"),
            "strength": record.facts["strength"],
            "object_strength": record.facts.get("object_strength"),
        }


def read_sweep(text: str) -> Sweep:
    """Parse `strength=0.3,0.5`: a field of a condition and its values, each as YAML. Raises UsageError."""
    field, sign, listed = text.partition("=")
    field, values = field.strip(), read_yaml(f"[{listed}]", Path(f"--sweep {text}"))
    if not sign or not field or not values:
        raise UsageError(f"--sweep {text}: not of the form field=value,value", "for example --sweep strength=0.3,0.5")
    if field in UNSWEPT:
        raise UsageError(
            f"--sweep {text}: '{field}' decides which images are made, not how they look",
            "sweep strength, guidance, steps, detail, …",
        )
    return Sweep(field, tuple(values))


def preview_images(session: Session, request: PreviewRequest) -> list[PreviewImage]:
    """The images to show: for each source, each condition, each combination of swept values.

    The sources are the first in plan order, those with objects before those without. Each is shown under every condition
    whose task it suits, also if `share` or `assign` gives the condition to other sources. Raises DiffgenError when no
    source is selected, UsageError for a condition or field that does not exist.
    """
    plan, dataset = session.plan, session.dataset
    names = _names(session.recipe, request.conditions)
    fields = [sweep.field for sweep in request.sweeps]
    if twice := [field for field in fields if fields.count(field) > 1]:
        raise UsageError(f"--sweep {twice[0]}: given twice", f"give all values at once: --sweep {twice[0]}=0.3,0.4")
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
        suiting = tuple((source, tuple(edit for edit in edits if fits(source, edit, plan.places))) for source in shown)
        small_plan = replace(plan, edits=suiting, variants=1)
        judging = Judging(recipe, dataset, session.review)
        columns.append([PreviewImage(Entry(item), settings, judging) for item in small_plan.items])
    return [image for row in zip(*columns, strict=True) for image in row]


def _edits(session: Session, recipe: Recipe, names: Sequence[str]) -> list[Edit]:
    return [edit for edit in edits_of(recipe, session.model, session.dataset) if edit[0].name in names]


def _names(recipe: Recipe, wanted: Sequence[str]) -> list[str]:
    names = [condition.name for condition in recipe.conditions]
    if unknown := [name for name in wanted if name not in names]:
        raise UsageError(
            f"--condition {unknown[0]}: the recipe has no such condition", f"its conditions: {', '.join(names)}"
        )
    return [name for name in names if not wanted or name in wanted]
