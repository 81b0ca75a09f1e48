"""A judged plan: for each item the attempt that counts, its verdict, and the label rows that change.

Dataset, manifest, report, summary and contact sheets are all made from an `Outcome`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from diffgen.checks.auto_labels import is_text2img, label_rows, labelled_detections
from diffgen.checks.tasks import added_row
from diffgen.checks.verdict import judge, lost_objects, object_words
from diffgen.dataset.dataset import Dataset
from diffgen.dataset.labels import Shape, with_row, without_rows
from diffgen.files import image_path
from diffgen.output.review import Review
from diffgen.plan.plan import Plan
from diffgen.recipe.schema import Recipe
from diffgen.recipe.sections import Checks
from diffgen.types import (
    EDIT_VERSION,
    ID_SCHEMA,
    Item,
    Record,
    Source,
    Verdict,
    canonical,
    digest_of,
    reading_facts,
    unit,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of the plan, as the attempt that counts. `record` and `verdict` are None until the image is made."""

    item: Item
    record: Record | None = None
    verdict: Verdict | None = None
    dropped: tuple[int, ...] = ()  # label rows (from 0) removed because their objects were lost or painted over
    added: tuple[str, ...] = ()  # label rows added for objects that were inserted, or found in a generated picture
    confidences: tuple[float, ...] = ()  # text2img: the detector's confidence in each added row
    low_confidence: bool = False  # text2img: a person should look at the least confident row

    @property
    def accepted(self) -> bool:
        return self.verdict is not None and self.verdict.accepted

    @property
    def made(self) -> bool:
        return self.record is not None and self.record.status == "made"

    def label(self) -> bytes | None:
        """The image's label text: the source's without dropped rows, with added ones. Raises OSError."""
        raw = self.item.source.read_label()
        if self.dropped:
            raw = without_rows(raw or b"", self.dropped)
        for row in self.added:
            raw = with_row(raw or b"", row)
        return raw

    def shapes(self, dataset: Dataset) -> tuple[Shape, ...]:
        """The image's labelled objects; none if the label text cannot be parsed. Raises OSError."""
        return dataset.schema.parse_or_nothing(self.label())


def nested(entries: Sequence[Entry]) -> list[Entry]:
    """In one fixed order, by hash, every source once before any is used twice. A beginning is a part of each longer one."""
    turns: Counter[str] = Counter()
    turn_of = {}
    by_hash = sorted(entries, key=lambda entry: unit("eval", entry.item.job.id))
    for entry in by_hash:
        turn_of[id(entry)] = turns[entry.item.source.key]
        turns[entry.item.source.key] += 1
    return sorted(by_hash, key=lambda entry: turn_of[id(entry)])  # stable: by hash within a turn


class Judging:
    """Judges records by the recipe's thresholds (or a condition's own) and by a person's review."""

    def __init__(self, recipe: Recipe, dataset: Dataset, review: Review) -> None:
        self.review = review
        self._dataset = dataset
        self._checks = {condition.name: recipe.checks_for(condition) for condition in recipe.conditions}

    def checks(self, item: Item) -> Checks:
        return self._checks[item.job.settings.condition]

    def verdict(self, item: Item, record: Record) -> Verdict:
        with reading_facts(record):
            return judge(record, self.checks(item), item.job.settings.condition, self.review.get(item.job.id))

    def entry(self, item: Item, record: Record | None) -> Entry:
        """The entry of exactly this attempt, whether or not it is the one that counts. Rejected images have rows too."""
        if record is None:
            return Entry(item)
        with reading_facts(record):
            entry = Entry(item, record, self.verdict(item, record))
            if record.status != "made":
                return entry
            with_rows = self._with_detections if is_text2img(record.facts) else self._with_changed_rows
            return with_rows(entry, record.facts)

    def _with_changed_rows(self, entry: Entry, facts: Mapping[str, Any]) -> Entry:
        item = entry.item
        kept_by_hand = self.review.get(item.job.id) == "keep"  # a person decided: every label stays
        lost = lost_objects(facts, self.checks(item)) if entry.accepted and not kept_by_hand else ()
        shapes = self._dataset.shapes.get(item.source.digest)
        row = added_row(facts, shapes[0].outline is not None if shapes else self._dataset.outlined)
        dropped = tuple(sorted({*facts.get("removed", ()), *lost}))
        return replace(entry, dropped=dropped, added=() if row is None else (row,))

    def _with_detections(self, entry: Entry, facts: Mapping[str, Any]) -> Entry:
        checks = self.checks(entry.item)
        _, confidences = labelled_detections(facts, checks.confidence)
        unsure = bool(confidences) and checks.review_below is not None and min(confidences) < checks.review_below
        return replace(
            entry,
            added=label_rows(facts, checks.confidence),
            confidences=tuple(confidences),
            # A picture that a person has decided on need not be looked at again.
            low_confidence=unsure and entry.accepted and entry.item.job.id not in self.review,
        )

    def object_words(self, entry: Entry) -> dict[int, str]:
        """See `checks.verdict.object_words`; none for an image that was not made."""
        if entry.record is None or not entry.made:
            return {}
        with reading_facts(entry.record):
            return object_words(entry.record.facts, self.checks(entry.item))

    def settle(self, item: Item, records: Mapping[str, Record], plan: Plan) -> Entry:
        """The attempt of an item that counts: the first accepted one; else the next one to make; else the last one."""
        while True:
            entry = self.entry(item, records.get(item.job.id))
            retry = None if entry.verdict is None else plan.next_attempt(item, entry.verdict)
            if retry is None:
                return entry
            item = retry

    def next_round(self, items: Sequence[Item], records: Mapping[str, Record], plan: Plan) -> list[Item]:
        """The next attempts at the rejected images of a round; none until the whole round is made."""
        if any(item.job.id not in records for item in items):
            return []
        retries = (plan.next_attempt(item, self.verdict(item, records[item.job.id])) for item in items)
        return [item for item in retries if item is not None]


