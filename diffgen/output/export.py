"""Writes the sources and accepted images as a YOLO dataset that Ultralytics can train on. Derived: safe to delete.

It is built beside the old one and swapped in, so nobody sees a half-written or stale dataset. It holds no times, hosts or
absolute paths and is in plan order: the same run gives the same bytes.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from diffgen.dataset.formats import SPLITS
from diffgen.dataset.formats.yolo import label_path
from diffgen.errors import DiffgenError, why
from diffgen.files import read_regular, sync_filesystem, sync_folder
from diffgen.output.croissant import CARD, croissant_text
from diffgen.output.entries import ExportedImage, exported_images
from diffgen.output.manifest import manifest_row
from diffgen.output.outcome import Outcome
from diffgen.output.schedule import STAGE_FILES, list_text, stages_of, train_command
from diffgen.types import digest_of

_FICLONE = 0x40049409  # Linux ioctl: share the blocks of a file (btrfs, xfs)
# What the kernel answers when two files cannot share blocks.
_NOT_CLONED = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM)


def export_dataset(outcome: Outcome, *, staged: bool = False) -> str:
    """Write `dataset/` in the run folder unless it is there and whole. Returns the digest of its contents' origin.

    With `staged` it also has a data file for each stage of `pretrain-finetune`; see `require_stages`.

    Raises DiffgenError when it cannot be written, or when a file is in its place.
    """
    folder = outcome.folder
    target, building, old = folder / "dataset", folder / ".dataset.new", folder / ".dataset.old"
    images = list(exported_images(outcome))
    digest = _digest(outcome, images)
    texts = _texts(outcome, images, staged)
    for place in (target, building, old):
        if place.exists() and not place.is_dir():
            raise DiffgenError(f"{place} is a file, but must be a folder", "move it away, then run the command again")
    try:
        for leftover in (building, old):  # of an export that was cut short
            _remove(leftover)
        if _is_whole(target, outcome, texts, images, digest):
            return digest
        building.mkdir()
        for image in images:
            _write_image(building, image)
        for split in _splits(images):  # Ultralytics warns about a split without a labels folder
            (building / "labels" / split).mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (building / name).write_text(text, "utf-8")
        with (building / "manifest.jsonl").open("w", encoding="utf-8") as file:
            sha256 = hashlib.sha256()
            file.writelines(_manifest(images, digest, sha256))
        card = croissant_text(images, outcome.dataset.names, digest, texts["data.yaml"], sha256.hexdigest())
        (building / CARD).write_text(card, "utf-8")
        sync_filesystem(building)  # after a power cut, a swapped folder of empty files would be taken for a dataset
        if target.exists():
            os.replace(target, old)
        os.replace(building, target)
        sync_folder(folder)
        _remove(old)
    except OSError as error:
        raise DiffgenError(
            f"{target}: cannot write the dataset: {error.filename or folder}: {why(error)}",
            "free disk space or fix the path, then run the same command again; the images made so far are kept",
        ) from error
    return digest


def is_current(outcome: Outcome) -> bool:
    """Whether `dataset/` is there as `export_dataset` would write it, by names, sizes and texts."""
    images = list(exported_images(outcome))
    target = outcome.folder / "dataset"
    texts = _texts(outcome, images, any((target / name).exists() for name in STAGE_FILES))
    return _is_whole(target, outcome, texts, images, _digest(outcome, images))


def export_state(outcome: Outcome) -> str:
    """ "none", "older" or "current", by what the manifest says that it is of. `is_current` looks at everything."""
    try:
        with (outcome.folder / "dataset/manifest.jsonl").open("rb") as file:
            header = json.loads(file.readline())
    except (OSError, ValueError):
        return "none"
    found = header.get("export") if isinstance(header, dict) else None
    return "current" if found == _digest(outcome, list(exported_images(outcome))) else "older"


def _digest(outcome: Outcome, images: list[ExportedImage]) -> str:
    """Changes when the export would. Adds the targets of links: the outcome's fingerprint holds no absolute path."""
    links = [os.fsencode(image.file) for image in images if image.link]
    return digest_of(outcome.fingerprint(exported=True), *links)


