"""`diffgen status`: what a run folder holds, also during a run."""

from __future__ import annotations

from dataclasses import replace

from diffgen.output.export import export_state
from diffgen.recipe.load import LoadedRecipe
from diffgen.run.session import Session
from diffgen.run.store.images import read_present
from diffgen.run.store.state import is_locked, read_state
from diffgen.run.summary import Summary, summarise

RECENT = 64  # the speed of a run is that of the last images made


def status(loaded: LoadedRecipe) -> Summary:
    """Summarise a run folder. Takes no lock, so it works during a run. Raises UsageError if it is not a run folder."""
    session = Session.open(loaded, read_state(loaded.output).get("limit"))
    records = read_present(session.folder, session.recipe.image.format)
    outcome = session.outcome(records)
    summary = replace(summarise(outcome, limit=session.limit), export=export_state(outcome))
    recent = [record.seconds for record in records.values() if record.seconds][-RECENT:]
    speed = len(recent) / sum(recent) if recent else None
    return replace(summary, running=True, images_per_second=speed) if is_locked(session.folder) else summary
