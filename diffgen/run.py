"""The spine: while there are jobs pending, execute and commit; then judge, export, sum up."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from diffgen.blend import require_masks
from diffgen.cache import FileCache
from diffgen.checks import judge
from diffgen.errors import UsageError
from diffgen.executors import local
from diffgen.export import Judged, export_dataset, is_carried, judge_plan
from diffgen.guides import require_networks, resolve_guided, revisions, with_maps, with_revisions
from diffgen.imagined import imagine
from diffgen.loras import resolve_loras
from diffgen.models import Model, aliases, require_on_disk, vocabulary
from diffgen.plan import (
    Plan,
    cut_batches,
    misheard_prompts,
    pending_batches,
    plan_jobs,
    unsuited_controls,
    untaught_guidance,
)
from diffgen.progress import Progress, Silent
from diffgen.recipe import LoadedRecipe, Recipe, load_recipe
from diffgen.report import write_report
from diffgen.review import KEPT_AS, read_review
from diffgen.sources import Dataset, read_dataset, with_shapes
from diffgen.store import RunStore, is_locked, is_run_folder, read_present, read_state, write_atomically
from diffgen.types import Batch, Item, Record, Result, Verdict
from diffgen.worker import Judges, MakeWorker, Worker, load_worker

# Images per batch when the recipe says "auto". On a CPU a larger batch is no faster; on a GPU it is, and memory that
# runs out halves it.
AUTO_BATCH = {"cpu": 4}
AUTO_BATCH_ACCELERATOR = 16
RECENT = 64  # images that the speed of a run is told by

Talk = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recipe met with its dataset and model: everything known before any image is made."""

    recipe: Recipe
    dataset: Dataset
    model: Model
    plan: Plan
    output: Path


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run folder holds of its plan, in numbers. The reasons are the words that `status` and the report count."""

    output: str
    planned: int
    accepted: int
    rejected: dict[str, int]
    failed: dict[str, int]
    pending: int
    conditions: dict[str, dict[str, int]]
    sources: dict[str, int]
    not_edited: dict[str, int]
    made_now: int = 0
    seconds: float = 0.0
    stopped: str | None = None
    require: float = 0.0
    saved: int = 0  # accepted in a later attempt than the first
    to_review: int = 0  # accepted with labels that a detector is not sure of
    unjudged: int = 0  # accepted, and made before the recipe named the detector or the CLIP model that it names now
    errors: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)  # splits that training needs, and the dataset has no picture in
    running: bool = False  # `status` only: somebody is making images in the folder now …
    images_per_second: float | None = None  # … and this fast, by the last ones made

    @property
    def share(self) -> float:
        return self.accepted / self.planned if self.planned else 0.0

    @property
    def exit_code(self) -> int:
        """0 done, 1 nothing could be made or trained with, 3 below `require`, 4 to be run again, 130 and 143 interrupted."""
        if self.stopped in STOP_CODES:
            return STOP_CODES[self.stopped]
        if not self.planned or (not self.accepted and not self.rejected):
            return 1
        if self.pending and self.stopped is None:
            return 4
        return self.export_code

    @property
    def export_code(self) -> int:
        """What the dataset alone is worth, whatever is still to be made."""
        return 3 if self.share < self.require else 1 if self.empty else 0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "accepted_share": round(self.share, 4), "exit_code": self.exit_code}


STOP_CODES = {"max-minutes": 4, "SIGINT": 130, "SIGTERM": 143}


def prepare(loaded: LoadedRecipe, limit: int | None = None, *, reviewed: bool = True) -> Prepared:
    """Read the dataset, find the model, plan. Loads no torch and writes nothing but the cache of digests.

    The plan has the review that the run folder keeps, unless `reviewed` is False.
    """
    recipe, output = loaded.recipe, loaded.output
    with FileCache() as cache, no_collector():
        if recipe.dataset is not None:
            dataset = with_maps(read_dataset(recipe.dataset, loaded.base, cache), recipe, loaded.base, cache)
            if any(condition.task == "insert" for condition in recipe.conditions):
                dataset = with_shapes(dataset, recipe.select.splits)
        model = resolve_guided(recipe, loaded.base, cache)
        if recipe.text2img is not None:
            dataset = imagine(recipe.text2img, model, loaded.path)
        if recipe.loras:
            entries = [lora.model_dump() for lora in recipe.loras]
            model = replace(model, loras=resolve_loras(entries, loaded.base, cache))
    state = read_state(output) if is_run_folder(output) else {}
    model = with_revisions(model, recipe, state.get("revisions", {}))
    parents = {source.path.rpartition(os.sep)[0] for source in dataset.sources if source.path}
    above = next((folder for folder in parents if Path(folder).resolve().is_relative_to(output)), None)
    below = next((f for f in dataset.folders if output.is_relative_to(f.resolve())), None)
    if above or below:
        raise UsageError(
            f"output {output} "
            + (f"holds images of the dataset ({above})" if above else f"lies in its folder {below}"),
            "choose a run folder outside the dataset's folders",
        )
    with no_collector():
        plan = plan_jobs(recipe, dataset, model, limit)
    if reviewed and (kept := output / KEPT_AS).is_file():
        plan = replace(plan, review=read_review(kept))
    return Prepared(recipe, dataset, model, plan, output)


@contextmanager
def no_collector() -> Iterator[None]:
    """Planning makes millions of small values and no garbage: looking through them for some took half of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def run(
    loaded: LoadedRecipe,
    *,
    limit: int | None = None,
    max_minutes: float | None = None,
    make_worker: MakeWorker | None = None,
    progress: Progress | None = None,
    talk: Talk = lambda _: None,
) -> Summary:
    """Make what is missing, then export. A second call of a finished run makes nothing and loads no torch.

    `make_worker` replaces the worker of this process (tests, other executors). Raises DiffgenError.
    """
    started = time.monotonic()
    judges = Judges(loaded.detector)
    prepared = prepare(loaded, limit)
    recipe, plan = prepared.recipe, prepared.plan
    made_now, stopped = 0, None
    with RunStore(prepared.output, recipe.image.format) as store:
        write_atomically(store.folder / "recipe.yaml", loaded.to_yaml(store.folder, aliases()))
        store.note(limit=limit)
        if next(_rounds(plan, recipe, store, store.state.get("batch_size", 64)), None):
            prepared, batch_size, make = make_ready(store, prepared, judges, make_worker, talk, limit)
            plan = prepared.plan
            jobs = {item.job.id for item in plan.items}
            left = len(jobs - store.done())
            talk(f"{left or 'more attempts at rejected ones'} of {len(jobs)} images to make in {store.folder}")
            rounds = _rounds(plan, recipe, store, batch_size)
            deadline = None if max_minutes is None else started + 60 * max_minutes
            made_now, stopped = make_images(store, prepared, rounds, make, deadline, progress or Silent(), talk)
            # A night may have passed: export what the dataset says now, never a label that has changed since.
            plan = prepare(loaded, limit).plan
        judged = judge_plan(plan, recipe, store.present())
        summary = summarise(prepared, plan, judged, made_now=made_now, stopped=stopped)
        if stopped in (None, "max-minutes"):  # who interrupts wants it to end now; `diffgen export` makes up for it
            _export(store, plan, recipe, judged, summary)
    return replace(summary, seconds=round(time.monotonic() - started, 1))


