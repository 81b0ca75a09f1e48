"""The lists of pictures that detectors are trained on: all of equal length, with the same real pictures in the same
positions.

More pictures mean more steps, and more steps alone often gain more than more data. So each arm fills the same slots after
the real pictures. File names are numbers, because Ultralytics sorts by name: at one seed, all arms see the slots in the same
order and in the same mosaics, and differ in what is in them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diffgen.checks.detectors.names import same_names
from diffgen.commands.eval.rules import RULES_VERSION, has_rule, ruled
from diffgen.dataset.dataset import Dataset
from diffgen.dataset.images import Pixels, decode, encode
from diffgen.dataset.labels import LabelSchema, box_row
from diffgen.errors import UsageError
from diffgen.files import write_atomically
from diffgen.output import schedule
from diffgen.output.outcome import Entry, Outcome, nested
from diffgen.types import Source, digest_of, unit

REAL, RULES, UNCHECKED, CHECKED, ORACLE = "real", "rules", "unchecked", "checked", "oracle"
ARMS = {
    REAL: "the real pictures, with the sources of the synthetic images listed a second time",
    RULES: "the real pictures, and copies of them edited by rules (gamma, noise, haze)",
    UNCHECKED: "the real pictures, and synthetic images whether accepted or not",
    CHECKED: "the real pictures, and accepted synthetic images",
    ORACLE: "the real pictures, and real pictures of the condition",
}


@dataclass(frozen=True, slots=True)
class Slot:
    """One picture of a list: its file, its label text, and a digest of both. With `rule`, it is made from the file under
    that condition."""

    path: str
    label: bytes
    digest: str
    rule: str | None = None

    @property
    def suffix(self) -> str:
        return ".jpg" if self.rule is not None else os.path.splitext(self.path)[1].lower()


def _of_source(source: Source, rule: str | None = None, light: str = "", schema: LabelSchema | None = None) -> Slot:
    digest = source.digest if rule is None else digest_of(source.digest, rule, light, str(RULES_VERSION))
    return Slot(source.path, _boxes(source.read_label() or b"", schema), digest, rule)


def _boxes(label: bytes, schema: LabelSchema | None) -> bytes:
    """Rows with keypoints as boxes: without `kpt_shape` Ultralytics would take them for polygons. Others as they are."""
    if schema is None or schema.keypoints is None:
        return label
    return "".join(f"{box_row(shape.class_id, shape.box, False)}\n" for shape in schema.parse(label)).encode()


def slot_of(entry: Entry, outcome: Outcome) -> Slot:
    label = _boxes(entry.label() or b"", outcome.dataset.schema)
    assert entry.record is not None
    return Slot(str(outcome.image(entry)), label, digest_of(str(entry.record.sha256), label))


def real_pictures(sources: Iterable[Source], split: str = "train") -> list[Source]:
    """The pictures of a split that a detector can be trained on."""
    return [source for source in sources if source.split == split and source.problem is None]


def arms_of(
    outcome: Outcome,
    wanted: Sequence[str],
    oracle: Dataset | None = None,
    most: int | None = None,
    light: str = "",
    ratios: Sequence[float] = (),
) -> dict[str, list[Slot]]:
    """The slots of each wanted arm. `most` limits the slots after the real pictures; by default there are as many as
    accepted images, but no more than real pictures. `light` is a digest of the pictures that the rules copy their
    histograms from. Each of `ratios` adds an arm with this many accepted images per real picture, and real ones in the
    remaining slots.

    Raises UsageError for a run without accepted images, or an oracle without pictures.
    """
    real = real_pictures(outcome.plan.sources)
    accepted = nested([entry for entry in outcome.exported if entry.item.source.split == "train"])
    count = min(len(accepted), len(real) if most is None else most)
    if not count:
        raise UsageError(
            f"{outcome.folder}: no image of the train split was accepted, so there is nothing to train on",
            "see `diffgen status` and report.html for the reasons",
        )
    unchecked = nested([e for e in outcome.entries if e.made and e.item.source.split == "train"])[:count]
    if RULES in wanted and not light:
        names = {entry.item.job.settings.condition for entry in accepted[:count]}
        if unruled := sorted(name for name in names if not has_rule(name)):
            raise UsageError(
                f"--arms: there is no rule for '{unruled[0]}'",
                "leave out the arm `rules`, or give pictures with --target",
            )
    chosen = {id(entry) for entry in accepted[:count]}
    taken = {id(entry) for entry in unchecked}
    others = iter([entry for entry in accepted[:count] if id(entry) not in taken])
    checked = [
        entry if id(entry) in chosen else next(others) for entry in unchecked
    ]  # they differ where they must alone
    schema = outcome.dataset.schema
    again = [_of_source(entry.item.source, schema=schema) for entry in checked]
    fills: dict[str, Callable[[], list[Slot]]] = {
        REAL: lambda: again,
        RULES: lambda: [_of_source(e.item.source, e.item.job.settings.condition, light, schema) for e in checked],
        UNCHECKED: lambda: [slot_of(entry, outcome) for entry in unchecked],
        CHECKED: lambda: [slot_of(entry, outcome) for entry in checked],
        ORACLE: lambda: _oracle(oracle, outcome.dataset, count),
    }
    shared = [_of_source(source, schema=schema) for source in real]
    arms = {name: shared + fills[name]() for name in wanted}
    for ratio in ratios:
        few = {id(entry) for entry in accepted[: round(ratio * len(real))]}
        slots = [slot_of(e, outcome) if id(e) in few else s for e, s in zip(checked, again, strict=True)]
        arms[f"{CHECKED} {ratio:g}"] = shared + slots
    return arms


def stages_of(outcome: Outcome, most: int | None = None) -> dict[str, list[Slot]]:
    """The lists of `pretrain-finetune`, in the order of training: the synthetic images of the arm `checked`, then the
    real ones.

    Each is trained for as many epochs as the other arms. Together they make as many steps, or up to one more per epoch,
    because each list ends with a partial batch. Raises UsageError like `arms_of`.
    """
    slots = arms_of(outcome, [CHECKED], most=most)[CHECKED]
    real = len(real_pictures(outcome.plan.sources))
    return {schedule.MADE: slots[real:], schedule.REAL: slots[:real]}


def _oracle(oracle: Dataset | None, dataset: Dataset, count: int) -> list[Slot]:
    """`count` real pictures of the condition, by hash; repeated once all are used."""
    assert oracle is not None
    found = sorted(real_pictures(oracle.sources), key=lambda source: unit("oracle", source.image_digest))
    if not found:
        raise UsageError(
            f"{oracle.path}: there is no picture in its train split", "give a data.yaml whose train split has pictures"
        )
    slots = [relabelled(source, oracle, dataset.names) for source in found]
    return [slots[i % len(slots)] for i in range(count)]


def relabelled(source: Source, theirs: Dataset, names: Sequence[str]) -> Slot:
    """A picture of another dataset, with its boxes of classes that this dataset also has (by name)."""
    ids = same_names(theirs.names, names)
    shapes = theirs.schema.parse(source.read_label())
    rows = [box_row(ids[shape.class_id], shape.box, False) for shape in shapes if shape.class_id in ids]
    label = "".join(f"{row}\n" for row in rows).encode()
    return Slot(source.path, label, digest_of(source.image_digest, label))


def digest(slots: Sequence[Slot]) -> str:
    return digest_of(*(slot.digest for slot in slots))


def place_of(folder: Path, name: str, slots: Sequence[Slot]) -> Path:
    """The data.yaml of a list in an evaluation's folder. Different lists of the same name have different folders."""
    return folder / f"{name.replace(' ', '-')}-{digest(slots)[:12]}" / "data.yaml"


