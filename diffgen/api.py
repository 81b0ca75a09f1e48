"""diffgen from Python: the commands as functions. Names in `diffgen.__all__` are stable; the rest may move.

Every function raises DiffgenError (UsageError if the caller can fix the cause), with a `message` and a `hint`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
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
    """One image that a recipe plans. `verdict` is "accepted", the reason for rejection, "failed", or "pending" before it is
    made. `path` is the image file, if it was made; `source` is the source image; `variant` and `attempt` count from 0;
    `facts` are the measurements (docs/manifest.md)."""

    job: str
    source: Path
    split: str
    condition: str
    variant: int
    attempt: int
    path: Path | None
    verdict: str
    facts: Mapping[str, Any]
    _entry: Entry = field(repr=False)
    _outcome: Outcome = field(repr=False)

    @property
    def accepted(self) -> bool:
        return self.verdict == "accepted"

    @property
    def label(self) -> str:
        """The text of its YOLO label file, without the rows of dropped objects. Raises OSError."""
        return (self._entry.label() or b"").decode("utf-8-sig")

    @property
    def objects(self) -> tuple[Shape, ...]:
        """Its labelled objects, with coordinates as fractions of width and height. Raises OSError."""
        return self._entry.shapes(self._outcome.dataset)

    @property
    def source_objects(self) -> tuple[Shape, ...]:
        """The labelled objects of the source; some of them may have been dropped from the image. Raises OSError."""
        return self._outcome.dataset.schema.parse_or_nothing(self._entry.item.source.read_label())


class Run:
    """A run folder as it was when opened; the run may still be going on."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def folder(self) -> Path:
        return self._outcome.folder

    @property
    def names(self) -> tuple[str, ...]:
        """The dataset's class names, by class id."""
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
        """Every image that the recipe plans, in plan order; of several attempts, the one that counts."""
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
        """A contact sheet: one row for each of the first `max_sources` sources, with its images and labels. `columns` is the
        maximum number of pictures per row. Raises ValueError if no image was made."""
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
    """Make the missing images, check them, and write the dataset, as `diffgen run` does. `limit`: use only the first
    sources of each edited split. `max_minutes`: stop early; the next call resumes. In the main thread, signals stop the
    run; see `Summary.stopped`."""
    from diffgen.run.loop import run

    progress = None if on_progress is None else _Calls(on_progress)
    return run(recipe, limit=limit, max_minutes=max_minutes, progress=progress)


def open_run(folder: str | Path) -> Run:
    """Read a run folder. Takes no lock, so it works during a run."""
    return Run(_open(Path(folder)))


def export_run(
    folder: str | Path, *, sets: Sequence[str] = (), review: str | Path | None = None, ratio: float | None = None
) -> Summary:
    """Judge the images of a run folder again, with other thresholds or the decisions of a review, and rewrite the dataset.
    `ratio` is the maximum number of synthetic images per real image of train. Makes no images."""
    from diffgen.commands.export import export

    overrides = [*sets, *([] if ratio is None else [f"ratio={ratio}"])]
    return export(load_recipe(folder, overrides), None if review is None else Path(review))


def evaluate_run(
    folder: str | Path, weights: str | Path, tests: Mapping[str, str | Path], *, seeds: int = 8, **options: Any
) -> dict[str, Any]:
    """Does the run's dataset help a detector? Returns what `diffgen eval --json` prints. `tests` maps names to the
    data.yaml of real labelled pictures; `options` are other fields of `commands.eval.request.EvalRequest`, such as
    `oracle`, `ratios`."""
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
    """Progress that calls a function with the numbers."""

    def __init__(self, told: OnProgress) -> None:
        self._told = told

    def update(self, made: int, total: int, accepted: int, condition: str) -> None:
        self._told(made, total, accepted)