def make_ready(
    store: RunStore,
    prepared: Prepared,
    judges: Judges,
    make_worker: MakeWorker | None,
    talk: Talk,
    limit: int | None = None,
) -> tuple[Prepared, int, MakeWorker]:
    """What is needed to make images, not yet loaded: the plan with the model on this machine, the batch size of this
    run folder, and the worker's maker. `make_worker` replaces ours."""
    if make_worker is None:
        prepared = fetched(prepared, limit)
        if found := revisions(prepared.model):  # a run folder stays with the commits it began with
            store.note(revisions={**store.state.get("revisions", {}), **found})
    if prepared.recipe.text2img is not None and prepared.recipe.val_from_train is None:
        talk(
            "warning: nothing to validate on will be made; train with a copy of data.yaml that names labelled photographs"
        )
    plan, model = prepared.plan, prepared.model
    heard = misheard_prompts(plan, vocabulary(model))
    for line in [*heard, *untaught_guidance(plan, model), *unsuited_controls(plan)]:
        talk(f"warning: {line}")
    kept, make = _settle(store, prepared, judges, make_worker, talk)
    return prepared, kept["batch_size"], make


def fetched(prepared: Prepared, limit: int | None = None) -> Prepared:
    """With the model on this machine; a hub model whose commit was unknown until now changes the plan's ids."""
    model = require_networks(require_on_disk(prepared.model), prepared.recipe)
    if model == prepared.model:
        return prepared
    plan = plan_jobs(prepared.recipe, prepared.dataset, model, limit)
    return replace(prepared, model=model, plan=replace(plan, review=prepared.plan.review))


