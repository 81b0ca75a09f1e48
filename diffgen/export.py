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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from diffgen.annotate import annotated, is_imagined, label_rows
from diffgen.checks import judge, lost_objects
from diffgen.errors import DiffgenError, why
from diffgen.formats.yolo import label_path
from diffgen.labels import with_row, without_rows
from diffgen.plan import Plan
from diffgen.recipe import Checks, Recipe
from diffgen.store import image_path
from diffgen.tasks import added_row
from diffgen.types import EDIT_VERSION, ID_SCHEMA, Item, Record, Source, Verdict, digest_of

LONGEST_NAME = 250  # bytes before the suffix; file systems take 255 in all
_FICLONE = 0x40049409  # ioctl of Linux: share the blocks of a file (btrfs, xfs)


@dataclass(frozen=True, slots=True)
class Judged:
    """An item of the plan, as the attempt that counts, with what became of it; `record` is None while it is not made."""

    item: Item
    record: Record | None
    verdict: Verdict | None
    dropped: tuple[int, ...] = ()  # label rows that go, of objects that were lost or removed
    added: tuple[str, ...] = ()  # label rows that come, of objects that were inserted, or found in what was made
    sure: tuple[float, ...] = ()  # how sure the detector is of each of them, in a picture made from noise
    weak: bool = False  # the least sure is to be looked at by a person

    @property
    def accepted(self) -> bool:
        return self.verdict is not None and self.verdict.accepted

    def label(self) -> bytes | None:
        """The label text of the image: the source's own, but for the rows that go and come. Raises OSError."""
        raw = self.item.source.read_label()
        if self.dropped:
            raw = without_rows(raw or b"", self.dropped)
        for row in self.added:
            raw = with_row(raw or b"", row)
        return raw


def judge_plan(plan: Plan, recipe: Recipe, records: dict[str, Record]) -> list[Judged]:
    """Every item with its verdict under the recipe's thresholds, in plan order."""
    checks = {condition.name: recipe.checks_for(condition) for condition in recipe.conditions}
    return [judge_item(item, checks[item.job.settings.condition], records, plan) for item in plan.items]


def judge_item(item: Item, checks: Checks, records: dict[str, Record], plan: Plan) -> Judged:
    """The first attempt that is accepted; else the one that is due, and else the last."""
    while True:
        entry = judge_attempt(item, checks, records.get(item.job.id), plan)
        following = None if entry.verdict is None else plan.next_attempt(item, entry.verdict)
        if following is None:
            return entry
        item = following


def judge_attempt(item: Item, checks: Checks, record: Record | None, plan: Plan) -> Judged:
    """One image, whichever attempt it is: its verdict, and the label rows that go and come, also where it is rejected."""
    if record is None:
        return Judged(item, None, None)
    decision = plan.review.get(item.job.id)
    verdict = judge(record, checks, item.job.settings.condition, decision)
    if record.status != "made":
        return Judged(item, record, verdict)
    if is_imagined(record.facts):
        return _with_annotations(Judged(item, record, verdict), checks, decision)
    # Kept by hand: with every label.
    lost = lost_objects(record.facts, checks) if verdict.accepted and decision != "keep" else ()
    gone = {*record.facts.get("removed", ()), *lost}
    own = plan.dataset.shapes.get(item.source.digest)
    row = added_row(record.facts, own[0].outline is not None if own else plan.dataset.outlined)
    return Judged(item, record, verdict, tuple(sorted(gone)), () if row is None else (row,))


def _with_annotations(entry: Judged, checks: Checks, decision: str | None) -> Judged:
    """With the rows that a detector's findings in a picture made from noise come to. Who kept it need not look again."""
    assert entry.record is not None
    facts = entry.record.facts
    _, sure = annotated(facts, checks.confidence)
    unsure = bool(sure) and checks.review_below is not None and min(sure) < checks.review_below
    weak = unsure and entry.accepted and decision is None
    return replace(entry, added=label_rows(facts, checks.confidence), sure=tuple(sure), weak=weak)


def made_name(item: Item) -> str:
    """Where the export puts a made image, without suffix: the source's name, the condition, and the variant."""
    return f"{item.source.name}__{item.job.settings.condition}-{item.job.variant}"


def export_dataset(folder: Path, plan: Plan, recipe: Recipe, judged: list[Judged]) -> str:
    """Write `folder`/dataset when it is not already what the records say. Returns the export's digest."""
    target = folder / "dataset"
    entries = list(_entries(folder, plan, recipe, judged))
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


@dataclass(frozen=True, slots=True)
class _Entry:
    """One image of the export: the file it comes from, its name without suffix, and the label file to copy."""

    split: str
    name: str
    suffix: str
    image: Path
    source: Source
    judged: Judged | None = None  # None: the source's own image

    @property
    def relabelled(self) -> bool:
        return self.judged is not None and bool(self.judged.dropped or self.judged.added)


