"""The loop of a run: make and commit pending jobs until none is left; then judge, export and summarise."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diffgen.dataset.dataset import require_confined
from diffgen.dataset.remarks import labelled
from diffgen.errors import UsageError
from diffgen.files import shown
from diffgen.models.networks import require_detector_file
from diffgen.output.export import export_dataset
from diffgen.output.outcome import Outcome
from diffgen.output.report.page import write_report
from diffgen.recipe.load import LoadedRecipe
from diffgen.run.executors.local import local
from diffgen.run.interrupts import interruptible
from diffgen.run.lanes import due_batches
from diffgen.run.log import both, logged
from diffgen.run.part import Part
from diffgen.run.progress import Progress
from diffgen.run.session import OLDER_IMAGES, Notify, Session, make_ready
from diffgen.run.store.store import RunStore
from diffgen.run.summary import Summary, summarise
from diffgen.run.worker_setup import MakeWorker
from diffgen.types import EDIT_VERSION, Batch, Item, Result, digest_of

END = object()  # of an iterator


def run(
    loaded: LoadedRecipe,
    *,
    limit: int | None = None,
    max_minutes: float | None = None,
    make_worker: MakeWorker | None = None,
    progress: Progress | None = None,
    notify: Notify = lambda _: None,
    each: Notify = lambda _: None,
    confined: bool = False,
    remake: bool = False,
    export: bool = True,
    part: Part | None = None,
) -> Summary:
    """Make the missing images, then export, unless `export` is False. For a finished run it makes nothing and does not
    import torch.

    `limit` edits only the first sources of each split; `max_minutes` stops early; `notify` gets status lines, and `each` a
    line for every image; `confined` refuses names that lead outside of the dataset; `remake` makes the images of an older
    diffgen anew; `make_worker` replaces this process's worker (for tests); with a `part` other processes make images in the
    folder at the same time, and nothing is exported. Raises UsageError for a recipe that does not suit its dataset or
    model, DiffgenError when the run cannot go on.
    """
    started = time.monotonic()
    session = Session.open(loaded, limit, remake=remake)
    if confined:
        require_confined(session.dataset)
    session.check_runnable()
    require_detector_file(session.model.observers)
    made_now, stopped, speed = 0, None, None
    name = "0" if part is None else part.worker
    with RunStore(session.folder, session.recipe.image.format, name, shared=part is not None) as store:
        outcome = session.outcome(store.present)
        if not outcome.finished and make_worker is None:
            session.check_device()  # before anything is written
        begin(session, store, part, notify, finished=outcome.finished)
        if not outcome.finished:
            with logged(store.folder, name) as log:
                said = both(log, notify)
                session, batch_size, make = make_ready(session, store, make_worker, said, part.sharing if part else 1)
                jobs = {item.job.id for item in session.plan.items}
                left = len(jobs - store.done)
                todo = f"{left} of {len(jobs)} images to make" if left else "rejected images to retry"
                said(f"{todo} in {shown(store.folder)}")
                deadline = None if max_minutes is None else started + 60 * max_minutes
                making = Making(session, store, progress or Progress(), said, deadline, left, each, both(log, each))
                mine = part.has if part else lambda _: True
                made_now, stopped = making.run(
                    due_batches(session.plan, session.judging, store, batch_size, mine), make
                )
            speed = making.speed
            # A run can take all night: read the dataset again, so that no outdated label is exported.
            session = session.reread()
            store.refresh()
            outcome = session.outcome(store.present)
        summary = summarise(outcome, made_now=made_now, stopped=stopped, repaired=store.repaired, limit=limit)
        if export and part is None and stopped in (None, "max-minutes"):  # after an interrupt, end at once
            export_outputs(outcome, summary, store.state["environments"])
    name_of_part = part.worker if part else None
    return replace(summary, seconds=round(time.monotonic() - started, 1), speed=speed, part=name_of_part)


def begin(session: Session, store: RunStore, part: Part | None, notify: Notify, *, finished: bool) -> None:
    """Write down what is being made. Raises UsageError if this diffgen, or other workers, would make other images."""
    if not finished:
        session.check_version()
    elif session.edit_version != EDIT_VERSION:
        notify(f"{session.folder}: {OLDER_IMAGES}; --remake replaces them")
    if changed := session.changed_keys():
        notify(f"changed since the last run or export: {', '.join(changed)}; this recipe now applies")
    plan = digest_of(*(item.job.id for item in session.plan.items))[:16]
    with store.changing_state() as state:
        if part is not None and (others := store.claims().at_another(plan)):
            raise UsageError(
                f"{session.folder}: {len(others)} workers are making images of another recipe or dataset there",
                "start all workers with the same recipe, dataset and limit, or wait until the others are done",
            )
        if part is not None:
            store.claims().note_plan(plan)
        state |= {"plan": plan, "limit": session.limit, "labelled": labelled(session.dataset)}
        state["edit_version"] = session.edit_version
        session.write_recipe()


def export_outputs(
    outcome: Outcome, summary: Summary, environments: Mapping[str, Any], *, staged: bool = False
) -> None:
    """Write the dataset, with `staged` also for training in stages, and the report."""
    export_dataset(outcome, staged=staged)
    write_report(outcome, summary.to_dict(), environments)


@dataclass(slots=True)
class Making:
    """Makes batches, commits each and counts images. `deadline` is a value of time.monotonic(); `total` counts the images
    to make, if they are known."""

    session: Session
    store: RunStore
    progress: Progress
    notify: Notify
    deadline: float | None
    total: int
    made_one: Notify = lambda _: None
    failed_one: Notify = lambda _: None
    finished: int = 0  # made or failed
    accepted: int = 0
    made: int = 0
    speed: dict[str, Any] | None = None  # see Timings.facts

    def run(self, batches: Iterator[Batch | None], make_worker: MakeWorker) -> tuple[int, str | None]:
        """Returns the number of images made, and why it stopped early: a signal, "max-minutes" or None."""
        with interruptible(self.notify, "finishing the batch on the device") as stop, self.progress:
            worker = make_worker()
            environment = self.store.environment(worker.environment)

            def stopping() -> bool:
                if self.deadline is not None and time.monotonic() >= self.deadline and not stop:
                    stop.append("max-minutes")
                return bool(stop)

            worker.stopping = stopping
            self._show("starting")
            for batch, results in local(worker, self._counted(batches), stopping):
                new = [result for result in results if result.record.id not in self.store.done]
                with worker.timings.part("commit"):
                    self._commit(batch, new, environment)
                self.speed = worker.timings.facts(self.made, self.accepted)
            if stop:
                cut_short = self.finished < self.total or next(batches, END) is not END
                return self.made, stop[0] if cut_short else None
        return self.made, None

    def _counted(self, batches: Iterator[Batch | None]) -> Iterator[Batch | None]:
        """Adds the retries to the images to make, as they become due."""
        for batch in batches:
            if batch is not None:
                ids = {item.job.id for item in batch.items if item.job.attempt}
                self.total += len(ids - self.store.done)
            yield batch

    def _commit(self, batch: Batch, results: Sequence[Result], environment: str) -> None:
        stamped = [replace(result, record=replace(result.record, environment=environment)) for result in results]
        self.store.commit(stamped)
        # Conditions with equal settings share batches, but each image is judged by its own condition's checks.
        items = {item.job.id: item for item in batch.items}
        for result in stamped:
            self.finished += 1
            self.made += result.image is not None
            item = items[result.record.id]
            verdict = self.session.judging.verdict(item, result.record)
            self.accepted += verdict.accepted
            if result.image is None:
                self.failed_one(f"{_name(item)}: failed, {result.record.error}")
            else:
                self.made_one(f"{_name(item)}: {'accepted' if verdict.accepted else f'rejected, {verdict.reason}'}")
        self._show(batch.items[-1].job.settings.condition)

    def _show(self, condition: str) -> None:
        self.progress.update(self.finished, self.total, self.accepted, condition)


def _name(item: Item) -> str:
    again = f", attempt {item.job.attempt + 1}" if item.job.attempt else ""
    return f"{item.job.id} {item.source.key} {item.job.settings.condition}-{item.job.variant}{again}"
