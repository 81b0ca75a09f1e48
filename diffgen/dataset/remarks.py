"""What a user should know about a dataset: pictures that are not edited, labels that are missing, content that is changed.

`plan`, `run`, `status`, their JSON and the report tell the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffgen.dataset.dataset import Dataset
from diffgen.dataset.formats import NOTES
from diffgen.dataset.formats.yolo import label_path, orphan_labels
from diffgen.dataset.leakage import identical
from diffgen.errors import UsageError, printable
from diffgen.types import LEFT_OUT, Source

MAX_EXAMPLES = 5  # files listed per reason

Counted = dict[str, Any]  # {"count": how many, "examples": the first MAX_EXAMPLES, as text}


def dataset_remarks(dataset: Dataset, sources: Sequence[Source]) -> dict[str, Any]:
    """The remarks, JSON-ready. `sources` are the plan's: none for images that are made from noise.

    `not_edited` are Counted by the first word of the problem, `notes` by the words of `formats.NOTES`. `labels` has the
    numbers of pictures with no label file ("none") and with an empty one, and the label files without picture ("orphans",
    Counted). `identical` are pictures in more than one split, Counted.
    """
    problems: dict[str, list[str]] = {}
    for source in sources:
        if source.problem is not None:
            word, _, text = source.problem.partition(": ")
            problems.setdefault(word, []).append(f"{source.key}: {text}")
    every = dataset.sources if sources else ()
    kept = [source for source in every if not source.left_out]
    return {
        "not_edited": _by_word(problems),
        "labels": {
            "none": sum(source.label is None for source in kept),
            "empty": sum(source.label is not None and not source.counts and not source.problem for source in kept),
            "orphans": counted(_orphans(dataset, every)),
        },
        "notes": _by_word(dataset.notes),
        "identical": counted([" = ".join(source.key for source in group) for group in identical(kept)]),
    }


def labelled(dataset: Dataset) -> dict[str, int]:
    """How many usable pictures of each split have a labelled object."""
    return dict(Counter(source.split for source in dataset.sources if source.counts))


def remark_lines(remarks: Mapping[str, Any]) -> Iterator[str]:
    """The remarks as text, each with a first word of what it is about."""
    labels = remarks["labels"]
    for word, sources in remarks["not_edited"].items():
        fate = "left out" if word in LEFT_OUT else "copied unchanged"
        yield from counted_lines("unedited", sources, f"{word}, {fate}")
    if labels["none"] or labels["empty"]:
        yield f"labels    {labels['none']} images without a label file, {labels['empty']} with an empty one: background"
    yield from counted_lines("labels", labels["orphans"], "label files without an image, not used")
    for word, notes in remarks["notes"].items():
        yield from counted_lines("dataset", notes, NOTES[word])
    yield from counted_lines("leakage", remarks["identical"], "pictures appear in more than one split, byte for byte")


def counted(lines: Sequence[str]) -> Counted:
    return {"count": len(lines), "examples": list(lines[:MAX_EXAMPLES])}


def counted_lines(title: str, examples: Counted, what: str) -> list[str]:
    """The lines of a count: the count, its examples, and how many more there are; no line if it is 0."""
    if not examples["count"]:
        return []
    more = examples["count"] - len(examples["examples"])
    lines = [
        f"{title:<9} {examples['count']} {what}",
        *(f"          {printable(text)}" for text in examples["examples"]),
    ]
    return [*lines, f"          … and {more} more"] if more else lines


def _by_word(lines: Mapping[str, Sequence[str]]) -> dict[str, Counted]:
    return {word: counted(lines[word]) for word in sorted(lines)}


def _orphans(dataset: Dataset, sources: Sequence[Source]) -> list[str]:
    """Label files without image; none of a format that is converted."""
    if any(isinstance(source.label, bytes) for source in sources) or not sources:
        return []
    return orphan_labels(dataset.folders, {str(source.label) for source in sources})


def check_labelled(dataset: Dataset, before: Mapping[str, int]) -> None:
    """Raises UsageError when no picture has a label, or none of a split that had some: their folder is gone, or elsewhere.

    Such pictures would be exported as background, and the images made with their labels would no longer be planned.
    `before` counts the pictures with objects at the last run, by split.
    """
    now = labelled(dataset)
    usable = [source for source in dataset.sources if source.problem is None]
    lost = [split for split in before if split not in now]
    first = next((source for source in usable if not now or source.split in lost), None)
    if first is None:
        return
    hint = "check 'annotations:' of the recipe"
    if not isinstance(first.label, bytes):
        hint = f"put label files where Ultralytics looks for them: for {first.path} that is {label_path(first.path)}"
        hint += "".join(f"; there is {place}" for place in _label_like(Path(first.path)))
    if not lost:
        raise UsageError(f"{dataset.path}: none of the {len(usable)} pictures has a labelled object", hint)
    raise UsageError(
        f"{dataset.path}: '{first.split}' had {before[first.split]} labelled pictures at the last run, and now has "
        "none",
        f"{hint}; if this is intended, choose a new output folder",
    )


def _label_like(image: Path) -> list[Path]:
    """What looks like an image's labels in a place that is not looked into."""
    beside = [image.with_suffix(".txt")] if image.with_suffix(".txt").is_file() else []
    names = ("Labels", "LABELS", "label", "Label")
    near = (parent / name for parent in list(image.parents)[:3] for name in names)
    return beside + [place for place in near if place.is_dir()]
