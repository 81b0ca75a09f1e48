"""Makes the pictures of a trial, and measures them. All trials share run folders, so nothing is made twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from diffgen.commands.tune.features import NAMES, Embed, Features, features, load_embed
from diffgen.commands.tune.small import small_dataset
from diffgen.errors import DiffgenError
from diffgen.files import write_atomically
from diffgen.models.aliases import aliases
from diffgen.models.networks import require_detector_file
from diffgen.output.outcome import Entry, Outcome
from diffgen.recipe.load import LoadedRecipe, load_recipe
from diffgen.run.loop import run
from diffgen.run.progress import Progress
from diffgen.run.session import Notify, Session, make_ready
from diffgen.run.store.images import read_present
from diffgen.run.store.store import RunStore
from diffgen.run.worker_setup import MakeWorker

FULL = 2  # times so many sources at full size: what is chosen should hold for other pictures, too
LARGER = 2  # a small picture's long side, of the size that it is worked on at: a detector sees more than the editor

Fields = dict[str, Any]  # a condition, as a recipe holds it


@dataclass(frozen=True, slots=True)
class Made:
    """The pictures of conditions: `features` of the accepted ones, in the order of `entries`; `truth` is the share of the
    labelled objects found again in all of them, or without a detector the share of accepted pictures."""

    outcome: Outcome
    entries: tuple[Entry, ...]
    features: Features
    truth: float
    accepted: float


class Stopped(Exception):
    """The run was stopped by a signal of this name."""


class Bench:
    """Edits `sources` pictures under given conditions, with one worker for all."""

    def __init__(
        self,
        loaded: LoadedRecipe,
        folder: Path,
        sources: int,
        *,
        make_worker: MakeWorker | None = None,
        progress: Progress | None = None,
        notify: Notify = lambda _: None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._sources, self._progress = folder, sources, progress
        self._notify = notify
        self._raw: Fields = yaml.safe_load(loaded.to_yaml(folder, aliases()))
        self._make_worker, self._given, self._ready = make_worker, make_worker is not None, set[Path]()
        self._rows: dict[Path, tuple[Any, Any]] = {}  # of pictures that are measured already
        self._small: Path | None = None
        self._said: set[str] = set()
        self.embed: Embed | None = None

    @property
    def conditions(self) -> list[Fields]:
        """The recipe's conditions, each completed with the recipe's own settings."""
        return list(map(self._whole, self._raw["conditions"]))

    def _whole(self, fields: Fields) -> Fields:
        detail = self._raw["detail"] if fields["detail"] is None else fields["detail"]
        return {**fields, "detail": detail, "objects": {**self._raw["objects"], **(fields["objects"] or {})}}

    def recipe(
        self, conditions: Sequence[Fields], output: Path, long_side: int | None = None, *, times: int = FULL
    ) -> LoadedRecipe:
        """A recipe of these conditions over the bench's sources. With `long_side`, over small copies of them, edited at this
        size. Raises DiffgenError if one cannot be read."""
        select = {**self._raw["select"], "max": times * self._sources, "backgrounds": None}
        small: Fields = {}
        if long_side is not None:
            if self._small is None:
                whole = Session.open(self.recipe(self.conditions, self._folder / "default", times=1))
                self._small = small_dataset(whole, self._folder, LARGER * long_side)
            small = {"dataset": str(self._small), "resolution": {"mode": "fit", "long_side": long_side}}
            select = {"splits": ["train"]}
        raw = self._raw | {
            "output": str(output),
            "conditions": list(conditions),
            "select": select,
            "objects": {"feather": self._raw["objects"]["feather"]},  # the conditions have the rest
            "detail": None,
            "assign": "all",
            "variants": 1,
            "attempts": 1,
            "require": {"accepted": 0},
            **small,
        }
        path = self._folder / "trial.yaml"
        write_atomically(path, yaml.safe_dump(raw, sort_keys=False, allow_unicode=True))
        return load_recipe(path)

    def make(self, conditions: Sequence[Fields], output: Path, long_side: int | None = None) -> Made:
        """Make the pictures and measure them. Raises Stopped, and DiffgenError where none could be made."""
        loaded = self.recipe(conditions, output, long_side)
        if loaded.output not in self._ready:
            self._prepared(loaded)
        summary = run(loaded, make_worker=self._make_worker, progress=self._progress, export=False)
        if summary.stopped is not None:
            raise Stopped(summary.stopped)
        session = Session.open(loaded)
        outcome = session.outcome(read_present(session.folder, session.recipe.image.format))
        made = [entry for entry in outcome.entries if entry.made]
        if not made:
            reason = summary.errors[0] if summary.errors else "the recipe selects no picture that can be edited"
            raise DiffgenError(f"none of the pictures could be made: {reason}", "try `diffgen preview` first")
        accepted = tuple(entry for entry in made if entry.accepted)
        share = len(accepted) / len(made)
        return Made(outcome, accepted, self._features(outcome, accepted), _found_again(made, share), share)

    def start(self, conditions: Sequence[Fields], output: Path, long_side: int) -> str:
        """Load the model and everything that these conditions need. Returns a description of what pictures are compared
        by."""
        session = self._prepared(self.recipe(conditions, output, long_side))
        self.embed, name = load_embed(session.model, "cpu" if session.device is None else session.device.name)
        return name

    def _prepared(self, loaded: LoadedRecipe) -> Session:
        session = Session.open(loaded)
        session.check_runnable()
        if not self._given:
            require_detector_file(session.model.observers)
            with RunStore(session.folder, session.recipe.image.format) as store:
                session, _, make = make_ready(session, store, None, self._say)
            if self._make_worker is None:
                worker = make()
                self._make_worker = lambda: worker
        self._ready.add(session.folder)
        return session

    def _say(self, line: str) -> None:
        """Hand a line on, once: each run folder is made ready alike."""
        if line not in self._said:
            self._said.add(line)
            self._notify(line)

    def _features(self, outcome: Outcome, entries: Sequence[Entry]) -> Features:
        paths = [outcome.image(entry) for entry in entries]
        new = [path for path in paths if path not in self._rows]
        found = features(new, self.embed)
        for i, path in enumerate(new):
            self._rows[path] = found.statistics[i], None if found.embedding is None else found.embedding[i]
        rows = [self._rows[path] for path in paths]
        statistics = np.array([row for row, _ in rows]).reshape(len(rows), len(NAMES))
        return Features(statistics, None if self.embed is None or not rows else np.array([row for _, row in rows]))


def _found_again(made: Sequence[Entry], accepted: float) -> float:
    """The share of labelled objects; without a detector, or objects that it finds, that of accepted pictures."""
    hits = [hit for entry in made if entry.record is not None for hit in _found(entry.record.facts)]
    return sum(hits) / len(hits) if hits else accepted


def _found(facts: Mapping[str, Any]) -> list[bool]:
    """As `judged_recall` counts: in the image, or in its copy at the source's brightness."""
    return [a or b for a, b in zip(facts.get("found", ()), facts.get("found_matched", ()), strict=True)]
