"""diffgen from Python: what the commands do, as functions. What is named in `diffgen.__all__` stays; the rest may move.

Every function raises DiffgenError (UsageError where the caller can mend it), with a `message` and a `hint`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL.Image import Image as Picture

from diffgen.dataset.labels import Shape
from diffgen.output.outcome import Entry, Outcome
from diffgen.recipe.load import LoadedRecipe
from diffgen.recipe.load import load_recipe as _load
from diffgen.run.progress import Progress
from diffgen.run.session import open_run as _open
from diffgen.run.summary import Summary, summarise

OnProgress = Callable[[int, int, int], None]  # images finished, to make, accepted


@dataclass(frozen=True, slots=True)
class Image:
    """One image that a recipe asks for. `verdict` is "accepted", why it was rejected, "failed", or "pending" before it is
    made. `path` is its file, if it was made; `source` its source's; `variant` and `attempt` count from 0; `facts` are what
    was measured on it (docs/manifest.md)."""

    job: str
    source: Path
    split: str
    condition: str
    variant: int
    attempt: int
    path: Path | None
    verdict: str
    facts: Mapping[str, Any]
    _entry: Entry
    _outcome: Outcome

    @property
    def accepted(self) -> bool:
        return self.verdict == "accepted"

    @property
    def label(self) -> str:
        """The text of its YOLO label file, without the rows of objects that are gone. Raises OSError."""
        return (self._entry.label() or b"").decode("utf-8-sig")

    @property
    def objects(self) -> tuple[Shape, ...]:
        """Its labelled objects, coordinates as fractions of its width and height. Raises OSError."""
        return self._entry.shapes(self._outcome.dataset)

    @property
    def source_objects(self) -> tuple[Shape, ...]:
        """The labelled objects of its source, of which some may be gone from it. Raises OSError."""
        return self._outcome.dataset.schema.parse_or_nothing(self._entry.item.source.read_label())


class Run:
    """A run folder, as it was when it was opened; also of a run that is going on."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    @property
    def folder(self) -> Path:
        return self._outcome.folder

    @property
    def names(self) -> tuple[str, ...]:
        """The dataset's classes by id."""
        return self._outcome.dataset.names

    @property
    def data(self) -> Path | None:
        """The exported data.yaml, to train with; None before the first export."""
        path = self.folder / "dataset/data.yaml"
        return path if path.is_file() else None

    @cached_property
    def summary(self) -> Summary:
        """What `diffgen status` counts."""
        return summarise(self._outcome)

    @property
    def images(self) -> Iterator[Image]:
        """Every image that the recipe asks for, in plan order, each as the attempt that counts."""
        for entry in self._outcome.entries:
            yield self._image(entry)

    def _image(self, entry: Entry) -> Image:
        item, record = entry.item, entry.record
        verdict = "pending" if record is None else "failed"
        if entry.made and entry.verdict is not None:
            verdict = "accepted" if entry.accepted else str(entry.verdict.reason)
        path = self._outcome.image(entry) if entry.made else None
        facts = {} if record is None else record.facts
        job = item.job
        source, split, condition = Path(item.source.path), item.source.split, job.settings.condition
        place = job.variant, job.attempt
        return Image(job.id, source, split, condition, *place, path, verdict, facts, entry, self._outcome)

    def sheet(self, max_sources: int = 8, columns: int | None = None) -> Picture:
        """A contact sheet: a row for each of the first sources with its images and their labels; with `columns` a row breaks
        after so many. Raises ValueError if no image was made."""
        from diffgen.output.contact_sheet import run_sheet

        return run_sheet(self._outcome, max_sources, columns)


def load_recipe(path: str | Path, sets: Sequence[str] = ()) -> LoadedRecipe:
    """Read and check a recipe file, or the recipe of a run folder. `sets` are overrides such as "checks.structure=0.4"."""
    return _load(Path(path), sets)


def plan_recipe(recipe: LoadedRecipe, *, limit: int | None = None) -> dict[str, Any]:
    """What `diffgen plan --json` prints: counts, sources that are not edited and why, small boxes, disk and time."""
    from diffgen.commands.plan_summary import plan_facts

    return plan_facts(recipe, limit)


def run_recipe(
    recipe: LoadedRecipe,
    *,
    limit: int | None = None,
    max_minutes: float | None = None,
    on_progress: OnProgress | None = None,
) -> Summary:
    """Make the missing images, check them, and write the dataset, as `diffgen run` does. `limit` edits only the first
    sources; `max_minutes` stops early, and the next call goes on. In the main thread signals stop it, see
    `Summary.stopped`."""
    from diffgen.run.loop import run

    progress = None if on_progress is None else _Calls(on_progress)
    return run(recipe, limit=limit, max_minutes=max_minutes, progress=progress)


def open_run(folder: str | Path) -> Run:
    """Read a run folder. Takes no lock, so it works while a run is writing there."""
    return Run(_open(Path(folder)))


def export_run(
    folder: str | Path, *, sets: Sequence[str] = (), review: str | Path | None = None, ratio: float | None = None
) -> Summary:
    """Judge the images of a run folder again, with other thresholds or a review's decisions, and write the dataset again,
    with at most `ratio` made pictures for each real one of train. Makes no image."""
    from diffgen.commands.export import export

    overrides = [*sets, *([] if ratio is None else [f"ratio={ratio}"])]
    return export(load_recipe(folder, overrides), None if review is None else Path(review))


def evaluate_run(
    folder: str | Path, weights: str | Path, tests: Mapping[str, str | Path], *, seeds: int = 8, **options: Any
) -> dict[str, Any]:
    """Does the run's dataset help a detector? What `diffgen eval --json` prints. `tests` are names -> data.yaml of real
    labelled pictures; `options` the other fields of `commands.eval.request.EvalRequest`, such as `oracle` or `ratios`."""
    from diffgen.commands.eval.evaluate import evaluate
    from diffgen.commands.eval.prepare import prepare
    from diffgen.commands.eval.request import EvalRequest
    from diffgen.errors import UsageError

    known = [field.name for field in fields(EvalRequest)]
    if unknown := [name for name in options if name not in known]:
        raise UsageError(f"evaluate_run: there is no option '{unknown[0]}'", f"its options: {', '.join(known)}")
    paths = {name: Path(path) for name, path in tests.items()}
    return evaluate(prepare(EvalRequest(Path(folder), Path(weights), paths, seeds=seeds, **options)))


class _Calls(Progress):
    """Hands its numbers on."""

    def __init__(self, told: OnProgress) -> None:
        self._told = told

    def update(self, made: int, total: int, accepted: int, condition: str) -> None:
        self._told(made, total, accepted)
