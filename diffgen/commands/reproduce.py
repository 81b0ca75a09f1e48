"""`diffgen reproduce`: make one image of a run again and compare the bytes. Writes nothing into the run folder.

The last bits of an image depend on the other images of its batch, so the whole batch is made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffgen.dataset.geometry import require_opencv
from diffgen.dataset.images import decode
from diffgen.errors import DiffgenError, UsageError
from diffgen.files import image_path, write_atomically
from diffgen.models.model import require_on_disk
from diffgen.models.networks import Observers
from diffgen.plan.batches import cut_batches, cut_lanes
from diffgen.plan.plan import Plan
from diffgen.recipe.load import LoadedRecipe
from diffgen.run.session import Notify, Session
from diffgen.run.store.images import read_present
from diffgen.run.store.records import read_commits
from diffgen.run.store.state import read_state
from diffgen.run.worker import BatchWorker
from diffgen.run.worker_setup import MakeWorker
from diffgen.types import Batch, Item, Record

OBSERVERS = ("detector", "ultralytics", "clip")  # parts of an environment that do not change an image


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The result. Differences are of pixel values (0–255); None if the run's image file is missing."""

    job: str
    source: str
    condition: str
    attempt: int
    batch: int  # images in the batch, this one included
    identical: bool
    max_difference: int | None
    mean_difference: float | None
    environment: dict[str, list[Any]] | None  # what differs: [then, now]; None if the run's environment is unknown

    @property
    def exit_code(self) -> int:
        return 0 if self.identical else 3

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "exit_code": self.exit_code}


def reproduce(
    loaded: LoadedRecipe,
    job: str,
    *,
    keep: Path | None = None,
    make_worker: MakeWorker | None = None,
    notify: Notify = lambda _: None,
) -> Reproduction:
    """Make the image of a job again. `job` is its id or the beginning of it; `keep` is a file to write the image to.

    Raises UsageError when the run folder has no image of that id, DiffgenError when it cannot be made again.
    """
    folder, state = loaded.output, read_state(loaded.output)
    commits = list(read_commits(folder))
    record = _record(folder, commits, job)
    session = Session.open(loaded)
    session.check_version()
    (committed,) = [records for records in commits if any(other is record for other in records)]
    batches = _batches(session, [other.id for other in committed], record.id, state["batch_size"])
    worker = (make_worker or _loader(session, state["threads"], notify))()
    batch, image = _make(worker, batches, record)
    if keep is not None:
        write_atomically(keep, image)
    (item,) = [item for item in batch.items if item.job.id == record.id]
    most, mean = _differences(image_path(folder, record.id, loaded.recipe.image.format), image)
    then = state["environments"].get(record.environment)
    return Reproduction(
        job=record.id,
        source=item.source.key,
        condition=item.job.settings.condition,
        attempt=item.job.attempt,
        batch=len(batch.items),
        identical=_sha256(image) == record.sha256,
        max_difference=most,
        mean_difference=mean,
        environment=None if then is None else _changes(then, worker.environment),
    )


def _record(folder: Path, commits: Sequence[Sequence[Record]], start: str) -> Record:
    """The newest record of the only job whose id begins with `start`."""
    newest = {record.id: record for records in commits for record in records}
    matches = [record for key, record in newest.items() if key.startswith(start)]
    if not matches:
        raise UsageError(
            f"{folder} has no job '{start}'", "ids are the names of the files in images/, and in dataset/manifest.jsonl"
        )
    if len(matches) > 1:
        raise UsageError(f"{len(matches)} jobs begin with '{start}'", "give more of its characters")
    (record,) = matches
    if record.status != "made":
        raise UsageError(f"job {record.id} made no image: {record.error}", "choose a job that made one")
    return record


