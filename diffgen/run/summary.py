"""The summary of a run: how much of the plan is made, accepted, rejected and failed, in numbers and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from diffgen.dataset.remarks import MAX_EXAMPLES
from diffgen.errors import printable
from diffgen.files import shown
from diffgen.output.outcome import Entry, Outcome
from diffgen.output.schedule import train_command
from diffgen.plan.remarks import plan_remark_lines, plan_remarks
from diffgen.recipe.schema import Recipe
from diffgen.run.interrupts import STOP_CODES
from diffgen.run.progress import Speed
from diffgen.run.timings import speed_line


@dataclass(frozen=True, slots=True)
class Summary:
    """The numbers of a run. `rejected`, `failed` and `not_edited` count by reason. Field names are the JSON keys."""

    output: str  # the run folder
    planned: int
    accepted: int
    rejected: dict[str, int]
    failed: dict[str, int]
    pending: int  # images that are still to be made
    conditions: dict[str, dict[str, int]]
    sources: dict[str, int]
    not_edited: dict[str, int]
    made_now: int = 0  # images made by this call
    seconds: float = 0.0  # duration of this call
    stopped: str | None = None  # why it ended early: "max-minutes", or the name of a signal
    require: float = 0.0  # `require.accepted` of the recipe
    saved: int = 0  # accepted on a retry
    to_review: int = 0  # accepted with labels of low confidence
    exported: int = 0  # accepted and, by `ratio`, in the dataset
    unjudged: int = 0  # accepted, but made before the recipe named its current detector or CLIP model
    errors: list[str] = field(default_factory=list)  # messages of the images that failed
    repaired: list[str] = field(default_factory=list)  # damage found in the run folder; it is made again
    dataset: dict[str, Any] = field(default_factory=dict)  # remarks on the dataset, as from `plan`; see plan_remarks
    empty: list[str] = field(default_factory=list)  # splits without images that training needs
    unlabelled: bool = False  # whether no picture of train has a labelled object
    export: str = "current"  # `status` only: the exported dataset is "current", "older" than the images, or "none"
    task: str = "detect"  # what a detector learns from the labels, in Ultralytics' words: detect, segment, pose or obb
    limit: int | None = None  # --limit: the dataset holds at most this many sources of each edited split
    part: str | None = None  # the worker's name, if it made only a part
    running: bool = False  # `status` only: a process is making images in the folder now
    images_per_second: float | None = None  # `status` only: the speed of that process
    speed: dict[str, Any] | None = None  # speed of the images made by this call; see Timings.facts

    @property
    def share(self) -> float:
        return self.accepted / self.planned if self.planned else 0.0

    @property
    def exit_code(self) -> int:
        """0 done, 1 no image made or accepted, or an empty split, 3 below `require`, 4 to be run again, 129, 130 and 143
        interrupted."""
        if self.stopped in STOP_CODES:
            return STOP_CODES[self.stopped]
        if self.part is not None:  # whether the whole succeeded depends on the other workers
            return 0
        if not self.planned or (not self.accepted and not self.rejected):
            return 1
        if self.pending and self.stopped is None:
            return 4
        return self.export_code

    @property
    def export_code(self) -> int:
        """The exit code for the dataset as it is, ignoring images that are still to be made."""
        return 3 if self.share < self.require else 1 if self.empty or self.unlabelled or not self.accepted else 0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "accepted_share": round(self.share, 4), "exit_code": self.exit_code}


def summarise(
    outcome: Outcome,
    *,
    made_now: int = 0,
    stopped: str | None = None,
    repaired: Sequence[str] = (),
    limit: int | None = None,
) -> Summary:
    """Count the outcome's items, not its jobs: a source that appears twice in the dataset counts twice."""
    recipe, sources, entries = outcome.recipe, outcome.plan.sources, outcome.entries
    accepted = [entry for entry in entries if entry.accepted]
    rejected = [entry for entry in entries if entry.made and not entry.accepted]
    failed = [entry.record for entry in entries if entry.record is not None and not entry.made]
    planned = Counter(entry.item.job.settings.condition for entry in entries)
    kept = Counter(entry.item.job.settings.condition for entry in accepted)
    filled = {source.split for source in sources if outcome.exports_source(source)}
    filled |= {entry.item.source.split for entry in accepted}
    # A text2img dataset without val uses train as val.
    needed = ("train",) if recipe.text2img is not None else ("train", "val")
    return Summary(
        output=str(outcome.folder),
        planned=len(entries),
        accepted=len(accepted),
        rejected=_counted(entry.verdict.reason or "" for entry in rejected if entry.verdict is not None),
        failed=_counted(record.kind or "transient" for record in failed),
        pending=sum(entry.record is None for entry in entries),
        conditions={c.name: {"planned": planned[c.name], "accepted": kept[c.name]} for c in recipe.conditions},
        sources=dict(Counter(source.split for source in sources if source.digest)),
        not_edited=_counted(source.problem.partition(":")[0] for source in sources if source.problem is not None),
        made_now=made_now,
        stopped=stopped,
        require=recipe.require.accepted,
        saved=sum(entry.item.job.attempt > 0 for entry in accepted),
        to_review=sum(entry.low_confidence for entry in accepted),
        exported=len(outcome.exported),
        unjudged=sum(_unmeasured(entry, recipe) for entry in accepted),
        errors=sorted({record.error or "" for record in failed}),
        repaired=list(repaired),
        limit=limit,
        dataset=plan_remarks(outcome.plan, recipe),
        task=outcome.dataset.task,
        unlabelled=not any(
            chain(
                (s.split == "train" and bool(s.counts) and outcome.exports_source(s) for s in sources),
                (e.item.source.split == "train" and bool(e.item.source.counts or e.added) for e in accepted),
            )
        ),
        empty=[split for split in needed if split not in filled],
    )


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def _unmeasured(entry: Entry, recipe: Recipe) -> bool:
    """Whether the recipe names a detector or CLIP model that has not measured the image."""
    if entry.record is None or recipe.text2img is not None:
        return False
    observers = {"found": recipe.detector, "clip": recipe.clip}
    return any(named and fact not in entry.record.facts for fact, named in observers.items())


