"""A run by several processes of this machine: starts them, waits, and exports what they made."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from diffgen.dataset.dataset import require_confined
from diffgen.errors import UsageError
from diffgen.models.networks import require_detector_file
from diffgen.models.resolve import to_keep
from diffgen.recipe.load import LoadedRecipe
from diffgen.run.executors.processes import Command, run_processes
from diffgen.run.interrupts import interruptible
from diffgen.run.loop import begin, export_outputs
from diffgen.run.progress import Progress
from diffgen.run.session import Notify, Session
from diffgen.run.store.store import RunStore
from diffgen.run.summary import Summary, summarise


def run_together(
    loaded: LoadedRecipe,
    commands: Sequence[Command],
    *,
    limit: int | None = None,
    max_minutes: float | None = None,
    progress: Progress | None = None,
    notify: Notify = lambda _: None,
    confined: bool = False,
    remake: bool = False,
    fetch: bool = True,
) -> Summary:
    """As `loop.run`, by the processes of `commands`. Raises DiffgenError where one fails or all die. `fetch` downloads what
    the model needs, once for all."""
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
            notify(f"{left} images to make in {store.folder}, by {len(commands)} workers")
            store.share()
            deadline = None if max_minutes is None else started + 60 * max_minutes
            stopped = _work(store, commands, progress or Progress(), left, notify, deadline)
    with RunStore(session.folder, session.recipe.image.format) as store:
        made = len(store.done) - before
        session = Session.open(loaded, limit)
        outcome = session.outcome(store.present)
        summary = summarise(outcome, made_now=made, stopped=stopped, repaired=[*repaired, *store.repaired], limit=limit)
        if stopped in (None, "max-minutes"):
            export_outputs(outcome, summary, store.state["environments"])
    return replace(summary, seconds=round(time.monotonic() - started, 1))


def _work(
    store: RunStore,
    commands: Sequence[Command],
    progress: Progress,
    left: int,
    notify: Callable[[str], None],
    deadline: float | None,
) -> str | None:
    """Returns why it stopped early, or None."""
    with interruptible(notify, "each worker finishes the batch on its device") as stop, progress:

        def stopping() -> bool:
            if deadline is not None and time.monotonic() >= deadline and not stop:
                stop.append("max-minutes")
            return bool(stop)

        run_processes(store.folder, commands, progress, left, notify, stopping)
        return stop[0] if stop else None


def gpu_numbers(text: str) -> list[str]:
    """`all`, or numbers such as `0,2`, as the numbers of GPUs. Raises UsageError where there are none, or not these."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = [str(i) for i in range(count)] if text == "all" else [part.strip() for part in text.split(",")]
    if not count or not wanted or any(not part.isdigit() or int(part) >= count for part in wanted):
        raise UsageError(f"--gpus {text}: torch sees {count} GPUs", "give `all`, or numbers from 0 such as --gpus 0,1")
    return list(dict.fromkeys(wanted))
