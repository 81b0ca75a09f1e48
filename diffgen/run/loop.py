"""The spine: while there are jobs pending, execute and commit; then judge, export, sum up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from diffgen.checks.verdict import judge
from diffgen.files import write_atomically
from diffgen.models.aliases import aliases
from diffgen.output.export import export_dataset
from diffgen.output.outcome import Judged, judge_plan
from diffgen.output.report.page import write_report
from diffgen.plan.batches import cut_batches, pending_batches
from diffgen.plan.plan import Plan
from diffgen.recipe.load import LoadedRecipe
from diffgen.recipe.schema import Recipe
from diffgen.run.executors.local import local
from diffgen.run.progress import Progress, Silent
from diffgen.run.session import Notify, Prepared, make_ready, prepare
from diffgen.run.store.store import RunStore
from diffgen.run.summary import STOP_CODES, Summary, summarise
from diffgen.run.worker_setup import Detectors, MakeWorker
from diffgen.types import Batch, Item, Record, Result


def run(
    loaded: LoadedRecipe,
    *,
    limit: int | None = None,
    max_minutes: float | None = None,
    make_worker: MakeWorker | None = None,
    progress: Progress | None = None,
    talk: Notify = lambda _: None,
) -> Summary:
    """Make what is missing, then export. A second call of a finished run makes nothing and loads no torch.

    `make_worker` replaces the worker of this process (tests, other executors). Raises DiffgenError.
    """
    started = time.monotonic()
    judges = Detectors(loaded.detector)
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
            export_outputs(store, plan, recipe, judged, summary)
    return replace(summary, seconds=round(time.monotonic() - started, 1))


def export_outputs(store: RunStore, plan: Plan, recipe: Recipe, judged: list[Judged], summary: Summary) -> None:
    """The dataset, and then the report: what it says is there."""
    export_dataset(store.folder, plan, recipe, judged)
    write_report(store.folder, plan, recipe, judged, summary.to_dict(), store.state["environments"])


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


def make_images(
    store: RunStore,
    prepared: Prepared,
    rounds: Iterator[list[Batch]],
    make_worker: MakeWorker,
    deadline: float | None,
    progress: Progress,
    talk: Notify,
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
def _signals(talk: Notify) -> Iterator[list[str]]:
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
