"""`diffgen tune`: settings that bring edits near unlabelled pictures of the target, with labels that stay true.

Searches with small pictures, makes the best few at full size, and writes the best of those as a recipe. Long because every
step of that compares with the same target, recipe and reference.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from diffgen.commands.tune.bench import Bench, Fields, Made, Stopped
from diffgen.commands.tune.distance import Yardstick, ratio
from diffgen.commands.tune.features import NAMES, Features, features
from diffgen.commands.tune.page import write_page, write_sheet
from diffgen.commands.tune.search import ACCEPTED, Search, Tried
from diffgen.commands.tune.space import LARGE, LEVERS, LIGHTS, STRENGTH, Lever, Point, fields, off
from diffgen.commands.tune.tuned import Part, tuned_recipe
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.targets import read_targets
from diffgen.errors import DiffgenError, UsageError, why
from diffgen.files import write_atomically
from diffgen.plan.settings import edits_of
from diffgen.recipe.load import LoadedRecipe
from diffgen.run.interrupts import STOP_CODES
from diffgen.run.progress import Progress
from diffgen.run.session import Notify, Session
from diffgen.run.worker_setup import MakeWorker
from diffgen.types import canonical, digest_of

FEW = 20  # pictures of the target, below which their number is worth a warning
DARK = 0.2  # median luminance (0 to 1) of a target in which lamps are lit
ROUNDS = 3  # of finalists with one setting less each
WORTH = 0.01  # of the ratio: a lever that brings less is left off
FAR = 10.0  # the ratio of a point at which no picture is accepted
TENTHS = 10  # of a mix of conditions


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """`target` is a folder of pictures, or a pattern; `recall` the least share of labelled objects that must be found
    again; `budget` the number of points that are tried, on `sources` pictures with a long side of `size` px; the best are
    made of twice as many at full size; `output` the tuned recipe, None: beside the recipe."""

    recipe: LoadedRecipe
    target: Path
    recall: float = 0.9
    budget: int = 200
    sources: int = 24
    size: int = 320
    output: Path | None = None


def tune(
    request: TuneRequest,
    *,
    make_worker: MakeWorker | None = None,
    progress: Progress | None = None,
    notify: Notify = lambda _: None,
) -> dict[str, Any]:
    """Search, write the tuned recipe, a page and a sheet, and return what was found, JSON-ready, with the exit code: 0, 3
    if no point nearer than the recipe keeps enough objects, or that of a signal. The same command resumes a stopped search.

    Raises UsageError for a recipe that cannot be tuned, DiffgenError where something fails.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise DiffgenError(f"tune needs Optuna: {why(error)}", "pip install 'diffgen[tune]'") from None
    recipe = request.recipe.recipe
    if recipe.text2img is not None or any(condition.task for condition in recipe.conditions):
        raise UsageError(
            f"{request.recipe.path}: tune only supports conditions that edit whole pictures of a dataset",
            "use a recipe with dataset: and without tasks",
        )
    tuning = Tuning(request, make_worker, progress, notify)
    try:
        return tuning.run()
    except Stopped as stopped:
        name = str(stopped)
        return {"folder": str(tuning.folder), "stopped": name, "exit_code": STOP_CODES[name]}


@dataclass(frozen=True, slots=True)
class Final:
    """A point made at full size, and there its distance to the target: 1 is that of the original recipe."""

    tried: Tried
    made: Made
    ratio: float

    @property
    def nearer(self) -> bool:
        return self.ratio < 1 and self.made.accepted >= ACCEPTED

    def allowed(self, least: float) -> bool:
        return self.nearer and self.made.truth >= least


def finalists(
    best: Iterable[Tried], make: Callable[[Tried], Final], fewer: Callable[[Tried], Iterable[Tried]], recall: float
) -> list[Final]:
    """The best points at full size. Small pictures do not always tell which setting costs objects. So while the nearest
    point keeps too few of them, it is followed by points with `fewer` settings, one less each, of which the one that brings
    most objects for its distance takes its place."""
    finals = [make(one) for one in best]
    nearest = min(finals, key=lambda final: final.ratio, default=None)
    for _ in range(ROUNDS):
        if nearest is None or nearest.allowed(recall):
            break
        new = [make(one) for one in fewer(nearest.tried)]
        finals += new
        nearest = max(new, key=partial(_gain, nearest), default=None)
    return finals


def _gain(before: Final, after: Final) -> float:
    return (after.made.truth - before.made.truth) / max(after.ratio - before.ratio, WORTH)


