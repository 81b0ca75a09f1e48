"""`diffgen plan`: what a run would do, as facts and as text for a terminal. Makes nothing and does not import torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from diffgen.dataset.dataset import require_confined
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.geometry import views_for, working_canvas
from diffgen.dataset.leakage import near
from diffgen.dataset.remarks import Counted, counted, counted_lines
from diffgen.editing.pipelines.offload import not_quantisable
from diffgen.files import shown
from diffgen.models.memory import forecast
from diffgen.models.model import needs, vocabulary
from diffgen.models.networks import require_detector_file
from diffgen.plan.remarks import plan_remark_lines, plan_remarks
from diffgen.plan.select import fits
from diffgen.plan.settings import edits_of
from diffgen.plan.warnings import unknown_words, unsuited_controls, unsupported_guidance
from diffgen.recipe.load import LoadedRecipe
from diffgen.recipe.sections import Condition
from diffgen.run.session import Session, no_collector
from diffgen.run.store.images import read_present
from diffgen.run.store.state import check_folder, is_run_folder
from diffgen.types import Record, Settings

# Bytes per pixel of the image files we write, measured on driving frames; used only to estimate disk use.
BYTES_PER_PIXEL = {"jpg": 0.45, "webp": 0.3, "png": 1.9}

MAX_COMPARED = 5000  # sources whose pictures are compared by default; with more it takes longer than planning


def plan_facts(
    loaded: LoadedRecipe, limit: int | None = None, look: bool | None = None, *, confined: bool = False
) -> dict[str, Any]:
    """The plan in numbers, JSON-ready. `look` compares pictures across splits; None: only up to MAX_COMPARED sources.
    `confined` refuses names that lead outside of the dataset.

    Raises UsageError for a recipe that does not suit its dataset or model, DiffgenError for files it cannot read.
    """
    check_folder(loaded.output)
    session = Session.open(loaded, limit)
    session.check_runnable()
    if confined:
        require_confined(session.dataset)
    require_detector_file(session.model.observers)  # fail now, and not when a run begins
    with no_collector():
        return _facts(session, look)


def _facts(session: Session, look: bool | None) -> dict[str, Any]:
    plan, recipe = session.plan, session.recipe
    labeller = session.model.observers.detector if recipe.text2img is not None else None
    present = read_present(session.folder, recipe.image.format) if is_run_folder(session.folder) else {}
    work = _workload(session, present)
    remarks = plan_remarks(plan, recipe)
    conditions: dict[str, Counter[str]] = {condition.name: Counter() for condition in recipe.conditions}
    for source, edits in plan.edits:
        for condition, _ in edits:
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
        "edited_sources": sum(bool(edits) for _, edits in plan.edits),
        "conditions": {name: dict(count) for name, count in conditions.items()},
        "strengths": {
            name: {f"{level:g}": count for level, count in counts.items()} for name, counts in plan.strengths().items()
        },
        "idle": {c.name: _why_idle(session, c) for c in recipe.conditions if not conditions[c.name]},
        "images": sum(count for counts in conditions.values() for count in counts.values()),
        "jobs": work.jobs,
        "to_make": work.left,
        "not_edited": remarks["not_edited"],
        "labels": remarks["labels"],
        "prompts": unknown_words(plan, vocabulary(session.model)),
        "guidance": unsupported_guidance(plan, session.model),
        "controls": unsuited_controls(plan),
        "notes": remarks["notes"],
        "leakage": {"identical": remarks["identical"], "near": _near(session, look)},
        "skipped": remarks["skipped"],
        "small_boxes": remarks["small_boxes"],
        "disk_mb": round(_disk(session, work) / 1e6, 1),
        "minutes": _minutes(session, work, [record.seconds for record in present.values() if record.seconds]),
    }


def _memory(session: Session) -> str:
    recipe, model = session.recipe, session.model
    dtype = "float32" if recipe.dtype == "float32" else "float16"
    return forecast(recipe.memory, recipe.device, needs(model, dtype), not_quantisable(model))


@dataclass(slots=True)
class _Workload:
    """The jobs of a plan, each once: how many, how many are left, and the pixels of those at source and working size."""

    jobs: int = 0
    left: int = 0
    pixels: int = 0
    working_pixels: int = 0

    def add(self, size: tuple[int, int], settings: Settings, count: int) -> None:
        """Count `count` images that are left to make, of sources of `size` (width, height) pixels."""
        canvas = working_canvas(*size, settings)
        tiles = views_for(canvas, settings)
        width, height = canvas.size if len(tiles) == 1 else (settings.tile_side, settings.tile_side)
        self.left += count
        self.pixels += count * size[0] * size[1]
        self.working_pixels += count * len(tiles) * width * height


def _workload(session: Session, present: dict[str, Record]) -> _Workload:
    plan, work = session.plan, _Workload()
    if present:
        work.jobs = len({item.job.id for item in plan.items})
        for entry in {entry.item.job.id: entry for entry in session.outcome(present).entries}.values():
            if entry.record is None or entry.record.kind == "transient":
                work.add((entry.item.source.width, entry.item.source.height), entry.item.job.settings, 1)
        return work
    # Nothing is made yet: count by size and conditions, which many sources share, as listing every job takes seconds.
    unique = {edited[0].digest: edited for edited in reversed(plan.edits)}  # copies of a source share their images
    counts = Counter((source.width, source.height, id(edits)) for source, edits in unique.values())
    by_id = {id(edits): edits for _, edits in unique.values()}
    for (width, height, edits_id), count in counts.items():
        for _, settings in by_id[edits_id]:
            work.add((width, height), settings, count * plan.variants)
    work.jobs = work.left
    return work


def _why_idle(session: Session, condition: Condition) -> str:
    """Why no picture gets the condition."""
    if not session.plan.edits:
        return "no picture that can be edited is selected"
    if all(set(condition.skip_if) & set(source.looks) for source, _ in session.plan.edits):
        return f"every picture is {' or '.join(condition.skip_if)} (skip_if)"
    classes = " or ".join(condition.classes or ())
    reasons = {
        "background": "no selected picture has a labelled object",
        "remove": f"no selected picture has a labelled {classes or 'object'}",
        "insert": f"no selected picture has room for a {classes} of a size and position that the dataset's objects have, "
        f"and {session.model.least_object} px or more at the working size",
    }
    suited = [
        edit for edit in edits_of(session.recipe, session.model, session.dataset) if edit[0].name == condition.name
    ]
    if any(fits(source, edit, session.plan.places) for source, _ in session.plan.edits for edit in suited):
        return "its share selects no picture"
    return reasons[str(condition.task)]


def _near(session: Session, look: bool | None) -> Counted | None:
    """Near-duplicates in more than one split; None if pictures are not compared."""
    sources = session.plan.sources and session.dataset.sources
    if not look and (look is not None or len(sources) > MAX_COMPARED):
        return None
    with FileCache() as cache:
        return counted([f"{first.key} ~ {second.key}" for first, second in near(sources, cache)])


def _disk(session: Session, work: _Workload) -> float:
    """Bytes that the run adds: the images to make, their copies in the dataset, and those of the sources. File systems that
    copy by reference need none for the copies."""
    copies = sum(source.size for source in session.plan.sources) if session.recipe.include_sources == "copy" else 0
    return 2 * work.pixels * BYTES_PER_PIXEL[session.recipe.image.format] + copies


def _minutes(session: Session, work: _Workload, seconds: list[float]) -> float | None:
    """Minutes left, from the time of the images made so far, else from the model's CPU speed; None if unknown."""
    if seconds:
        return round(work.left * median(seconds) / 60, 1)
    if session.model.cpu_seconds_per_mpx is None:
        return None
    return round(work.working_pixels / 1e6 * session.model.cpu_seconds_per_mpx / 60, 1)