def write_arm(data: Path, slots: Sequence[Slot], names: Sequence[str], targets: Sequence[Pixels] = ()) -> None:
    """The list as a dataset of its own with this data.yaml, unless it is there already.

    Pictures are linked, except rule-based ones, which are made here. Its val has a few of its own pictures, as Ultralytics
    wants some; nothing is chosen by them.
    """
    if _is_there(data, slots):
        return
    shutil.rmtree(data.parent, ignore_errors=True)
    for split, some in (("train", slots), ("val", slots[:4])):
        _write_split(data.parent, split, some, targets)
    _finish(data, slots, {"train": "images/train", "val": "images/val", "names": dict(enumerate(names))})


def _write_split(folder: Path, split: str, slots: Sequence[Slot], targets: Sequence[Pixels] = ()) -> None:
    (folder / "images" / split).mkdir(parents=True)
    (folder / "labels" / split).mkdir(parents=True)
    for i, slot in enumerate(slots):
        place = folder / "images" / split / f"{i:06}{slot.suffix}"
        (folder / "labels" / split / f"{i:06}.txt").write_bytes(slot.label)
        if slot.rule is None:
            place.symlink_to(os.path.abspath(slot.path))
        else:
            pixels = decode(Path(slot.path).read_bytes())
            made = ruled(slot.rule, pixels, int(slot.digest[:8], 16), targets)
            assert made is not None
            place.write_bytes(encode(made, "jpg", 95, "diffgen eval, rule-based"))