class Tuning:
    """One `tune`. `folder` holds what it makes, besides the finalists: those are in the tuned recipe's run folder."""

    def __init__(
        self, request: TuneRequest, make_worker: MakeWorker | None, progress: Progress | None, notify: Notify
    ) -> None:
        self._request, self._notify = request, notify
        loaded, output = request.recipe, request.recipe.output
        self.folder, self._run = (output.with_name(f"{output.name}-{word}") for word in ("tune", "tuned"))
        self._tuned = (request.output or loaded.path.with_name(f"{loaded.path.stem}-tuned.yaml")).absolute()
        if self._tuned == loaded.path:
            raise UsageError(f"-o {self._tuned}: that is the recipe itself", "give another file")
        with FileCache() as cache:
            self._targets = read_targets(request.target.absolute(), cache, "--target")
        if len(self._targets) < 2:
            raise UsageError(f"--target {request.target}: one picture is not enough", f"give {FEW} or more")
        self._bench = Bench(
            loaded, self.folder, request.sources, make_worker=make_worker, progress=progress, notify=notify
        )
        self._times: list[float] = []  # when trials ended, s
        self._known: dict[str, Tried] = {}  # points of this process, by condition and settings
        self._conditions = {fields["name"]: fields for fields in self._bench.conditions}

    def run(self) -> dict[str, Any]:
        """See `tune`."""
        request = self._request
        everything = [base | {"match": self._match} for base in self._conditions.values()]
        network = self._bench.start(everything, self._small, request.size)
        self._target = features([Path(target.path) for target in self._targets], self._bench.embed)
        self._yardstick = Yardstick(self._target)
        self._levers = self._usable()
        warnings = list(self._warnings())
        for line in (*warnings, f"{len(self._targets)} target pictures, compared by statistics and {network}"):
            self._notify(line)
        whole = self._bench.make(list(self._conditions.values()), self.folder / "default")
        before = self._bench.make(list(self._conditions.values()), self._small, request.size)
        self._whole, self._reference = self._distances(whole), self._distances(before)
        # In small pictures more objects are lost, whatever the settings are.
        self._least = request.recall * min(1.0, before.truth / max(whole.truth, 0.01))
        search = Search(
            self.folder / "trials.log", self._name(before), self._levers, list(self._conditions), self._least
        )
        search.suggest([(name, point) for name in self._conditions for point in self._first(name)])
        search.run(request.budget, self._tried, self._tell)
        finals = finalists(
            self._simplified(search.best()), self._final, lambda one: self._without(one).values(), request.recall
        )
        allowed = [final for final in finals if final.allowed(request.recall)]
        facts: dict[str, Any] = {
            "folder": str(self.folder),
            "stopped": None,
            "target": str(request.target),
            "pictures": len(self._targets),
            "sources": request.sources,
            "features": network,
            "recall": request.recall,
            "least_small": self._least,
            "warnings": warnings,
            "trials": [_row(one) for one in search.tried],
            "default": self._row(whole),
            "found_again": max((final.made.truth for final in finals if final.nearer), default=None),
            "tuned": None,
            "exit_code": 3,
        }
        if allowed:
            shares = self._mix(allowed)
            facts |= self._chosen(shares, whole) | {"exit_code": 0}
        write_atomically(self.folder / "results.json", canonical(facts))
        write_page(self.folder / "report.html", facts)
        return facts

    @property
    def _small(self) -> Path:
        return self.folder / "small"

    @property
    def _match(self) -> Fields:
        return {"folder": str(self._request.target.absolute()), "method": "histogram", "amount": 1.0}

    def _warnings(self) -> Iterator[str]:
        if (count := len(self._targets)) < FEW:
            yield f"warning: {count} target pictures are few: check how wide the interval is"
        if self._request.recipe.recipe.detector is None:
            yield "warning: no detector: in the recipe, so the accepted share is used in place of objects found again"
        whole = Session.open(self._bench.recipe(list(self._conditions.values()), self.folder / "default"))
        of_test = {source.image_digest: source.key for source in whole.dataset.sources if source.split != "train"}
        for target in self._targets:
            if target.digest in of_test:
                yield f"warning: {target.path} is {of_test[target.digest]} of the dataset: tests on it are not independent"

    @cached_property
    def _session(self) -> Session:
        return Session.open(self._bench.recipe(list(self._conditions.values()), self._small, self._request.size))

    @cached_property
    def _usual(self) -> dict[str, dict[str, float]]:
        """By condition, its steps and guidances without tuning."""
        session = self._session
        edits = edits_of(session.recipe, session.model, session.dataset)
        names = [lever.name for lever in LARGE]
        return {c.name: {name: getattr(settings, name) for name in names} for c, settings in edits}

    def _usable(self) -> list[Lever]:
        """The levers that the model and dataset support and that the target needs."""
        wanted = [*LEVERS]
        if float(np.median(self._target.statistics[:, NAMES.index("luminance")])) < DARK:
            wanted.append(LIGHTS)
        if self._session.model.severity is None:
            wanted += [lever for lever in LARGE if all((usual[lever.name] or 0) > 1 for usual in self._usual.values())]
        return [STRENGTH, *(lever for lever in wanted if self._takes(lever))]

    def _takes(self, lever: Lever) -> bool:
        for name in self._conditions:
            point = self._preset(name) | {lever.name: next(v for v in reversed(lever.values) if v != lever.off)}
            try:
                Session.open(self._bench.recipe([self._at(name, point)], self._small, self._request.size))
            except UsageError:
                return False
        return True

    def _preset(self, name: str) -> Point:
        """The recipe's condition as a point, or at least its strength."""
        strength = self._conditions[name]["strength"]
        low, high = strength if isinstance(strength, list) else (strength, strength)
        return off((*LEVERS, LIGHTS, *LARGE)) | {"strength": high, "range": round(high - low, 3)}

    def _first(self, name: str) -> Iterator[Point]:
        """The first points to try: the condition as it is, and each setting on its own."""
        usual = self._preset(name)
        yield usual
        for lever in self._levers:
            on = [value for value in lever.values if value != usual[lever.name]]
            if lever.ordered and on:
                yield usual | {lever.name: on[len(on) // 2]}

    def _at(self, name: str, point: Point) -> Fields:
        none = dict.fromkeys(("instruction_strength", "detail", "objects", "match", "lights", "sensor"))
        tuned = fields(point, str(self._request.target.absolute()), self._usual[name])
        return self._conditions[name] | none | tuned | {"share": 1.0}

    def _name(self, before: Made) -> str:
        """What the trials depend on."""
        jobs = [entry.item.job.id for entry in before.outcome.entries]
        levers = [[lever.name, lever.values] for lever in self._levers]
        return digest_of(canonical([sorted(jobs), [t.digest for t in self._targets], levers]))[:16]

    def _distances(self, made: Made) -> tuple[float, ...]:
        if not len(made.features):
            raise DiffgenError("with the recipe unchanged, no image was accepted", "`diffgen preview` shows why")
        return self._yardstick.both(made.features)

    def _tried(self, condition: str, point: Point) -> Tried:
        key = canonical([condition, point])
        if key not in self._known:
            made = self._bench.make([self._at(condition, point)], self._small, self._request.size)
            far = self._ratio(made, self._reference)
            self._known[key] = Tried(condition, point, round(far, 4), round(made.truth, 4), round(made.accepted, 4))
        return self._known[key]

    def _tell(self, count: int, one: Tried) -> None:
        left = self._request.budget - count
        far = f"distance {one.ratio:.2f}, {one.truth:.2f} found again, {one.accepted:.0%} accepted"
        self._times.append(time.monotonic())
        each = (self._times[-1] - self._times[0]) / (len(self._times) - 1) if len(self._times) > 1 else 0
        more = f"; about {each * left / 60:.0f} minutes left" if left and count % 10 == 0 and each else ""
        self._notify(f"trial {count} of {self._request.budget}: {self._words(one)}: {far}{more}")

    def _words(self, one: Tried) -> str:
        """The condition, and what differs from the recipe."""
        what = [f"{name} {one.point[name]}" for name in self._on(one)]
        return ", ".join([one.condition, *(what or ["as in the recipe"])])

    def _on(self, one: Tried) -> list[str]:
        """The settings in which a point differs from the recipe."""
        usual = self._preset(one.condition)
        names = [lever.name for lever in self._levers if one.point[lever.name] != usual[lever.name]]
        return [name for name in names if name != "match.method" or one.point["match.amount"]]

    def _without(self, one: Tried) -> dict[str, Tried]:
        """The same point with one setting off, for each that is on. The strength is reset to the recipe's."""
        usual = self._preset(one.condition)
        return {name: self._tried(one.condition, one.point | {name: usual[name]}) for name in self._on(one)}

    def _simplified(self, best: Sequence[Tried]) -> list[Tried]:
        """The points, preceded by the best of each condition without the levers that gain almost nothing."""
        simple = []
        for name in self._conditions:
            one = next((one for one in best if one.condition == name), None)
            while one is not None:
                fewer = [t for t in self._without(one).values() if t.allowed(self._least)]
                near = min(fewer, key=lambda t: t.ratio, default=None)
                if near is None or near.ratio > one.ratio + WORTH:
                    break
                one = near
            simple += [one] if one is not None else []
        return list({canonical([one.condition, one.point]): one for one in [*simple, *best]}.values())

    def _final(self, one: Tried) -> Final:
        made = self._bench.make([self._at(one.condition, one.point)], self._run)
        far = self._ratio(made, self._whole)
        self._notify(
            f"full size: {self._words(one)}: distance {far:.2f}, {made.truth:.2f} found again, {made.accepted:.0%} accepted"
        )
        return Final(one, made, far)

    def _ratio(self, made: Made, reference: Sequence[float]) -> float:
        return ratio(self._yardstick.both(made.features), reference) if len(made.features) else FAR

    def _mix(self, finals: Sequence[Final]) -> list[tuple[Final, float]]:
        """The best of each condition, in the shares whose mix is nearest to the target. Makes no pictures."""
        ranked = sorted(finals, key=lambda final: final.ratio)
        parts = list({f.tried.condition: f for f in reversed(ranked)}.values())
        best, least = [(ranked[0], 1.0)], ranked[0].ratio
        for tenths in itertools.product(range(TENTHS + 1), repeat=len(parts)):
            if sum(tenths) == TENTHS:
                mixed = [(f, n / TENTHS) for f, n in zip(parts, tenths, strict=True) if n]
                value = ratio(self._yardstick.both(*_together(mixed)), self._whole)
                if value < least - WORTH:
                    best, least = mixed, value
        return sorted(best, key=lambda pair: -pair[1])

    def _row(self, made: Made) -> dict[str, Any]:
        distances = self._yardstick.both(made.features)
        return {
            "ratio": ratio(distances, self._whole),
            "interval": self._yardstick.interval(made.features, self._whole),
            "distances": distances,
            "truth": made.truth,
            "accepted": made.accepted,
            "statistics": self._yardstick.by_statistic(made.features),
        }

    def _chosen(self, shares: Sequence[tuple[Final, float]], whole: Made) -> dict[str, Any]:
        together, weights = _together(shares)
        truth, accepted = (sum(s * getattr(f.made, key) for f, s in shares) for key in ("truth", "accepted"))
        row = self._row(Made(whole.outcome, (), together, truth, accepted))
        row["distances"] = self._yardstick.both(together, weights)
        row["ratio"], row["statistics"] = (
            ratio(row["distances"], self._whole),
            self._yardstick.by_statistic(together, weights),
        )
        parts = [self._part(final, share) for final, share in shares]
        text = tuned_recipe(self._request.recipe, self._tuned, self._run, parts, self._head(row))
        self._tuned.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._tuned, text)
        write_sheet(self.folder / "sheet.png", whole, [final.made for final, _ in shares], self._targets)
        chosen = [{**_row(f.tried), "share": s, "full": self._row(f.made)} for f, s in shares]
        return {"tuned": row, "chosen": chosen, "recipe": str(self._tuned), "output": str(self._run)}

    def _part(self, final: Final, share: float) -> Part:
        one = final.tried
        tuned = fields(one.point, str(self._request.target.absolute()), self._usual[one.condition])
        notes = {name: f"without: {t.ratio:.2f} and {t.truth:.2f}" for name, t in self._without(one).items()}
        if "strength" in notes:
            notes["strength"] = notes["strength"].replace("without", "as before")
        return Part(one.condition, share, tuned, notes)

    def _head(self, row: dict[str, Any]) -> list[str]:
        low, high = row["interval"]
        return [
            f"{len(self._targets)} pictures of the target, {self._request.sources} sources, {self._request.budget} "
            "trials.",
            f"Distance to the target: {row['ratio']:.2f} ({low:.2f} to {high:.2f}) of that of the original recipe.",
            f"Labelled objects found again: {row['truth']:.2f} (at least {self._request.recall:g}).",
            "Beside each value: distance and objects found again without it, in small pictures.",
        ]


def _together(shares: Sequence[tuple[Final, float]]) -> tuple[Features, Any]:
    """The pictures of all parts, and a weight for each of them."""
    parts = [final.made.features for final, _ in shares]
    statistics = np.concatenate([part.statistics for part in parts])
    rows = [part.embedding for part in parts if part.embedding is not None]
    weights = np.concatenate(
        [np.full(len(part), share / len(part)) for part, (_, share) in zip(parts, shares, strict=True)]
    )
    return Features(statistics, np.concatenate(rows) if rows else None), weights


def _row(one: Tried) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Tried.__slots__}
