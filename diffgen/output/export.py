"""The accepted images as a YOLO dataset that Ultralytics trains on unedited. Derived: safe to delete.

It is built beside the old one and swapped in, so that nobody sees a half-written or stale dataset. It holds no times,
hosts or absolute paths and is in plan order: the same run gives the same bytes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from diffgen.dataset.formats import SPLITS
from diffgen.dataset.formats.yolo import label_path
from diffgen.errors import DiffgenError, why
from diffgen.output.entries import ExportedImage, exported_images
from diffgen.output.manifest import manifest_row
from diffgen.output.outcome import Outcome
from diffgen.types import digest_of

_FICLONE = 0x40049409  # ioctl of Linux: share the blocks of a file (btrfs, xfs)
# What the kernel answers where two files cannot share blocks.
_NOT_CLONED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)


def export_dataset(outcome: Outcome) -> str:
    """Write `dataset/` in the run folder unless it is up to date. Returns the digest of what it is made from.

    Raises DiffgenError when the disk does not take it, or a file is in its place.
    """
    folder = outcome.folder
    target, building, old = folder / "dataset", folder / ".dataset.new", folder / ".dataset.old"
    images = list(exported_images(outcome))
    digest = _digest(outcome, images)
    if _exported(target) == digest and _complete(target, images):
        return digest
    for place in (target, building, old):
        if place.exists() and not place.is_dir():
            raise DiffgenError(f"{place} is a file, where a folder belongs", "move it away, then run again")
    try:
        for leftover in (building, old):
            _remove(leftover)
        building.mkdir()
        for image in images:
            _write_image(building, image)
        _write_data_yaml(building, outcome, images)
        _write_manifest(building, images, digest)
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


def _digest(outcome: Outcome, images: list[ExportedImage]) -> str:
    """Changes when the export would: links hold paths, which the outcome's fingerprint leaves out."""
    links = [os.fsencode(image.file) for image in images if image.link]
    return digest_of(outcome.fingerprint(exported=True), *links)


def _exported(target: Path) -> str | None:
    """The digest in the first line of the manifest, or None when there is no whole export."""
    try:
        with (target / "manifest.jsonl").open(encoding="utf-8") as file:
            head = json.loads(file.readline())
        return str(head["export"]) if (target / "data.yaml").is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _complete(target: Path, images: list[ExportedImage]) -> bool:
    files = (file for image in images for file in (image.image, *([image.label_file] if image.labelled else [])))
    return all(os.path.lexists(f"{target}/{file}") for file in files)


def _remove(folder: Path) -> None:
    """A folder of ours, or the link that somebody put in its place; what a link leads to stays."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _write_image(building: Path, one: ExportedImage) -> None:
    """One image and its label file, which is read back and compared."""
    image, label = building / one.image, building / one.label_file
    if os.path.normpath(image) != str(image) or label_path(str(image)) != str(label):
        raise AssertionError(
            f"Ultralytics would look for the labels of {image} at {label_path(str(image))}, not {label}"
        )
    image.parent.mkdir(parents=True, exist_ok=True)
    if one.link:
        # Relative to where the link is after the swap: that differs from here by the name of one folder only.
        image.symlink_to(os.path.relpath(one.file, image.parent))
    else:
        _copy(one.file, image, share=one.entry is not None)
    if one.labelled:
        raw = one.label() or b""
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_bytes(raw)
        if label.read_bytes() != raw:
            raise AssertionError(f"{label} does not hold the labels of {one.source.key}")


def _write_data_yaml(building: Path, outcome: Outcome, images: list[ExportedImage]) -> None:
    splits = [split for split in SPLITS if any(image.split == split for image in images)]
    for split in splits:  # Ultralytics warns when a split has no labels folder at all
        (building / "labels" / split).mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {split: f"images/{split}" for split in splits}
    note = ""
    if outcome.recipe.text2img is not None and "val" not in splits:
        data["val"] = "images/train"
        note = "# Nothing to validate on was made: val is train again, and its metrics say nothing. Name real photographs.\n"
    data["names"] = dict(enumerate(outcome.dataset.names))
    data.update(outcome.dataset.extra)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    head = "# Written by diffgen. Train with: yolo train data=dataset/data.yaml\n"
    (building / "data.yaml").write_text(f"{head}{note}{text}", "utf-8")


def _write_manifest(building: Path, images: list[ExportedImage], digest: str) -> None:
    with (building / "manifest.jsonl").open("w", encoding="utf-8") as file:
        file.write(json.dumps({"export": digest, "images": len(images)}) + "\n")
        for image in images:
            file.write(json.dumps(manifest_row(image), ensure_ascii=False, sort_keys=True) + "\n")


def _copy(source: Path, target: Path, share: bool = False) -> None:
    """Copy by reference where the file system can; `share` allows a hard link (our own images, never rewritten)."""
    with source.open("rb") as from_file, target.open("wb") as to_file:
        try:
            fcntl.ioctl(to_file.fileno(), _FICLONE, from_file.fileno())
            return
        except OSError as error:
            if error.errno not in _NOT_CLONED:
                raise
    if share:
        target.unlink()
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # another file system, or one without hard links: a plain copy does
    shutil.copyfile(source, target)
