"""`diffgen status`: what a run folder holds, also while a run is going on."""

from __future__ import annotations

from dataclasses import replace

from diffgen.output.outcome import judge_plan
from diffgen.recipe.load import LoadedRecipe
from diffgen.run.session import prepare
from diffgen.run.store.images import read_present
from diffgen.run.store.state import is_locked, read_state
from diffgen.run.summary import Summary, summarise

RECENT = 64  # images that the speed of a run is told by


def status(loaded: LoadedRecipe) -> Summary:
    """What the run folder holds, read without its lock: also while a run is writing."""
    state = read_state(loaded.output)
    prepared = prepare(loaded, state.get("limit"))
    records = read_present(prepared.output, prepared.recipe.image.format)
    summary = summarise(prepared, prepared.plan, judge_plan(prepared.plan, prepared.recipe, records))
    recent = [record.seconds for record in records.values() if record.seconds][-RECENT:]
    speed = len(recent) / sum(recent) if recent else None
    return replace(summary, running=True, images_per_second=speed) if is_locked(prepared.output) else summary