def summary_text(summary: Summary) -> str:
    """The text that `run`, `status` and `export` print."""
    output = shown(summary.output)
    left = f", {summary.pending} not made yet" if summary.pending else ""
    lines = [f"{summary.accepted} of {summary.planned} images accepted ({summary.share:.0%}){left}  {output}"]
    for name, count in summary.conditions.items():
        lines.append(f"  {name:<14} {count['accepted']}/{count['planned']}")
    if summary.exported < summary.accepted:
        lines.append(
            f"ratio     {summary.exported} of the accepted images are in the dataset (limited by ratio: in the recipe)"
        )
    if summary.saved:
        lines.append(f"retried   {summary.saved} accepted on a later attempt")
    if summary.to_review:
        lines.append(f"review    {summary.to_review} with low-confidence labels: check them in report.html")
    if summary.unjudged:
        lines.append(
            f"unjudged  {summary.unjudged} made before the recipe named its detector or CLIP model, so without its "
            "measurements; use a new output folder to have them measured"
        )
    if summary.rejected:
        lines.append("rejected  " + ", ".join(f"{reason} {count}" for reason, count in summary.rejected.items()))
    if summary.failed:
        lines.append("failed    " + ", ".join(f"{kind} {count}" for kind, count in summary.failed.items()))
        lines += [f"  {printable(error)}" for error in summary.errors[:MAX_EXAMPLES]]
    lines += [f"repaired  {line}" for line in summary.repaired]
    if summary.dataset:
        lines += plan_remark_lines(summary.dataset)
    if summary.speed is not None:
        lines.append(speed_line(summary.speed))
    if summary.running:
        lines.append(f"running   {_speed(summary)}")
    elif summary.part is not None:
        others = f"{summary.pending} images of other parts are not made yet; " if summary.pending else ""
        lines.append(f"part      {summary.part} is done; {others}`diffgen export {output}` writes the dataset")
    elif summary.pending:
        lines.append(f"pending   {summary.pending}; run the same 'diffgen run' again to make them")
    below = summary.share < summary.require
    if below:
        so_far = " so far" if summary.pending else ""
        lines.append(f"below the required share of {summary.require:.0%}{so_far} (require.accepted)")
    if summary.exit_code == 1 and not summary.pending and not summary.accepted and not summary.rejected:
        why = "every image failed" if summary.planned else "the recipe selects no picture that can be edited"
        lines.append(f"nothing could be made: {why}; 'diffgen plan' says more")
    elif summary.rejected and not summary.pending and not summary.accepted:
        lines.append(f"no image was accepted: {output}/report.html shows each with the reason")
    if summary.limit is not None:
        lines.append(
            f"limited   --limit {summary.limit}: the dataset holds at most {summary.limit} sources of each edited split"
        )
    if summary.stopped is not None or summary.running or summary.part is not None:
        return "\n".join(lines)
    if summary.export != "current":
        what = "none yet" if summary.export == "none" else "older than the images"
        lines.append(
            f"dataset   {what}: 'diffgen run' writes it when it is done; to write it now: diffgen export {output}"
        )
        return "\n".join(lines)
    lines.append(f"report    {output}/report.html")
    if summary.empty:
        lines.append(
            f"dataset   empty in {' and '.join(summary.empty)}: no image was accepted and no source image is included, "
            "so training is not possible"
        )
    elif summary.unlabelled:
        lines.append("dataset   no picture of train has a labelled object, so training is not possible")
    elif summary.accepted and not below:
        lines.append(f"train     {train_command(f'{output}/dataset/data.yaml', summary.task)}")
    return "\n".join(lines)


def _speed(summary: Summary) -> str:
    """How many images a running run still has to make, and its speed."""
    speed = summary.images_per_second
    if not speed or not summary.pending:
        return f"{summary.pending} still to make"
    return f"{summary.pending} still to make, {Speed(speed, summary.pending / speed)}"