@dataclass(frozen=True)
class Outcome:
    """A judged plan and the run folder that holds its images. `entries` are in plan order, one for each item."""

    folder: Path
    recipe: Recipe
    plan: Plan
    review: Review
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, folder: Path, recipe: Recipe, plan: Plan, review: Review, records: Mapping[str, Record]) -> Outcome:
        """Judge a plan. `records` are by job id; a record whose image file is missing must be left out."""
        judging = Judging(recipe, plan.dataset, review)
        entries = tuple(judging.settle(item, records, plan) for item in plan.items)
        return cls(folder, recipe, plan, review, entries)

    @property
    def finished(self) -> bool:
        """Whether no image is left to make: every entry's is made, or failed for good."""
        return all(entry.record is not None and entry.record.kind != "transient" for entry in self.entries)

    @property
    def dataset(self) -> Dataset:
        return self.plan.dataset

    @cached_property
    def exported(self) -> tuple[Entry, ...]:
        """The accepted entries that the dataset holds, in plan order: of train at most `ratio` for each real picture."""
        accepted = tuple(entry for entry in self.entries if entry.accepted)
        if self.recipe.ratio is None:
            return accepted
        real = sum(source.split == "train" and source.problem is None for source in self.plan.sources)
        train = nested([entry for entry in accepted if entry.item.source.split == "train"])
        kept = {id(entry) for entry in train[: round(self.recipe.ratio * real)]}
        return tuple(entry for entry in accepted if entry.item.source.split != "train" or id(entry) in kept)

    def image(self, entry: Entry) -> Path:
        """The path of an entry's image, made or not."""
        return image_path(self.folder, entry.item.job.id, self.recipe.image.format)

    def exports_source(self, source: Source) -> bool:
        """Whether the exported dataset holds the source's own image."""
        wanted = self.recipe.include_sources != "none" or source.split not in self.recipe.select.splits
        return wanted and not source.left_out

    def fingerprint(self, *, exported: bool) -> str:
        """A digest of the sources and of all entries, or with `exported` of the accepted ones only.

        It holds no host, time or absolute path, so the same run has the same fingerprint everywhere.
        """
        return digest_of(*(row.encode("utf-8", "backslashreplace") for row in self._rows(exported)))

    def _rows(self, exported: bool) -> Iterator[str]:
        dataset = self.dataset
        yield canonical([ID_SCHEMA, EDIT_VERSION, dataset.names, repr(dataset.extra), self.recipe.include_sources])
        for source in self.plan.sources:
            yield f"{source.key} {source.digest} {source.label is None} {source.problem}"
        for entry in self.exported if exported else self.entries:
            record = entry.record
            made = record and f"{record.sha256} {record.error}"
            labels = f"{entry.dropped} {entry.added} {entry.low_confidence}"
            yield f"{entry.item.job.id} {entry.item.source.key} {made} {entry.verdict} {labels}"