def _mark(slots: Sequence[Slot]) -> str:
    """Digest of the slots and their link targets: if the dataset was moved, it is linked again."""
    return digest_of(*(f"{slot.digest} {os.path.abspath(slot.path)}" for slot in slots))


def _is_there(data: Path, slots: Sequence[Slot]) -> bool:
    mark = data.parent / "mark"
    return data.is_file() and mark.is_file() and mark.read_text("utf-8") == _mark(slots)


def _finish(data: Path, slots: Sequence[Slot], fields: Mapping[str, Any]) -> None:
    write_atomically(data, yaml.safe_dump(dict(fields), sort_keys=False))
    write_atomically(data.parent / "mark", _mark(slots))


@dataclass(frozen=True, slots=True)
class TestSet:
    """Real labelled pictures to test on. `known` are the ids of the classes that it and the dataset have in common."""

    name: str
    slots: tuple[Slot, ...]
    sources: tuple[Source, ...]
    known: frozenset[int]

    @property
    def digest(self) -> str:
        return digest(self.slots)


def objects_of(test: TestSet, classes: Sequence[int]) -> int:
    """How many labelled objects of these classes the set has."""
    rows = (row.split()[0] for slot in test.slots for row in slot.label.splitlines())
    return sum(int(row) in classes for row in rows)


def read_test(name: str, theirs: Dataset, names: Sequence[str], sources: Iterable[Source] | None = None) -> TestSet:
    """The val pictures of a dataset with the classes' ids of ours; `sources` instead of its own.

    Raises UsageError for a set without pictures, or without a class of ours.
    """
    # A file that is in several splits of theirs is as good a test as any other.
    usable = (s for s in (sources or theirs.sources) if (s.problem or "leak").startswith("leak"))
    kept = tuple(source for source in usable if source.split == "val")
    known = frozenset(same_names(theirs.names, names).values())
    if not kept or not known:
        what = "none of the run's classes" if kept else "no usable picture in the val split"
        hint = f"the run's classes: {', '.join(names)}" if kept else "add a val split with labelled pictures to test on"
        raise UsageError(f"--test {name}: {theirs.path}: {what}", hint)
    return TestSet(name, tuple(relabelled(source, theirs, names) for source in kept), kept, known)


def write_test(data: Path, test: TestSet, names: Sequence[str]) -> None:
    """The test set as a dataset whose only split is val: nobody can train on it by mistake."""
    if _is_there(data, test.slots):
        return
    shutil.rmtree(data.parent, ignore_errors=True)
    _write_split(data.parent, "val", test.slots)
    _finish(data, test.slots, {"train": "not-for-training", "val": "images/val", "names": dict(enumerate(names))})


def leaks(trained: Sequence[Source], tests: Sequence[TestSet]) -> Iterator[str]:
    """A line for each test picture that is trained on, or that a picture was made from. `trained` are the sources of all
    arms."""
    digests = {source.image_digest: source for source in trained}
    for test in tests:
        for source in test.sources:
            if source.image_digest in digests:
                yield f"{test.name}: {source.path} is also trained on (as {digests[source.image_digest].path})"
