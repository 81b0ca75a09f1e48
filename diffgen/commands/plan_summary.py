"""What a run would do and what it has done, as facts and as text for a terminal. No torch, makes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.formats import NOTES
from diffgen.dataset.formats.yolo import orphan_labels
from diffgen.dataset.geometry import views_for, working_canvas
from diffgen.dataset.leakage import identical, near
from diffgen.editing.pipelines.offload import not_quantisable
from diffgen.models.memory import forecast
from diffgen.models.model import needs, vocabulary
from diffgen.models.networks import require_detector_file
from diffgen.plan.select import Edit, fits
from diffgen.plan.settings import edits_of
from diffgen.plan.warnings import unknown_words, unsuited_controls, unsupported_guidance
from diffgen.recipe.load import LoadedRecipe
from diffgen.recipe.sections import Condition
from diffgen.run.session import Session, no_collector
from diffgen.run.store.images import read_present
from diffgen.run.store.state import check_folder, is_run_folder
from diffgen.run.summary import MOST_NAMED
from diffgen.types import Record, Settings

# Bytes per pixel of photographs as we write them; measured on driving frames, for the estimate of disk use only.
BYTES_PER_PIXEL = {"jpg": 0.45, "webp": 0.3, "png": 1.9}

MOST_LOOKED_AT = 5000  # sources: looking at more pictures takes longer than planning; --look does it all the same


def overview(loaded: LoadedRecipe, limit: int | None = None, look: bool | None = None) -> dict[str, Any]:
    """The plan in numbers: JSON-ready. `look` compares the pictures across splits; None does so up to MOST_LOOKED_AT."""
    check_folder(loaded.output)
    session = Session.open(loaded, limit)
    require_detector_file(session.model.observers)  # to say now that it is missing, and not when a run begins
    with no_collector():
        return _overview(session, look)


def _overview(session: Session, look: bool | None) -> dict[str, Any]:
    plan, recipe = session.plan, session.recipe
    labeller = session.model.observers.detector if recipe.text2img is not None else None
    present = read_present(session.folder, recipe.image.format) if is_run_folder(session.folder) else {}
    edits = _edits(session, present)
    problems: dict[str, list[str]] = {}
    for source in plan.sources:
        if source.problem is not None:
            word, _, text = source.problem.partition(": ")
            problems.setdefault(word, []).append(f"{source.key}: {text}")
    conditions: dict[str, Counter[str]] = {condition.name: Counter() for condition in recipe.conditions}
    for source, conditioned in plan.edits:
        for condition, _ in conditioned:
            conditions[condition.name][source.split] += plan.variants
    return {
        "recipe": str(session.loaded.path),
        "dataset": str(session.dataset.path),
        "output": str(session.folder),
        "model": {"name": session.model.name, "editor": session.model.editor, "identity": session.model.identity},
        "memory": _memory(session),
        "resolution": recipe.resolution.mode,
        "sources": dict(Counter(source.split for source in plan.sources if source.digest)),
        "annotator": labeller.name if labeller else None,
        "edited_sources": sum(bool(conditioned) for _, conditioned in plan.edits),
        "conditions": {name: dict(count) for name, count in conditions.items()},
        "idle": {c.name: _why_idle(session, c) for c in recipe.conditions if not conditions[c.name]},
        "images": sum(count for counts in conditions.values() for count in counts.values()),
        "jobs": edits.jobs,
        "to_make": edits.left,
        "not_edited": _examples(problems),
        "labels": _labels(session),
        "prompts": unknown_words(plan, vocabulary(session.model)),
        "guidance": unsupported_guidance(plan, session.model),
        "controls": unsuited_controls(plan),
        "notes": _examples(session.dataset.notes),
        "leakage": _leakage(session, look),
        "small_boxes": _small_boxes(session),
        "disk_mb": round(_disk(session, edits) / 1e6, 1),
        "minutes": _minutes(session, edits, [record.seconds for record in present.values() if record.seconds]),
    }


def _memory(session: Session) -> str:
    recipe, model = session.recipe, session.model
    dtype = "float32" if recipe.dtype == "float32" else "float16"
    return forecast(recipe.memory, recipe.device, needs(model, dtype), not_quantisable(model))


@dataclass(slots=True)
class _Edits:
    """Images that the plan needs, each once; how many are left to make, and their pixels as sources and as worked on."""

    jobs: int = 0
    left: int = 0
    pixels: int = 0
    worked: int = 0

    def add(self, size: tuple[int, int], settings: Settings, count: int) -> None:
        """Of sources of `size`, `count` images."""
        canvas = working_canvas(*size, settings)
        tiles = views_for(canvas, settings)
        one = canvas.size if len(tiles) == 1 else (settings.long_side, settings.long_side)
        self.left += count
        self.pixels += count * size[0] * size[1]
        self.worked += count * len(tiles) * one[0] * one[1]


def _edits(session: Session, present: dict[str, Record]) -> _Edits:
    plan, found = session.plan, _Edits()
    if present:
        due = {}
        for entry in session.outcome(present).entries:
            due[entry.item.job.id] = entry
        found.jobs = len({item.job.id for item in plan.items})
        for entry in due.values():
            if entry.record is None or entry.record.kind == "transient":
                found.add((entry.item.source.width, entry.item.source.height), entry.item.job.settings, 1)
        return found
    seen: set[str] = set()  # a source that stands twice shares its images; nothing else can share one
    alike: Counter[tuple[int, int, int]] = Counter()  # by size and conditions, which sources share
    shared: dict[int, tuple[Edit, ...]] = {}
    for source, conditioned in plan.edits:
        if source.digest not in seen:
            seen.add(source.digest)
            shared[id(conditioned)] = conditioned
            alike[source.width, source.height, id(conditioned)] += plan.variants
    for (width, height, one), count in alike.items():
        for _, settings in shared[one]:
            found.add((width, height), settings, count)
    found.jobs = found.left
    return found


def _why_idle(session: Session, condition: Condition) -> str:
    """Why no picture gets the condition."""
    if not session.plan.edits:
        return "no picture is selected that can be edited"
    what = " or ".join(condition.classes or ())
    reasons = {
        "background": "no selected picture has a labelled object",
        "remove": f"no selected picture has a labelled {what or 'object'}",
        "insert": f"no selected picture has free ground for a {what}, as large and as high in it as the dataset's own are, "
        f"{session.model.least_object} px or more at the working size",
    }
    suited = [edit for edit in edits_of(session.recipe, session.model, session.dataset) if edit[0] == condition]
    if any(fits(source, edit, session.plan.places) for source, _ in session.plan.edits for edit in suited):
        return "its share fell on none of the pictures"
    return reasons[str(condition.task)]


def _examples(found: dict[str, list[str]]) -> dict[str, Any]:
    return {word: {"count": len(lines), "examples": lines[:MOST_NAMED]} for word, lines in sorted(found.items())}


def _labels(session: Session) -> dict[str, Any]:
    """Images without label file, with an empty one, and label files without image."""
    # None where all is made from noise; and none of those whose file is not there.
    sources = [source for source in session.plan.sources and session.dataset.sources if source.digest]
    files = {source.label for source in sources if isinstance(source.label, str)}
    orphans = orphan_labels(session.dataset.folders, files) if isinstance(session.recipe.dataset, str) else []
    return {
        "none": sum(source.label is None for source in sources),
        "empty": sum(source.label is not None and not source.counts and not source.problem for source in sources),
        "orphans": {"count": len(orphans), "examples": [str(path) for path in orphans[:MOST_NAMED]]},
    }


def _leakage(session: Session, look: bool | None) -> dict[str, Any]:
    """Pictures that stand in more than one split: the same bytes, and (where looked at) the same look."""
    sources = session.plan.sources and session.dataset.sources
    same = [" = ".join(source.key for source in group) for group in identical(sources)]
    facts: dict[str, Any] = {"identical": {"count": len(same), "examples": same[:MOST_NAMED]}, "near": None}
    if look or (look is None and len(sources) <= MOST_LOOKED_AT):
        with FileCache() as cache:
            pairs = [f"{first.key} ~ {second.key}" for first, second in near(sources, cache)]
        facts["near"] = {"count": len(pairs), "examples": pairs[:MOST_NAMED]}
    return facts


def _small_boxes(session: Session) -> dict[str, Any]:
    """Boxes whose shorter side, at the working size, is under what the model's autoencoder can hold."""
    least = session.model.least_object
    total = small = 0
    for source, conditioned in session.plan.edits:
        if not conditioned:
            continue
        settings = conditioned[0][1]
        scale = max(working_canvas(source.width, source.height, settings).inner) / max(source.width, source.height)
        total += len(source.smallest)
        small += len([side for side in source.smallest if side * scale < least])
    return {"least_px": least, "small": small, "boxes": total}