def _is_whole(
    target: Path, outcome: Outcome, texts: Mapping[str, str], images: list[ExportedImage], digest: str
) -> bool:
    """Whether the dataset is there as it would be written. Images are compared by size alone: `verify` reads them."""
    sha256 = hashlib.sha256()
    try:
        with (target / "manifest.jsonl").open(encoding="utf-8", newline="") as file:
            if any(line != file.readline() for line in _manifest(images, digest, sha256)) or file.read(1):
                return False
        card = croissant_text(images, outcome.dataset.names, digest, texts["data.yaml"], sha256.hexdigest())
        if any((target / name).read_bytes().decode() != text for name, text in {**texts, CARD: card}.items()):
            return False
        if any((target / name).exists() for name in STAGE_FILES - texts.keys()):
            return False
        return all(_is_there(target, image) for image in images)
    except (OSError, UnicodeDecodeError):
        return False


def _is_there(target: Path, exported: ExportedImage) -> bool:
    image, label = target / exported.image, target / exported.label_file
    if exported.link:
        there = os.readlink(image) == os.path.relpath(exported.file, image.parent)
    else:
        size = exported.source.size if exported.entry is None else exported.file.stat().st_size
        there = image.is_file() and not image.is_symlink() and image.stat().st_size == size
    if not exported.labelled:
        return there and not os.path.lexists(label)
    return there and read_regular(label) == (exported.label() or b"")


def _remove(folder: Path) -> None:
    """Delete a folder of ours. If somebody put a link in its place, delete only the link."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _write_image(building: Path, exported: ExportedImage) -> None:
    """Write an image and its label file; the label file is read back and compared."""
    image, label = building / exported.image, building / exported.label_file
    if os.path.normpath(image) != str(image) or label_path(str(image)) != str(label):
        raise AssertionError(
            f"Ultralytics would look for the labels of {image} at {label_path(str(image))}, not {label}"
        )
    image.parent.mkdir(parents=True, exist_ok=True)
    if exported.link:
        # Also valid after the swap, which changes the name of one folder and not the depth.
        image.symlink_to(os.path.relpath(exported.file, image.parent))
    else:
        _copy(exported.file, image)
    if exported.labelled:
        raw = exported.label() or b""
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_bytes(raw)
        if label.read_bytes() != raw:
            raise AssertionError(f"{label} does not hold the labels of {exported.source.key}")


def _splits(images: list[ExportedImage]) -> list[str]:
    used = {image.split for image in images}
    return [split for split in SPLITS if split in used]


def _texts(outcome: Outcome, images: list[ExportedImage], staged: bool) -> dict[str, str]:
    """What says which pictures are trained on, by file name: data.yaml, and with `staged` a data file and a list a stage."""
    texts = {"data.yaml": _data_yaml(outcome, images)}
    for stage, names in stages_of(images).items() if staged else ():
        texts |= {f"{stage}.yaml": _data_yaml(outcome, images, stage), f"{stage}.txt": list_text(names)}
    return texts


def _data_yaml(outcome: Outcome, images: list[ExportedImage], stage: str | None = None) -> str:
    """The text of data.yaml, or of the same for a stage."""
    splits = _splits(images)
    data: dict[str, Any] = {split: f"images/{split}" for split in splits}
    note = ""
    if outcome.recipe.text2img is not None and "val" not in splits:
        data["val"] = "images/train"
        note = "# No val images: val is the train split, so its metrics mean nothing. Use labelled photographs.\n"
    how = train_command("data.yaml", outcome.dataset.task)
    if stage is not None:
        data["train"] = f"{stage}.txt"
        how = f"{train_command('made.yaml', outcome.dataset.task)}, then on real.yaml from its last checkpoint"
    data["names"] = dict(enumerate(outcome.dataset.names))
    data.update(outcome.dataset.extra)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    return f"# Written by diffgen. Train with: {how}\n{note}{text}"


def _manifest(images: list[ExportedImage], digest: str, sha256: hashlib._Hash) -> Iterator[str]:
    """The lines of manifest.jsonl. `sha256` takes in each: a million of them are not written out twice to be hashed."""
    header = {"export": digest, "images": len(images)}
    for row in chain([header], map(manifest_row, images)):
        line = json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n"
        sha256.update(line.encode())
        yield line


def _copy(source: Path, target: Path) -> None:
    """Copy by reference if the file system can. No file is shared: a tool that changes a file in place changes one."""
    with source.open("rb") as from_file, target.open("wb") as to_file:
        try:
            fcntl.ioctl(to_file.fileno(), _FICLONE, from_file.fileno())
            return
        except OSError as error:
            if error.errno not in _NOT_CLONED:
                raise
    shutil.copyfile(source, target)
