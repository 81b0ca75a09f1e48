"""`diffgen verify`: read everything in a run folder, and name what is damaged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from diffgen.dataset.remarks import MAX_EXAMPLES
from diffgen.files import image_path, read_regular, sha256_or_none, shown
from diffgen.output.croissant import CARD
from diffgen.output.entries import ExportedImage, exported_images
from diffgen.output.export import is_current
from diffgen.recipe.load import LoadedRecipe
from diffgen.run.session import Notify, Session
from diffgen.run.store.images import look_at_images, present_records, unite
from diffgen.run.store.records import read_log, record_files
from diffgen.run.store.state import read_state

EVERY_SECONDS = 30.0  # between lines of progress


@dataclass(slots=True)
class Verification:
    """What `verify` found. Lists hold job ids of images, and paths in dataset/; field names are the JSON keys."""

    output: str
    records: int = 0  # jobs in whole batches
    records_damaged: bool = False
    images: int = 0  # image files that were read
    images_damaged: list[str] = field(default_factory=list)
    images_missing: list[str] = field(default_factory=list)
    dataset: int = 0  # files of dataset/ that were read; 0 if there is none
    dataset_damaged: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return not (self.records_damaged or self.images_damaged or self.images_missing or self.dataset_damaged)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "whole": self.whole}


def verify(loaded: LoadedRecipe, notify: Notify = lambda _: None) -> Verification:
    """Read records, images and dataset, believing no cache. Changes nothing and takes no lock.

    Raises UsageError when it is not a run folder.
    """
    session = Session.open(loaded, read_state(loaded.output).get("limit"))
    folder, image_format = session.folder, session.recipe.image.format
    logs = [read_log(path) for path in record_files(folder)]
    records = unite(folder, image_format, logs)
    found = Verification(str(folder), records=len(records), records_damaged=any(log.damaged for log in logs))
    made = {record.id: record for record in records.values() if record.status == "made"}
    there, _ = look_at_images(folder, image_format, records)
    planned = {item.job.id for item in session.plan.all_attempts()}
    found.images_missing = sorted((made.keys() & planned) - there)  # nobody misses the others
    files = {job_id: image_path(folder, job_id, image_format) for job_id in made if job_id in there}
    found.images = len(files)
    for job_id, right in _checked(
        files, lambda job_id: sha256_or_none(files[job_id]) == made[job_id].sha256, "images", notify
    ):
        if not right:
            found.images_damaged.append(job_id)
    if (folder / "dataset").is_dir():
        outcome = session.outcome(present_records(records, there))
        exported = {image.image: image for image in exported_images(outcome)}
        found.dataset = len(exported)
        target = folder / "dataset"
        for name, right in _checked(
            exported, lambda name: _is_right(target, exported[name]), "exported images", notify
        ):
            if not right:
                found.dataset_damaged.append(name)
        if not (found.images_damaged or found.images_missing) and not is_current(outcome):
            texts = ("data.yaml", "manifest.jsonl", CARD)
            found.dataset_damaged += [name for name in texts if not found.dataset_damaged]
    return found


def forget(found: Verification, loaded: LoadedRecipe) -> None:
    """Remove damaged images and an incomplete dataset, so that `run` makes them again."""
    folder, image_format = loaded.output, loaded.recipe.image.format
    for job_id in found.images_damaged:
        path = image_path(folder, job_id, image_format)
        os.utime(path)  # a new time: opening the folder reads it again, and sets it aside
    if found.dataset_damaged:
        (folder / "dataset" / "manifest.jsonl").unlink(missing_ok=True)


def verification_text(found: Verification) -> str:
    """The findings for a terminal."""
    lines = [
        f"{found.records} records, {found.images} images and {found.dataset} exported images read in "
        f"{shown(found.output)}"
    ]
    if found.records_damaged:
        lines.append("records   damaged: some batches cannot be read")
    lines += _listed("images", found.images_damaged, "changed since they were made")
    lines += _listed("images", found.images_missing, "missing")
    lines += _listed(
        "dataset", found.dataset_damaged, "changed since they were written, or older than the newest records"
    )
    lines.append("everything is intact" if found.whole else f"to repair: diffgen verify {shown(found.output)} --repair")
    return "\n".join(lines)


def _listed(title: str, names: list[str], what: str) -> Iterator[str]:
    if names:
        more = f", … and {len(names) - MAX_EXAMPLES} more" if len(names) > MAX_EXAMPLES else ""
        yield f"{title:<9} {len(names)} {what}: {', '.join(names[:MAX_EXAMPLES])}{more}"


def _checked(
    names: Iterable[str], check: Callable[[str], bool], what: str, notify: Notify
) -> Iterator[tuple[str, bool]]:
    """(name, whether it is right) of each, read side by side; says every half minute how far it is."""
    names, told = list(names), time.monotonic()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for i, right in enumerate(pool.map(check, names)):
            if time.monotonic() - told > EVERY_SECONDS:
                told = time.monotonic()
                notify(f"{i} of {len(names)} {what} read")
            yield names[i], right


def _is_right(target: Path, image: ExportedImage) -> bool:
    """Whether an exported image and its label file have the right bytes."""
    sha = sha256_or_none(target / image.image)
    if sha is None:
        return False
    if image.entry is not None and image.entry.record is not None:
        right = sha == image.entry.record.sha256
    else:
        right = sha.startswith(image.source.image_digest)
    try:
        return right and (not image.labelled or read_regular(target / image.label_file) == (image.label() or b""))
    except OSError:
        return False