def _disk(session: Session, edits: _Edits) -> float:
    """Bytes that the run adds: images to make, and copies of the sources."""
    per_pixel = BYTES_PER_PIXEL[session.recipe.image.format]
    made = edits.pixels * per_pixel
    if session.recipe.include_sources != "copy":
        return made
    return made + sum(source.size for source in session.plan.sources)


def _minutes(session: Session, edits: _Edits, seconds: list[float]) -> float | None:
    """From the images made so far, else from the model's measured speed on a CPU; None when neither is known."""
    if seconds:
        return round(edits.left * median(seconds) / 60, 1)
    if session.model.cpu_seconds_per_mpx is None:
        return None
    return round(edits.worked / 1e6 * session.model.cpu_seconds_per_mpx / 60, 1)


def overview_text(facts: dict[str, Any]) -> str:
    """The same for people."""
    minutes = facts["minutes"]
    time = f"about {minutes:g} minutes" if minutes is not None else "time known after the first images (try --limit 8)"
    lines = [
        *_head_lines(facts),
        *_box_lines(facts),
        *(f"{title:<9} {line}" for title in ("prompt", "guidance", "controls") for line in facts[_LISTS[title]]),
        *_dataset_lines(facts),
        f"cost      about {facts['disk_mb']:g} MB of disk, {time}",
    ]
    return "\n".join(lines)