def export(loaded: LoadedRecipe, review: Path | None = None) -> Summary:
    """Judge the records by the recipe's thresholds and export again, as far as the last run went. Makes no image.

    The decisions in `review` replace those that the run folder kept, and are kept there in their stead. Raises UsageError
    where the recipe asks for other images than the run folder's.
    """
    limit = read_state(loaded.output).get("limit")
    prepared = prepare(loaded, limit, reviewed=review is None)
    plan, recipe = prepared.plan, prepared.recipe
    with RunStore(prepared.output, recipe.image.format) as store:
        _require_same_images(store, loaded, plan, limit)
        if review is not None:
            kept = store.folder / KEPT_AS
            known = set(store.records)
            with suppress(UsageError):  # a review that is broken, or not there, is about to be replaced
                known |= read_review(kept).keys()
            plan = replace(plan, review=read_review(review, known))
            write_atomically(kept, review.read_text("utf-8-sig"))
        write_atomically(store.folder / "recipe.yaml", loaded.to_yaml(store.folder, aliases()))
        judged = judge_plan(plan, recipe, store.present())
        summary = summarise(prepared, plan, judged)
        _export(store, plan, recipe, judged, summary)
    return summary


def _require_same_images(store: RunStore, loaded: LoadedRecipe, plan: Plan, limit: int | None) -> None:
    """Raises UsageError for images that are neither made nor planned by the recipe that the run folder has kept."""
    kept = store.folder / "recipe.yaml"
    lacking = {item.job.id for item in plan.items} - store.records.keys()
    if not lacking or not kept.is_file() or kept.read_text("utf-8") == loaded.to_yaml(store.folder, aliases()):
        return
    own = prepare(load_recipe(kept), limit, reviewed=False).plan
    if lacking := lacking - {item.job.id for item in own.items}:
        raise UsageError(
            f"{store.folder}: export makes no image, and this recipe asks for {len(lacking)} that the run folder's does not",
            "export with other checks, require or include_sources only; 'diffgen run' makes other images",
        )


def _export(store: RunStore, plan: Plan, recipe: Recipe, judged: list[Judged], summary: Summary) -> None:
    """The dataset, and then the report: what it says is there."""
    export_dataset(store.folder, plan, recipe, judged)
    write_report(store.folder, plan, recipe, judged, summary.to_dict(), store.state["environments"])


def status(loaded: LoadedRecipe) -> Summary:
    """What the run folder holds, read without its lock: also while a run is writing."""
    state = read_state(loaded.output)
    prepared = prepare(loaded, state.get("limit"))
    records = read_present(prepared.output, prepared.recipe.image.format)
    summary = summarise(prepared, prepared.plan, judge_plan(prepared.plan, prepared.recipe, records))
    recent = [record.seconds for record in records.values() if record.seconds][-RECENT:]
    speed = len(recent) / sum(recent) if recent else None
    return replace(summary, running=True, images_per_second=speed) if is_locked(prepared.output) else summary


def stale(loaded: LoadedRecipe, *, remove: bool) -> tuple[int, int]:
    """(images, bytes) in the run folder that the recipe no longer plans; with `remove`, they and their records go."""
    read_state(loaded.output)  # raises where nothing was run: opening a store would make a folder
    plan = prepare(loaded).plan  # without the limit of the last run: what it hid is still wanted
    keep = set()
    for item in plan.items:
        attempt: Item | None = item
        while attempt is not None:
            keep.add(attempt.job.id)
            attempt = plan.next_attempt(attempt, Verdict(False))
    with RunStore(loaded.output, loaded.recipe.image.format) as store:
        return store.drop_all_but(keep, remove=remove)


