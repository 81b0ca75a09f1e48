"""Accepted records → the YOLO tree that Ultralytics trains on as it is. Derived: safe to delete, made from records.

Built beside and swapped in, so that a half-written or stale dataset is never seen. Holds no times, hosts or absolute
paths, and is in plan order: the same run gives the same bytes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from diffgen.dataset.formats.yolo import label_path
from diffgen.errors import DiffgenError, why
from diffgen.output.entries import ExportedImage, exported_images, is_linked
from diffgen.output.manifest import manifest_row
from diffgen.output.outcome import Judged
from diffgen.plan.plan import Plan
from diffgen.recipe.schema import Recipe
from diffgen.types import EDIT_VERSION, ID_SCHEMA, digest_of

_FICLONE = 0x40049409  # ioctl of Linux: share the blocks of a file (btrfs, xfs)


def export_dataset(folder: Path, plan: Plan, recipe: Recipe, judged: list[Judged]) -> str:
    """Write `folder`/dataset when it is not already what the records say. Returns the export's digest."""
    target = folder / "dataset"
    entries = list(exported_images(folder, plan, recipe, judged))
    digest = _digest(plan, recipe, entries)
    if _exported(target) == digest and all(map(os.path.lexists, _files(target, entries))):
        return digest
    building, old = folder / ".dataset.new", folder / ".dataset.old"
    for place in (target, building, old):
        if place.exists() and not place.is_dir():
            raise DiffgenError(f"{place} is a file, where a folder belongs", "move it away, then run again")
    try:
        for leftover in (building, old):
            _remove(leftover)
        building.mkdir()
        _build(building, plan, recipe, entries, digest)
        if target.exists():
            os.replace(target, old)
        os.replace(building, target)
        _remove(old)
    except OSError as error:
        raise DiffgenError(
            f"{target}: cannot write the dataset: {error.filename or folder}: {why(error)}",
            "make room, or mend what is in the way, then run the same command again; the images made so far are kept",
        ) from error
    return digest


def _remove(folder: Path) -> None:
    """A folder of ours, or the link that somebody put in its place; what a link leads to stays."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _files(target: Path, entries: list[ExportedImage]) -> Iterator[str]:
    """Every file that a whole export has."""
    for entry in entries:
        yield f"{target}/images/{entry.split}/{entry.name}{entry.suffix}"
        if entry.source.label is not None or entry.relabelled:
            yield f"{target}/labels/{entry.split}/{entry.name}.txt"


def _digest(plan: Plan, recipe: Recipe, entries: list[ExportedImage]) -> str:
    """Of everything the export is made from: it changes when the export would."""
    dataset = plan.dataset
    extra = yaml.safe_dump([list(dataset.names), dataset.extra], allow_unicode=True)
    head = f"{ID_SCHEMA} {EDIT_VERSION} {recipe.include_sources} {extra}"
    rows = (
        f"{e.split}/{e.name}{e.suffix} {e.source.digest} {e.source.label is None} {_origin(e, recipe)}" for e in entries
    )
    return digest_of(head, *rows)


def _origin(entry: ExportedImage, recipe: Recipe) -> str:
    """What else decides the file: the image that was made, or where a link leads."""
    if entry.judged is not None and entry.judged.record is not None:
        added = "".join(f" +{row}" for row in entry.judged.added)
        mark = " weak" if entry.judged.weak else ""
        return f"{entry.judged.record.sha256} {list(entry.judged.dropped) or ''}{added}{mark}"
    return str(entry.image) if is_linked(entry, recipe) else str(entry.source.problem)


def _exported(target: Path) -> str | None:
    """The digest in the first line of the manifest, or None when there is no whole export."""
    try:
        with (target / "manifest.jsonl").open(encoding="utf-8") as file:
            head = json.loads(file.readline())
        return str(head["export"]) if (target / "data.yaml").is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _build(building: Path, plan: Plan, recipe: Recipe, entries: list[ExportedImage], digest: str) -> None:
    for entry in entries:
        image = building / "images" / entry.split / f"{entry.name}{entry.suffix}"
        label = building / "labels" / entry.split / f"{entry.name}.txt"
        if os.path.normpath(image) != str(image) or label_path(str(image)) != str(label):
            raise AssertionError(
                f"Ultralytics would look for the labels of {image} at {label_path(str(image))}, not {label}"
            )
        image.parent.mkdir(parents=True, exist_ok=True)
        if is_linked(entry, recipe):
            # Relative to where the link will stand after the swap, one folder name apart from here.
            image.symlink_to(os.path.relpath(entry.image, image.parent))
        else:
            _copy(entry.image, image, share=entry.judged is not None)
        if entry.judged is not None and entry.relabelled:
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_bytes(entry.judged.label() or b"")
        elif isinstance(entry.source.label, str):
            label.parent.mkdir(parents=True, exist_ok=True)
            _copy(Path(entry.source.label), label)
        elif entry.source.label is not None:
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_bytes(entry.source.label)
        if entry.source.label is not None and not entry.relabelled and label.read_bytes() != entry.source.read_label():
            raise AssertionError(f"{label} does not hold the labels of {entry.source.key}")
    splits = [split for split in ("train", "val", "test") if any(entry.split == split for entry in entries)]
    for split in splits:  # Ultralytics warns when a split has no labels folder at all
        (building / "labels" / split).mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {split: f"images/{split}" for split in splits}
    note = ""
    if recipe.text2img is not None and "val" not in splits:
        data["val"] = "images/train"
        note = "# Nothing to validate on was made: val is train again, and its metrics say nothing. Name real photographs.\n"
    data["names"] = dict(enumerate(plan.dataset.names))
    data.update(plan.dataset.extra)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    (building / "data.yaml").write_text(
        f"# Written by diffgen. Train with: yolo train data=dataset/data.yaml\n{note}{text}", "utf-8"
    )
    with (building / "manifest.jsonl").open("w", encoding="utf-8") as file:
        file.write(json.dumps({"export": digest, "images": len(entries)}) + "\n")
        for entry in entries:
            file.write(json.dumps(manifest_row(entry), ensure_ascii=False, sort_keys=True) + "\n")


def _copy(source: Path, target: Path, share: bool = False) -> None:
    """Copy by reference where the file system can; `share` allows a hard link (our own images, never rewritten)."""
    with source.open("rb") as from_file, target.open("wb") as to_file:
        try:
            fcntl.ioctl(to_file.fileno(), _FICLONE, from_file.fileno())
            return
        except OSError as error:
            if error.errno not in (
                errno.EOPNOTSUPP,
                errno.ENOTTY,
                errno.EXDEV,
                errno.EINVAL,
                errno.ENOSYS,
                errno.EPERM,
            ):
                raise
    if share:
        target.unlink()
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another file system, or one without hard links: a plain copy does
    shutil.copyfile(source, target)