_LISTS = {"prompt": "prompts", "guidance": "guidance", "controls": "controls"}  # title of a line -> fact with its texts


def _head_lines(facts: dict[str, Any]) -> Iterator[str]:
    splits = ", ".join(f"{count} {split}" for split, count in facts["sources"].items())
    if facts["annotator"] is None:
        yield f"dataset   {facts['dataset']}: {splits}; {facts['edited_sources']} to edit"
    else:
        yield f"dataset   none: pictures are made from noise and labelled by {facts['annotator']}: the weaker way"
    yield f"model     {facts['model']['name']} ({facts['model']['editor']})"
    if facts["memory"]:
        yield f"memory    {facts['memory']}"
    yield f"output    {facts['output']}"
    yield f"images    {facts['images']} planned, {facts['to_make']} still to make"
    for name, counts in facts["conditions"].items():
        images = ", ".join(f"{count} {split}" for split, count in counts.items())
        yield f"          {name:<14} {images or 'none: ' + facts['idle'][name]}"


def _box_lines(facts: dict[str, Any]) -> Iterator[str]:
    boxes = facts["small_boxes"]
    if not boxes["small"]:
        return
    remedy = "resolution: {mode: tile}, or a larger long_side, keeps them"
    if facts["resolution"] == "tile":
        remedy = "they are no larger in the pictures themselves; objects: {strength: 0, detail: 1} changes them least"
    yield (
        f"boxes     {boxes['small']} of {boxes['boxes']} will be under {boxes['least_px']} px at the model's working size "
        f"and may melt; {remedy}"
    )


def _dataset_lines(facts: dict[str, Any]) -> Iterator[str]:
    labels, leakage = facts["labels"], facts["leakage"]
    for word, found in facts["not_edited"].items():
        what = "left out" if word == "missing" else "carried over as they are"
        yield from _counted("unedited", found, f"{word}, {what}")
    if labels["none"] or labels["empty"]:
        yield f"labels    {labels['none']} images without label file, {labels['empty']} with an empty one: background"
    yield from _counted("labels", labels["orphans"], "label files without image, not used")
    for word, found in facts["notes"].items():
        yield from _counted("dataset", found, NOTES[word])
    yield from _counted("leakage", leakage["identical"], "pictures stand in more than one split, byte for byte")
    if leakage["near"] is None:
        yield "leakage   look-alikes across splits not looked for in a dataset of this size; --look does"
    else:
        yield from _counted("leakage", leakage["near"], "pictures look like one of another split")


def _counted(title: str, found: dict[str, Any], text: str) -> list[str]:
    """A line with the count, its examples, and how many more there are; nothing for none."""
    if not found["count"]:
        return []
    more = found["count"] - len(found["examples"])
    lines = [f"{title:<9} {found['count']} {text}", *(f"          {example}" for example in found["examples"])]
    return [*lines, f"          … and {more} more"] if more else lines