def _rounds(plan: Plan, recipe: Recipe, store: RunStore, batch_size: int) -> Iterator[list[Batch]]:
    """What is left to make: first of the plan itself, then, when that is wholly committed, of the next attempts.

    Ask for a round when the one before is committed: who is rejected decides it. Batches are cut from a whole round before
    what is done is taken away, so that a resumed run makes the same ones.
    """
    items: Sequence[Item] = plan.items
    while items:
        if batches := pending_batches(cut_batches(items, batch_size), store.done(), store.records.keys()):
            yield batches
        items = next_round(plan, recipe, items, store.present())


def next_round(plan: Plan, recipe: Recipe, items: Sequence[Item], present: dict[str, Record]) -> list[Item]:
    """The attempts that follow a round of `items`: of those that are rejected. None before the round is wholly made."""
    if any(item.job.id not in present for item in items):
        return []
    checks = {condition.name: recipe.checks_for(condition) for condition in recipe.conditions}
    verdicts = (
        judge(present[item.job.id], checks[name := item.job.settings.condition], name, plan.review.get(item.job.id))
        for item in items
    )
    following = [plan.next_attempt(item, verdict) for item, verdict in zip(items, verdicts, strict=True)]
    return [item for item in following if item is not None]


def _settle(
    store: RunStore, prepared: Prepared, judges: Judges, make_worker: MakeWorker | None, talk: Talk
) -> tuple[dict[str, Any], MakeWorker]:
    """Batch size and threads: a run folder keeps its first choice, so that resuming gives the same bytes."""
    recipe, model = prepared.recipe, prepared.model
    if prepared.plan.needs_masks:
        require_masks()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if make_worker is not None:
        size = recipe.batch_size if isinstance(recipe.batch_size, int) else AUTO_BATCH["cpu"]
        return store.settle(batch_size=size, threads=cores), make_worker
    prepared, device, dtype, why = choose_device(prepared)
    wanted = AUTO_BATCH.get(device, AUTO_BATCH_ACCELERATOR) if recipe.batch_size == "auto" else recipe.batch_size
    kept = store.settle(batch_size=wanted, threads=cores)
    talk(f"model {model.name}, {why}, batches of {kept['batch_size']}")
    if recipe.batch_size not in ("auto", kept["batch_size"]):
        talk(f"batch_size stays {kept['batch_size']}, as this run folder began; a new folder takes the new one")
    return kept, worker_on(prepared, device, dtype, kept["threads"], judges)


def keep_recipe(store: RunStore, loaded: LoadedRecipe) -> None:
    """For a folder that has none yet; the recipe of a run stays the one that its dataset was made by."""
    if not (store.folder / "recipe.yaml").exists():
        write_atomically(store.folder / "recipe.yaml", loaded.to_yaml(store.folder, aliases()))


def choose_device(prepared: Prepared) -> tuple[Prepared, str, str, str]:
    """(the same with its model laid out for the device, device, number type, all with their reasons for people)."""
    from diffgen.editors.loading import pick_device, pick_dtype
    from diffgen.editors.placing import pick_layout

    recipe, model = prepared.recipe, prepared.model
    device, why_device = pick_device(recipe.device)
    dtype, why_dtype = pick_dtype(recipe.dtype, device)
    layout, why_layout = pick_layout(recipe.memory, device, dtype, model)
    why = f"device {device} ({why_device}), {dtype} ({why_dtype})"
    why += f", memory {layout} ({why_layout})" if why_layout else ""
    return replace(prepared, model=replace(model, layout=layout)), device, dtype, why


def worker_on(
    prepared: Prepared, device: str, dtype: str, threads: int, judges: Judges | None = None
) -> Callable[[], Worker]:
    """What loads the model and makes the worker of this process."""
    model, dataset = prepared.model, prepared.dataset
    if judges is not None:
        judges = replace(judges, names=dataset.names, inserted=prepared.plan.inserted)
    return lambda: load_worker(model, device, dtype, threads, len(dataset.names), dataset.keypoints, judges)