def plan_text(facts: dict[str, Any]) -> str:
    """`plan_facts` as text."""
    minutes = facts["minutes"]
    time = (
        f"about {minutes:g} minutes"
        if minutes is not None
        else "time unknown until the first images are made (try --limit 8)"
    )
    lines = [
        *_head_lines(facts),
        *(f"prompt    {line}" for line in facts["prompts"]),
        *(f"{key:<9} {line}" for key in ("guidance", "controls") for line in facts[key]),
        *_dataset_lines(facts),
        f"cost      about {facts['disk_mb']:g} MB of disk, {time}",
    ]
    return "\n".join(lines)


def _head_lines(facts: dict[str, Any]) -> Iterator[str]:
    splits = ", ".join(f"{count} {split}" for split, count in facts["sources"].items())
    if facts["annotator"] is None:
        yield f"dataset   {shown(facts['dataset'])}: {splits}; {facts['edited_sources']} to edit"
    else:
        yield f"dataset   none: images come from text, labelled by {facts['annotator']}, so labels are less reliable"
    yield f"model     {facts['model']['name']} ({facts['model']['editor']})"
    if facts["memory"]:
        yield f"memory    {facts['memory']}"
    yield f"output    {shown(facts['output'])}"
    twice = facts["images"] - facts["jobs"]
    same = f" ({twice} are of identical pictures, so they are made once)" if twice else ""
    yield f"images    {facts['images']} planned, {facts['to_make']} still to make{same}"
    for name, counts in facts["conditions"].items():
        images = ", ".join(f"{count} {split}" for split, count in counts.items())
        yield f"          {name:<14} {images or 'none: ' + facts['idle'][name]}"
        if levels := facts["strengths"].get(name):
            spread = ", ".join(f"{count} at {level}" for level, count in levels.items())
            yield f"          {'':<14} strength: {spread}; each batch holds images of one strength"


def _dataset_lines(facts: dict[str, Any]) -> Iterator[str]:
    leakage = facts["leakage"]
    yield from plan_remark_lines({**facts, "identical": leakage["identical"]})
    if leakage["near"] is None:
        yield "leakage   near-duplicates across splits are not looked for in a dataset of this size; add --look"
    else:
        yield from counted_lines("leakage", leakage["near"], "pictures look like a picture of another split")