def _entries(folder: Path, plan: Plan, recipe: Recipe, judged: list[Judged]) -> Iterator[_Entry]:
    """Sources first, then made images, each in plan order."""
    taken: set[tuple[str, str]] = set()

    def unique(split: str, name: str) -> str:
        name = free = _fitting(name)
        n = 1
        while (split, free.casefold()) in taken:
            n += 1
            free = _fitting(f"{name}-{n}")
        taken.add((split, free.casefold()))
        return free

    for source in plan.sources:
        if not is_carried(source, recipe):
            continue
        path = Path(source.path)
        yield _Entry(source.split, unique(source.split, source.name), path.suffix, path, source)
    for entry in judged:
        if entry.accepted:
            item = entry.item
            name = unique(item.source.split, made_name(item))
            image = image_path(folder, item.job.id, recipe.image.format)
            yield _Entry(item.source.split, name, f".{recipe.image.format}", image, item.source, entry)


def is_carried(source: Source, recipe: Recipe) -> bool:
    """Whether the export has the source's own image."""
    wanted = recipe.include_sources != "none" or source.split not in recipe.select.splits
    return wanted and bool(source.digest)  # without one it is listed, but not there


def _fitting(name: str) -> str:
    """A name whose last part, with any suffix, is one that file systems take: a long one is cut and told by its hash."""
    folder, sep, last = name.rpartition("/")
    raw = os.fsencode(last)
    if len(raw) <= LONGEST_NAME:
        return name
    kept = raw[: LONGEST_NAME - 9].decode("utf-8", "ignore")
    return f"{folder}{sep}{kept}-{digest_of(last)[:8]}"


def _remove(folder: Path) -> None:
    """A folder of ours, or the link that somebody put in its place; what a link leads to stays."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _files(target: Path, entries: list[_Entry]) -> Iterator[str]:
    """Every file that a whole export has."""
    for entry in entries:
        yield f"{target}/images/{entry.split}/{entry.name}{entry.suffix}"
        if entry.source.label is not None or entry.relabelled:
            yield f"{target}/labels/{entry.split}/{entry.name}.txt"


def _digest(plan: Plan, recipe: Recipe, entries: list[_Entry]) -> str:
    """Of everything the export is made from: it changes when the export would."""
    dataset = plan.dataset
    extra = yaml.safe_dump([list(dataset.names), dataset.extra], allow_unicode=True)
    head = f"{ID_SCHEMA} {EDIT_VERSION} {recipe.include_sources} {extra}"
    rows = (
        f"{e.split}/{e.name}{e.suffix} {e.source.digest} {e.source.label is None} {_origin(e, recipe)}" for e in entries
    )
    return digest_of(head, *rows)


def _origin(entry: _Entry, recipe: Recipe) -> str:
    """What else decides the file: the image that was made, or where a link leads."""
    if entry.judged is not None and entry.judged.record is not None:
        added = "".join(f" +{row}" for row in entry.judged.added)
        mark = " weak" if entry.judged.weak else ""
        return f"{entry.judged.record.sha256} {list(entry.judged.dropped) or ''}{added}{mark}"
    return str(entry.image) if _is_linked(entry, recipe) else str(entry.source.problem)


def _is_linked(entry: _Entry, recipe: Recipe) -> bool:
    return entry.judged is None and recipe.include_sources == "link" and entry.split in recipe.select.splits


def _exported(target: Path) -> str | None:
    """The digest in the first line of the manifest, or None when there is no whole export."""
    try:
        with (target / "manifest.jsonl").open(encoding="utf-8") as file:
            head = json.loads(file.readline())
        return str(head["export"]) if (target / "data.yaml").is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _build(building: Path, plan: Plan, recipe: Recipe, entries: list[_Entry], digest: str) -> None:
    for entry in entries:
        image = building / "images" / entry.split / f"{entry.name}{entry.suffix}"
        label = building / "labels" / entry.split / f"{entry.name}.txt"
        if os.path.normpath(image) != str(image) or label_path(str(image)) != str(label):
            raise AssertionError(
                f"Ultralytics would look for the labels of {image} at {label_path(str(image))}, not {label}"
            )
        image.parent.mkdir(parents=True, exist_ok=True)
        if _is_linked(entry, recipe):
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
            file.write(json.dumps(_manifest_row(entry), ensure_ascii=False, sort_keys=True) + "\n")


def _manifest_row(entry: _Entry) -> dict[str, Any]:
    row: dict[str, Any] = {
        "image": f"images/{entry.split}/{entry.name}{entry.suffix}",
        "source": entry.source.key,
        "source_digest": entry.source.digest,
    }
    if entry.judged is None:
        return row if entry.source.problem is None else {**row, "not_edited": entry.source.problem}
    job, record = entry.judged.item.job, entry.judged.record
    assert record is not None
    return {
        **row,
        "job": job.id,
        "condition": job.settings.condition,
        "variant": job.variant,
        "attempt": job.attempt,
        "prompt": job.prompt,
        "seed": job.seed,
        "model": job.settings.model,
        "sha256": record.sha256,
        "facts": record.facts,
        **({"dropped_rows": list(entry.judged.dropped)} if entry.judged.dropped else {}),
        **({"added_rows": list(entry.judged.added)} if entry.judged.added else {}),
        **(_label_origin(entry.judged) if is_imagined(record.facts) else {}),
    }


def _label_origin(judged: Judged) -> dict[str, Any]:
    """Whose word the labels are: `confidences` are of the label rows, in their order."""
    return {
        "label_origin": "detector",
        "label_detector": judged.item.job.settings.annotator,
        "confidences": list(judged.sure),
        "review": judged.weak,
    }


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
