"""A run by several processes of this machine: starts them, waits, and exports what they made."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from diffgen.dataset.dataset import require_confined
from diffgen.errors import UsageError
from diffgen.files import shown
from diffgen.models.networks import require_detector_file
from diffgen.models.resolve import to_keep
from diffgen.recipe.load import LoadedRecipe
from diffgen.run.executors.processes import commands_for, run_processes
from diffgen.run.executors.ray import connect, places, run_ray
from diffgen.run.interrupts import interruptible
from diffgen.run.loop import begin, export_outputs, run
from diffgen.run.part import Part
from diffgen.run.progress import Progress
from diffgen.run.session import Notify, Session
from diffgen.run.store.store import RunStore
from diffgen.run.summary import Summary, summarise

# Runs the workers: (run folder, progress, images to make, notify, stopping) -> the names of those that died.
Executor = Callable[[Path, Progress, int, Notify, Callable[[], bool]], list[str]]


def run_together(
    loaded: LoadedRecipe,
    workers: Executor,
    *,
    limit: int | None = None,
    max_minutes: float | None = None,
    progress: Progress | None = None,
    notify: Notify = lambda _: None,
    confined: bool = False,
    remake: bool = False,
    fetch: bool = True,
) -> Summary:
    """Like `loop.run`, with several `workers`. Raises DiffgenError if one fails or all die. `fetch` downloads what the model
    needs, once for all."""
    started = time.monotonic()
    session = Session.open(loaded, limit, remake=remake)
    if confined:
        require_confined(session.dataset)
    session.check_runnable()
    require_detector_file(session.model.observers)
    stopped, made = None, 0
    with RunStore(session.folder, session.recipe.image.format) as store:
        outcome = session.outcome(store.present)
        begin(session, store, None, notify, finished=outcome.finished)
        repaired, before = store.repaired, len(store.done)
        if not outcome.finished:
            session.check_version()
            if fetch:
                session = session.fetched()
                kept = to_keep(session.model)
                store.note(**{key: {**(store.state.get(key) or {}), **kept[key]} for key in kept if kept[key]})
            left = len({item.job.id for item in session.plan.items} - store.done)
            notify(f"{left} images to make in {shown(store.folder)}, by several workers")
            store.share()
            deadline = None if max_minutes is None else started + 60 * max_minutes
            stopped = _work(workers, store.folder, progress or Progress(), left, notify, deadline)
    with RunStore(session.folder, session.recipe.image.format) as store:
        made = len(store.done) - before
        session = Session.open(loaded, limit)
        outcome = session.outcome(store.present)
        summary = summarise(outcome, made_now=made, stopped=stopped, repaired=[*repaired, *store.repaired], limit=limit)
        if stopped in (None, "max-minutes"):
            export_outputs(outcome, summary, store.state["environments"])
    return replace(summary, seconds=round(time.monotonic() - started, 1))


def _work(
    workers: Executor, folder: Path, progress: Progress, left: int, notify: Notify, deadline: float | None
) -> str | None:
    """Returns why it stopped early, or None."""
    with interruptible(notify, "each worker finishes the batch on its device") as stop, progress:

        def stopping() -> bool:
            if deadline is not None and time.monotonic() >= deadline and not stop:
                stop.append("max-minutes")
            return bool(stop)

        workers(folder, progress, left, notify, stopping)
        return stop[0] if stop else None


def gpu_numbers(text: str) -> list[str]:
    """Parse `all` or numbers such as `0,2` as GPU numbers. Raises UsageError if there are no such GPUs."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = [str(i) for i in range(count)] if text == "all" else [part.strip() for part in text.split(",")]
    if not count or not wanted or any(not part.isdigit() or int(part) >= count for part in wanted):
        raise UsageError(f"--gpus {text}: torch sees {count} GPUs", "give `all`, or numbers from 0 such as --gpus 0,1")
    return list(dict.fromkeys(wanted))


def over_ray(loaded: LoadedRecipe, address: str | None, workers: int | None, options: dict[str, Any]) -> Executor:
    """Workers over a Ray cluster; `options` are those of `loop.run`. Raises UsageError where there is no Ray or no GPU."""
    ray = connect(address)
    asked = places(ray, workers)
    sharing = 1 if workers is None else workers

    def work(name: str, progress: Progress) -> None:
        run(loaded, **options, progress=progress, part=Part(name, sharing=sharing))

    return partial(run_ray, ray, work, asked)


def as_processes(options: Sequence[str], workers: int, gpus: Sequence[str] | None) -> Executor:
    """`count` worker processes on this machine, or one per GPU; `options` are those of the command line."""
    return partial(run_processes, commands_for(options, workers, gpus))
