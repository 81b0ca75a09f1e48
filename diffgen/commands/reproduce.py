"""One image of a run made again, and whether it is the same to the last byte. Writes nothing into the run folder.

The last bits depend on which images run together, so the whole batch is made again in which the image was made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffgen.dataset.images import decode
from diffgen.dataset.masks import require_opencv
from diffgen.errors import DiffgenError, UsageError
from diffgen.files import image_path, write_atomically
from diffgen.models.model import require_on_disk
from diffgen.models.networks import Observers
from diffgen.plan.batches import cut_batches
from diffgen.plan.plan import Plan
from diffgen.recipe.load import LoadedRecipe
from diffgen.run.session import Notify, Session
from diffgen.run.store.images import read_present
from diffgen.run.store.records import read_commits
from diffgen.run.store.state import read_state
from diffgen.run.worker import Work
from diffgen.run.worker_setup import MakeWorker
from diffgen.types import Batch, Item, Record

JUDGES = ("detector", "ultralytics", "clip")  # parts of an environment that look at an image and do not change it


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came out. The differences are of pixel values (0–255), None where the image that the run made is away."""

    job: str
    source: str
    condition: str
    attempt: int
    batch: int  # images made together, this one included
    identical: bool
    max_difference: int | None
    mean_difference: float | None
    environment: dict[str, list[Any]] | None  # what differs: [then, now]; None where the one of then is not known

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
    """Make the image of a job again, which is named by its id or the beginning of it; `keep` is a file to write it to.

    Raises UsageError for an id of no image in the run folder, DiffgenError where it cannot be made again.
    """
    folder, state = loaded.output, read_state(loaded.output)
    commits = [records for records, _ in read_commits(folder)]
    record = _record(folder, commits, job)
    session = Session.open(loaded)
    (company,) = [records for records in commits if any(other is record for other in records)]
    batches = _batches(session, [other.id for other in company], record.id, state["batch_size"])
    worker = (make_worker or _loader(session, state["threads"], notify))()
    batch, image = _made(worker, batches, record)
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
    """The newest record of the one job whose id begins with `start`."""
    records = {record.id: record for records in commits for record in records}
    found = [record for key, record in records.items() if key.startswith(start)]
    if not found:
        raise UsageError(
            f"{folder} has no job '{start}'", "ids are the names of the files in images/, and in dataset/manifest.jsonl"
        )
    if (count := len(found)) > 1:
        raise UsageError(f"{count} jobs begin with '{start}'", "give more of the id")
    if found[0].status != "made":
        raise UsageError(f"job {found[0].id} made no image: {found[0].error}", "choose one that did")
    return found[0]


def _batches(session: Session, company: Sequence[str], job: str, batch_size: int) -> list[Batch]:
    """The batches in which the image may have been made, the likelier one first; nearly always they are the same.

    What was committed with it is what it was made with, also under another `--limit` than today's. Not so where a batch ran
    again for some of its images: then it is the batch that the plan has for it.
    """
    plan = session.plan
    items = _find(plan, {*company})
    if job not in items:
        raise UsageError(
            f"the recipe of this run folder does not plan job {job}",
            "it was made by other settings, such as an older recipe or a swept preview, or its source has changed",
        )
    present = read_present(session.folder, session.recipe.image.format)
    around: Sequence[Item] = plan.items
    for _ in range(items[job].job.attempt):
        around = session.judging.next_round(around, present, plan)
    rounds = [around]
    if len(items) == len(company):
        rounds.insert(0, [items[other] for other in company])
    found = [batch for items in rounds for batch in cut_batches(items, batch_size)]
    holding = [batch for batch in found if any(item.job.id == job for item in batch.items)]
    return list(dict.fromkeys(holding)) or [Batch((items[job],))]


def _find(plan: Plan, wanted: set[str]) -> dict[str, Item]:
    """The items of these jobs, whichever attempt they are; those that the plan does not hold are left out."""
    found: dict[str, Item] = {}
    for item in plan.all_attempts():
        if item.job.id in wanted:
            found.setdefault(item.job.id, item)
            if len(found) == len(wanted):
                break
    return found


def _loader(session: Session, threads: int, notify: Notify) -> MakeWorker:
    """The worker as `run` would make it now, with the threads that this run folder keeps to, and without observers."""
    if session.plan.needs_masks:
        require_opencv()
    require_on_disk(session.model)
    session = session.on_device(threads)
    assert session.device is not None
    notify(f"model {session.model.name}, {session.device.reason}")
    return replace(session, model=replace(session.model, observers=Observers())).make_worker()


def _made(worker: Work, batches: Sequence[Batch], record: Record) -> tuple[Batch, bytes]:
    """The image, made in each of the batches in turn until one gives the recorded bytes; else in the last."""
    for batch in batches:
        (result,) = [result for result in worker(batch) if result.record.id == record.id]
        if result.image is None:
            raise DiffgenError(
                f"job {record.id} cannot be made again: {result.record.error}",
                "mend that and run the same command again",
            )
        image = result.image
        if _sha256(image) == record.sha256:
            break
    return batch, image


def _sha256(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()


def _differences(made_then: Path, made_now: bytes) -> tuple[int, float] | tuple[None, None]:
    """(largest, mean) difference of pixel values."""
    if not made_then.is_file():
        return None, None
    then, now = (decode(raw).astype(np.int16) for raw in (made_then.read_bytes(), made_now))
    difference = np.abs(then - now)
    return int(difference.max()), round(float(difference.mean()), 4)


def _changes(then: dict[str, Any], now: dict[str, Any]) -> dict[str, list[Any]]:
    keys = sorted((then.keys() | now.keys()) - set(JUDGES))
    return {key: [then.get(key), now.get(key)] for key in keys if then.get(key) != now.get(key)}


def reproduction_text(found: Reproduction) -> str:
    """For people."""
    again = f"{found.source} under {found.condition}, attempt {found.attempt + 1}, made in a batch of {found.batch}"
    lines = [f"{'identical' if found.identical else 'differs':<12} {again}  {found.job}"]
    if not found.identical and found.max_difference is not None:
        lines.append(f"pixels       at most {found.max_difference} of 255 apart, {found.mean_difference:g} in the mean")
    if not found.identical and found.max_difference is None:
        lines.append("pixels       not compared: the image that the run made is away")
    if found.environment is None:
        lines.append("environment  of the run not known")
    elif not found.environment:
        lines.append("environment  the same")
    else:
        lines += [f"environment  {key}: {then} then, {now} now" for key, (then, now) in found.environment.items()]
    return "\n".join(lines)
