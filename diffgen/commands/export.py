"""`diffgen export`: judge the records again and write the dataset again. Makes no image."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from diffgen.errors import UsageError
from diffgen.files import write_atomically
from diffgen.output.review import REVIEW_FILE, read_review
from diffgen.recipe.load import LoadedRecipe, load_recipe
from diffgen.run.loop import export_outputs
from diffgen.run.session import Session
from diffgen.run.store.state import read_state
from diffgen.run.store.store import RunStore
from diffgen.run.summary import Summary, summarise


def export(loaded: LoadedRecipe, review: Path | None = None) -> Summary:
    """Judge by the recipe's thresholds as far as the last run went, and export.

    The decisions in `review` replace those of the run folder and are kept there. Raises UsageError where the recipe asks
    for other images than the run folder's, or a decision is about no job of it.
    """
    limit = read_state(loaded.output).get("limit")
    session = Session.open(loaded, limit, reviewed=review is None)
    with RunStore(session.folder, session.recipe.image.format) as store:
        _require_same_images(store, session)
        if review is not None:
            kept = store.folder / REVIEW_FILE
            known = set(store.records)
            with suppress(UsageError):  # a review that is broken, or not there, is about to be replaced
                known |= read_review(kept).keys()
            session = replace(session, review=read_review(review, known))
            write_atomically(kept, review.read_text("utf-8-sig"))
        session.write_recipe()
        outcome = session.outcome(store.present())
        summary = summarise(outcome)
        export_outputs(outcome, summary, store.state["environments"])
    return summary


def _require_same_images(store: RunStore, session: Session) -> None:
    """Raises UsageError for images that are neither made nor planned by the recipe that the run folder has kept."""
    kept = store.folder / "recipe.yaml"
    lacking = {item.job.id for item in session.plan.items} - store.records.keys()
    if not lacking or not kept.is_file() or kept.read_text("utf-8") == session.recipe_text():
        return
    own = Session.open(load_recipe(kept), session.limit, reviewed=False).plan
    if lacking := lacking - {item.job.id for item in own.items}:
        raise UsageError(
            f"{store.folder}: export makes no image, and this recipe asks for {len(lacking)} that the run folder's does not",
            "export with other checks, require or include_sources only; 'diffgen run' makes other images",
        )