def _batches(session: Session, committed: Sequence[str], job: str, batch_size: int) -> list[Batch]:
    """The batches in which the image may have been made, the likeliest first; nearly always they are the same.

    Normally the jobs committed together were one batch, also if `--limit` was another then. But if a batch ran again for
    some of its images, only those were committed: then it is the batch that the plan has for the job.
    """
    plan = session.plan
    items = _find(plan, {*committed})
    if job not in items:
        raise UsageError(
            f"the recipe of this run folder does not plan job {job}",
            "it was made with other settings (an older recipe or a preview --sweep), or its source has changed",
        )
    present = read_present(session.folder, session.recipe.image.format)
    lanes = cut_lanes(cut_batches(plan.items, batch_size))
    planned = next(lane for lane in lanes if any(_same_image(items[job], item) for item in lane))
    for _ in range(items[job].job.attempt):
        planned = session.judging.next_round(planned, present, plan)
    rounds = [planned]
    if len(items) == len(committed):
        rounds.insert(0, [items[other] for other in committed])
    batches = [batch for round_items in rounds for batch in cut_batches(round_items, batch_size)]
    with_job = [batch for batch in batches if any(item.job.id == job for item in batch.items)]
    return list(dict.fromkeys(with_job)) or [Batch((items[job],))]


def _same_image(one: Item, other: Item) -> bool:
    """Whether two jobs are attempts at the same image."""
    mine, theirs = one.job, other.job
    return (mine.source, mine.settings.condition, mine.variant) == (
        theirs.source,
        theirs.settings.condition,
        theirs.variant,
    )


def _find(plan: Plan, wanted: set[str]) -> dict[str, Item]:
    """The items of these jobs, at any attempt; jobs that the plan does not contain are left out."""
    items: dict[str, Item] = {}
    for item in plan.all_attempts():
        if item.job.id in wanted:
            items.setdefault(item.job.id, item)
            if len(items) == len(wanted):
                break
    return items


def _loader(session: Session, threads: int, notify: Notify) -> MakeWorker:
    """A maker of `run`'s worker, with the run folder's number of threads and without observers."""
    require_opencv()
    require_on_disk(session.model)
    session = session.on_device(threads)
    assert session.device is not None
    notify(f"model {session.model.name}, {session.device.reason}")
    return replace(session, model=replace(session.model, observers=Observers())).make_worker()


def _make(worker: BatchWorker, batches: Sequence[Batch], record: Record) -> tuple[Batch, bytes]:
    """The first batch that gives the recorded bytes, else the last one, and its image of the job."""
    for batch in batches:
        (result,) = [result for result in worker(batch) if result.record.id == record.id]
        if result.image is None:
            raise DiffgenError(
                f"job {record.id} cannot be made again: {result.record.error}",
                "fix this and run the same command again",
            )
        image = result.image
        if _sha256(image) == record.sha256:
            break
    return batch, image


def _sha256(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()


def _differences(path: Path, image: bytes) -> tuple[int, float] | tuple[None, None]:
    """(largest, mean) difference between the pixel values of a file and an encoded image; Nones without a file."""
    if not path.is_file():
        return None, None
    then, now = (decode(raw).astype(np.int16) for raw in (path.read_bytes(), image))
    difference = np.abs(then - now)
    return int(difference.max()), round(float(difference.mean()), 4)


def _changes(then: dict[str, Any], now: dict[str, Any]) -> dict[str, list[Any]]:
    keys = sorted((then.keys() | now.keys()) - set(OBSERVERS))
    return {key: [then.get(key), now.get(key)] for key in keys if then.get(key) != now.get(key)}


def reproduction_text(result: Reproduction) -> str:
    """A reproduction as text."""
    image = f"{result.source} under {result.condition}, attempt {result.attempt + 1}, made in a batch of {result.batch}"
    lines = [f"{'identical' if result.identical else 'differs':<12} {image}  {result.job}"]
    if not result.identical:
        pixels = "not compared: the run's image file is missing"
        if result.max_difference is not None:
            pixels = f"differ by at most {result.max_difference} of 255, on average {result.mean_difference:g}"
        lines.append(f"pixels       {pixels}")
    if result.environment is None:
        lines.append("environment  of the run: unknown")
    elif not result.environment:
        lines.append("environment  the same")
    else:
        lines += [f"environment  {key}: {then} then, {now} now" for key, (then, now) in result.environment.items()]
    return "\n".join(lines)
