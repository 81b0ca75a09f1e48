"""`diffgen export`: judge the records again and write the dataset again. Makes no image."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from diffgen.errors import UsageError
from diffgen.files import write_atomically
from diffgen.output.entries import exported_images
from diffgen.output.review import REVIEW_FILE, read_review
from diffgen.output.schedule import require_stages
from diffgen.recipe.load import LoadedRecipe, load_recipe
from diffgen.run.loop import export_outputs
from diffgen.run.session import Session
from diffgen.run.store.state import read_state
from diffgen.run.store.store import RunStore
from diffgen.run.summary import Summary, summarise


def export(loaded: LoadedRecipe, review: Path | None = None, *, staged: bool = False) -> Summary:
    """Judge by the recipe's thresholds, within the last run's limit, and export; with `staged` also for training in stages.

    The decisions in `review` replace those of the run folder and are kept there. Raises UsageError when the recipe needs
    images that the run folder's own recipe does not, or when a decision names an unknown job, or when a stage has no
    picture.
    """
    limit = read_state(loaded.output).get("limit")
    session = Session.open(loaded, limit, reviewed=review is None)
    with RunStore(session.folder, session.recipe.image.format) as store:
        _require_same_images(store, session)
        if review is not None:
            known = set(store.records)
            with suppress(UsageError):  # the kept review is missing or broken; it is replaced below
                known |= read_review(store.folder / REVIEW_FILE).keys()
            session = replace(session, review=read_review(review, known))
        outcome = session.outcome(store.present)
        if staged:
            require_stages(exported_images(outcome))
        if review is not None:
            write_atomically(store.folder / REVIEW_FILE, review.read_text("utf-8-sig"))
        session.write_recipe()
        summary = summarise(outcome, repaired=store.repaired, limit=limit)
        export_outputs(outcome, summary, store.state["environments"], staged=staged)
    return summary


def _require_same_images(store: RunStore, session: Session) -> None:
    """Raises UsageError if the session plans images that are neither made nor planned by the run folder's own recipe."""
    kept = store.folder / "recipe.yaml"
    missing = {item.job.id for item in session.plan.items} - store.records.keys()
    if not missing or not kept.is_file() or kept.read_text("utf-8") == session.recipe_text():
        return
    kept_plan = Session.open(load_recipe(kept), session.limit, reviewed=False).plan
    if missing := missing - {item.job.id for item in kept_plan.items}:
        raise UsageError(
            f"{store.folder}: export makes no images, but this recipe plans {len(missing)} that the run folder's "
            "recipe does not",
            "change only checks, require or include_sources; use 'diffgen run' to make new images",
        )
