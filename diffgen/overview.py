"""What a run would do and what it has done, as facts and as text for a terminal. No torch, makes nothing."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import Any

from diffgen.plan import working_size
from diffgen.recipe import LoadedRecipe
from diffgen.run import Prepared, Summary, prepare
from diffgen.store import done, is_run_folder, read_present
from diffgen.types import Item

# Bytes per pixel of photographs as we write them; measured on driving frames, for the estimate of disk use only.
BYTES_PER_PIXEL = {"jpg": 0.45, "webp": 0.3, "png": 1.9}
MOST_NAMED = 5  # files named per reason


def overview(loaded: LoadedRecipe, limit: int | None = None) -> dict[str, Any]:
    """The plan in numbers: JSON-ready."""
    prepared = prepare(loaded, limit)
    plan, recipe = prepared.plan, prepared.recipe
    present = read_present(prepared.output, recipe.image.format) if is_run_folder(prepared.output) else {}
    finished = done(present)
    jobs = {item.job.id: item for item in plan.items}
    left = [item for key, item in jobs.items() if key not in finished]
    problems: dict[str, list[str]] = {}
    for source in plan.sources:
        if source.problem is not None:
            word, _, text = source.problem.partition(": ")
            problems.setdefault(word, []).append(f"{source.key}: {text}")
    conditions: dict[str, Counter[str]] = {condition.name: Counter() for condition in recipe.conditions}
    for item in plan.items:
        conditions[item.job.settings.condition][item.source.split] += 1
    return {
        "recipe": str(loaded.path),
        "dataset": str(prepared.dataset.path),
        "output": str(prepared.output),
        "model": {"name": prepared.model.name, "editor": prepared.model.editor, "identity": prepared.model.identity},
        "sources": dict(Counter(source.split for source in plan.sources)),
        "edited_sources": len({item.source.key for item in plan.items}),
        "conditions": {name: dict(count) for name, count in conditions.items()},
        "images": len(plan.items),
        "jobs": len(jobs),
        "to_make": len(left),
        "not_edited": {
            word: {"count": len(found), "examples": found[:MOST_NAMED]} for word, found in sorted(problems.items())
        },
        "small_boxes": _small_boxes(prepared),
        "disk_mb": round(_disk(prepared, left) / 1e6, 1),
        "minutes": _minutes(prepared, left, [record.seconds for record in present.values() if record.seconds]),
    }


def _small_boxes(prepared: Prepared) -> dict[str, Any]:
    """Boxes whose shorter side, at the working size, is under what the model's autoencoder can hold."""
    least = prepared.model.least_object
    total = small = 0
    seen = set()
    for item in prepared.plan.items:
        if item.source.key in seen:
            continue
        seen.add(item.source.key)
        settings = item.job.settings
        longest = max(item.source.width, item.source.height)
        scale = (
            min(max(longest, settings.smallest), settings.long_side) if settings.smallest else settings.long_side
        ) / longest
        total += len(item.source.smallest)
        small += sum(side * scale < least for side in item.source.smallest)
    return {"least_px": least, "small": small, "boxes": total}


def _disk(prepared: Prepared, left: list[Item]) -> float:
    """Bytes that the run adds: images to make, and copies of the sources."""
    per_pixel = BYTES_PER_PIXEL[prepared.recipe.image.format]
    made = sum(item.source.width * item.source.height for item in left) * per_pixel
    if prepared.recipe.include_sources != "copy":
        return made
    return made + sum(source.path.stat().st_size for source in prepared.plan.sources if source.digest)


def _minutes(prepared: Prepared, left: list[Item], seconds: list[float]) -> float | None:
    """From the images made so far, else from the model's measured speed on a CPU; None when neither is known."""
    if seconds:
        return round(len(left) * median(seconds) / 60, 1)
    if prepared.model.cpu_seconds_per_mpx is None:
        return None
    pixels = sum(width * height for width, height in map(working_size, left))
    return round(pixels / 1e6 * prepared.model.cpu_seconds_per_mpx / 60, 1)


def overview_text(facts: dict[str, Any]) -> str:
    """The same for people."""
    splits = ", ".join(f"{count} {split}" for split, count in facts["sources"].items())
    lines = [
        f"dataset   {facts['dataset']}: {splits}; {facts['edited_sources']} to edit",
        f"model     {facts['model']['name']} ({facts['model']['editor']})",
        f"output    {facts['output']}",
        f"images    {facts['images']} planned, {facts['to_make']} still to make",
    ]
    for name, splits in facts["conditions"].items():
        lines.append(
            f"          {name:<14} {', '.join(f'{count} {split}' for split, count in splits.items()) or 'none'}"
        )
    boxes = facts["small_boxes"]
    if boxes["small"]:
        lines.append(
            f"boxes     {boxes['small']} of {boxes['boxes']} will be under {boxes['least_px']} px at the model's "
            "working size and may melt; a larger resolution.long_side keeps them"
        )
    for word, found in facts["not_edited"].items():
        lines.append(f"unedited  {found['count']} {word}, carried over as they are")
        lines += [f"          {example}" for example in found["examples"]]
        if found["count"] > len(found["examples"]):
            lines.append(f"          … and {found['count'] - len(found['examples'])} more")
    minutes = facts["minutes"]
    time = f"about {minutes:g} minutes" if minutes is not None else "time known after the first images (try --limit 8)"
    lines.append(f"cost      about {facts['disk_mb']:g} MB of disk, {time}")
    return "\n".join(lines)


def summary_text(summary: Summary) -> str:
    """What `run`, `status` and `export` print."""
    lines = [f"{summary.accepted} of {summary.planned} images accepted ({summary.share:.0%})  {summary.output}"]
    for name, count in summary.conditions.items():
        lines.append(f"  {name:<14} {count['accepted']}/{count['planned']}")
    if summary.rejected:
        lines.append("rejected  " + ", ".join(f"{reason} {count}" for reason, count in summary.rejected.items()))
    if summary.failed:
        lines.append("failed    " + ", ".join(f"{kind} {count}" for kind, count in summary.failed.items()))
        lines += [f"  {error}" for error in summary.errors[:MOST_NAMED]]
    if summary.not_edited:
        lines.append("unedited  " + ", ".join(f"{word} {count}" for word, count in summary.not_edited.items()))
    if summary.pending:
        lines.append(f"pending   {summary.pending}; run the same command again to go on")
    if summary.require and summary.share < summary.require:
        lines.append(f"below the required share of {summary.require:.0%} (require.accepted)")
    if summary.stopped is None:
        lines.append(f"train     yolo train data={summary.output}/dataset/data.yaml")
    return "\n".join(lines)