def make_images(
    store: RunStore,
    prepared: Prepared,
    rounds: Iterator[list[Batch]],
    make_worker: MakeWorker,
    deadline: float | None,
    progress: Progress,
    talk: Talk,
) -> tuple[int, str | None]:
    """Execute and commit; returns how many images were made, and why it stopped early."""
    total = finished = accepted = made = 0
    cut_short = False
    recipe, review = prepared.recipe, prepared.plan.review
    checks = {condition.name: recipe.checks_for(condition) for condition in recipe.conditions}
    with _signals(talk) as stop, progress:
        worker = make_worker()
        environment = store.environment(worker.environment)

        def stopping() -> bool:
            if deadline is not None and time.monotonic() >= deadline and not stop:
                stop.append("max-minutes")
            return bool(stop)

        for batches in rounds:
            done = store.done()
            total += sum(item.job.id not in done for batch in batches for item in batch.items)
            progress.update(finished, total, accepted, batches[0].items[0].job.settings.condition)
            results: Iterator[list[Result]] = local(worker, batches, stopping)
            for batch, batch_results in zip(batches, results, strict=False):
                fresh = (result for result in batch_results if result.record.id not in done)
                stamped = [replace(r, record=replace(r.record, environment=environment)) for r in fresh]
                store.commit(stamped)
                # Conditions of equal settings share batches: each image is judged by its own.
                names = {item.job.id: item.job.settings.condition for item in batch.items}
                finished += len(stamped)
                made += sum(result.image is not None for result in stamped)
                for record in (result.record for result in stamped):
                    name = names[record.id]
                    accepted += judge(record, checks[name], name, review.get(record.id)).accepted
                progress.update(finished, total, accepted, batch.items[-1].job.settings.condition)
            if stop:
                cut_short = finished < total or next(rounds, None) is not None
                break
    return made, stop[0] if stop and cut_short else None


@contextmanager
def _signals(talk: Talk) -> Iterator[list[str]]:
    """Ctrl-C and SIGTERM put their name in the list, so that the batches in hand are finished; a second one ends at once."""
    stop: list[str] = []

    def handle(number: int, _: Any) -> None:
        name = signal.Signals(number).name
        if any(reason != "max-minutes" for reason in stop):
            os._exit(STOP_CODES[name])  # what is committed is safe at any moment
        stop.insert(0, name)
        talk(f"{name}: finishing the batches in hand; once more to stop at once. Run the same command again to go on.")

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handle)
    except ValueError:  # not the main thread: whoever started us handles signals
        before = {}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def summarise(
    prepared: Prepared,
    plan: Plan,
    judged: Sequence[Judged],
    *,
    made_now: int = 0,
    stopped: str | None = None,
    seconds: float = 0.0,
) -> Summary:
    """Count. Items are counted, not jobs: a source that stands twice in the dataset counts twice."""
    rejected: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    conditions: dict[str, Counter[str]] = {c.name: Counter(planned=0, accepted=0) for c in prepared.recipe.conditions}
    errors: list[str] = []
    pending = saved = to_review = unjudged = 0
    recipe = prepared.recipe
    looks = {"found": recipe.detector, "clip": recipe.clip} if recipe.text2img is None else {}
    for entry in judged:
        count = conditions[entry.item.job.settings.condition]
        count["planned"] += 1
        if entry.record is None or entry.verdict is None:
            pending += 1
        elif entry.record.status == "failed":
            failed[entry.record.kind or "transient"] += 1
            errors.append(entry.record.error or "")
        elif entry.accepted:
            count["accepted"] += 1
            saved += entry.item.job.attempt > 0
            to_review += entry.weak
            unjudged += any(named and fact not in entry.record.facts for fact, named in looks.items())
        else:
            rejected[entry.verdict.reason or ""] += 1
    there = {source.split for source in plan.sources if is_carried(source, prepared.recipe)}
    there |= {entry.item.source.split for entry in judged if entry.accepted}
    # Of text2img without a val of its own, train is val too.
    needed = ("train",) if prepared.recipe.text2img is not None else ("train", "val")
    unedited = Counter(s.problem.partition(":")[0] for s in plan.sources if s.problem is not None)
    return Summary(
        output=str(prepared.output),
        planned=len(judged),
        accepted=sum(count["accepted"] for count in conditions.values()),
        rejected=dict(sorted(rejected.items())),
        failed=dict(sorted(failed.items())),
        pending=pending,
        conditions={name: dict(count) for name, count in conditions.items()},
        sources=dict(Counter(source.split for source in plan.sources if source.digest)),
        not_edited=dict(sorted(unedited.items())),
        made_now=made_now,
        seconds=seconds,
        stopped=stopped,
        require=prepared.recipe.require.accepted,
        saved=saved,
        to_review=to_review,
        unjudged=unjudged,
        errors=sorted(set(errors)),
        empty=[split for split in needed if split not in there],
    )
