"""The loop of a run: while jobs are pending, make and commit them; then judge, export, sum up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from diffgen.models.networks import require_detector_file
from diffgen.output.export import export_dataset
from diffgen.output.outcome import Outcome
from diffgen.output.report.page import write_report
from diffgen.plan.batches import cut_batches, pending_batches
from diffgen.recipe.load import LoadedRecipe
from diffgen.run.executors.local import local
from diffgen.run.progress import Progress, Silent
from diffgen.run.session import Notify, Session, make_ready
from diffgen.run.store.store import RunStore
from diffgen.run.summary import STOP_CODES, Summary, summarise
from diffgen.run.worker_setup import MakeWorker
from diffgen.types import Batch, Item, Result


def run(
    loaded: LoadedRecipe,
    *,
    limit: int | None = None,
    max_minutes: float | None = None,
    make_worker: MakeWorker | None = None,
    progress: Progress | None = None,
    notify: Notify = lambda _: None,
) -> Summary:
    """Make what is missing, then export. A second call of a finished run makes nothing and loads no torch.

    `make_worker` replaces the worker of this process (tests, other executors). Raises DiffgenError.
    """
    started = time.monotonic()
    session = Session.open(loaded, limit)
    require_detector_file(session.model.observers)
    made_now, stopped = 0, None
    with RunStore(session.folder, session.recipe.image.format) as store:
        session.write_recipe()
        store.note(limit=limit)
        if has_work(session, store):
            session, batch_size, make = make_ready(session, store, make_worker, notify)
            jobs = {item.job.id for item in session.plan.items}
            left = len(jobs - store.done())
            notify(f"{left or 'more attempts at rejected ones'} of {len(jobs)} images to make in {store.folder}")
            deadline = None if max_minutes is None else started + 60 * max_minutes
            making = Making(session, store, progress or Silent(), notify, deadline)
            made_now, stopped = making.run(_rounds(session, store, batch_size), make)
            # A night may have passed: export what the dataset says now, never a label that has changed since.
            session = session.reread()
        outcome = session.outcome(store.present())
        summary = summarise(outcome, made_now=made_now, stopped=stopped)
        if stopped in (None, "max-minutes"):  # whoever interrupts wants it to end now; the next run exports
            export_outputs(outcome, summary, store.state["environments"])
    return replace(summary, seconds=round(time.monotonic() - started, 1))


def export_outputs(outcome: Outcome, summary: Summary, environments: Mapping[str, Any]) -> None:
    """The dataset, and then the report, which speaks of it."""
    export_dataset(outcome)
    write_report(outcome, summary.to_dict(), environments)


def has_work(session: Session, store: RunStore) -> bool:
    """Whether an image is still to be made, of the plan or of a later attempt."""
    done = store.done()
    return any(item.job.id not in done for items in _attempts(session, store) for item in items)


def _attempts(session: Session, store: RunStore) -> Iterator[Sequence[Item]]:
    """The plan's items, then, when all of those are committed, the next attempts at rejected ones, and so on.

    Ask for a round only when the one before is committed: which images are rejected decides it.
    """
    items: Sequence[Item] = session.plan.items
    while items:
        yield items
        items = session.judging.next_round(items, store.present(), session.plan)


def _rounds(session: Session, store: RunStore, batch_size: int) -> Iterator[list[Batch]]:
    """The batches left of each round of attempts.

    Batches are cut from a whole round before what is done is taken away, so that a resumed run makes the same ones.
    """
    for items in _attempts(session, store):
        if batches := pending_batches(cut_batches(items, batch_size), store.done(), store.records.keys()):
            yield batches


@dataclass(slots=True)
class Making:
    """Makes rounds of batches and commits each batch, counting as it goes. `deadline` is a time.monotonic()."""

    session: Session
    store: RunStore
    progress: Progress
    notify: Notify
    deadline: float | None = None
    total: int = 0  # images of the rounds begun so far
    finished: int = 0  # of those, made or failed
    accepted: int = 0
    made: int = 0

    def run(self, rounds: Iterator[list[Batch]], make_worker: MakeWorker) -> tuple[int, str | None]:
        """How many images were made, and why it stopped early, if it did: "SIGINT", "SIGTERM" or "max-minutes"."""
        with _signals(self.notify) as stop, self.progress:
            worker = make_worker()
            environment = self.store.environment(worker.environment)

            def stopping() -> bool:
                if self.deadline is not None and time.monotonic() >= self.deadline and not stop:
                    stop.append("max-minutes")
                return bool(stop)

            for batches in rounds:
                done = self.store.done()
                self.total += sum(item.job.id not in done for batch in batches for item in batch.items)
                self._show(batches[0].items[0])
                for batch, results in zip(batches, local(worker, batches, stopping), strict=False):
                    self._commit(batch, [result for result in results if result.record.id not in done], environment)
                if stop:
                    cut_short = self.finished < self.total or next(rounds, None) is not None
                    return self.made, stop[0] if cut_short else None
        return self.made, None

    def _commit(self, batch: Batch, results: Sequence[Result], environment: str) -> None:
        stamped = [replace(result, record=replace(result.record, environment=environment)) for result in results]
        self.store.commit(stamped)
        # Conditions of equal settings share batches: each image is judged by its own condition.
        items = {item.job.id: item for item in batch.items}
        for result in stamped:
            self.finished += 1
            self.made += result.image is not None
            self.accepted += self.session.judging.verdict(items[result.record.id], result.record).accepted
        self._show(batch.items[-1])

    def _show(self, item: Item) -> None:
        self.progress.update(self.finished, self.total, self.accepted, item.job.settings.condition)


@contextmanager
def _signals(notify: Notify) -> Iterator[list[str]]:
    """Ctrl-C and SIGTERM put their name in the list, so that the batches in hand are finished; a second one ends at once."""
    stop: list[str] = []

    def handle(number: int, _: Any) -> None:
        name = signal.Signals(number).name
        if any(reason != "max-minutes" for reason in stop):
            os._exit(STOP_CODES[name])  # what is committed is safe at any moment
        stop.insert(0, name)
        notify(
            f"{name}: finishing the batches in hand; once more to stop at once. Run the same command again to go on."
        )

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
