"""A plan met with its records: for each item the attempt that counts, its verdict, and the label rows that go and come."""

from __future__ import annotations

from dataclasses import dataclass, replace

from diffgen.checks.auto_labels import is_text2img, label_rows, labelled_detections
from diffgen.checks.tasks import added_row
from diffgen.checks.verdict import judge, lost_objects
from diffgen.dataset.labels import with_row, without_rows
from diffgen.plan.plan import Plan
from diffgen.recipe.schema import Recipe
from diffgen.recipe.sections import Checks
from diffgen.types import Item, Record, Source, Verdict


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
    if is_text2img(record.facts):
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
    _, sure = labelled_detections(facts, checks.confidence)
    unsure = bool(sure) and checks.review_below is not None and min(sure) < checks.review_below
    weak = unsure and entry.accepted and decision is None
    return replace(entry, added=label_rows(facts, checks.confidence), sure=tuple(sure), weak=weak)


def is_carried(source: Source, recipe: Recipe) -> bool:
    """Whether the export has the source's own image."""
    wanted = recipe.include_sources != "none" or source.split not in recipe.select.splits
    return wanted and bool(source.digest)  # without one it is listed, but not there
