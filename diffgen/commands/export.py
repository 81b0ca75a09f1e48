"""`diffgen export`: judge the records again and write the dataset again. Makes no image."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from diffgen.errors import UsageError
from diffgen.files import write_atomically
from diffgen.models.aliases import aliases
from diffgen.output.outcome import judge_plan
from diffgen.plan.plan import Plan
from diffgen.plan.review import KEPT_AS, read_review
from diffgen.recipe.load import LoadedRecipe, load_recipe
from diffgen.run.loop import export_outputs
from diffgen.run.session import prepare
from diffgen.run.store.state import read_state
from diffgen.run.store.store import RunStore
from diffgen.run.summary import Summary, summarise


def export(loaded: LoadedRecipe, review: Path | None = None) -> Summary:
    """Judge the records by the recipe's thresholds and export again, as far as the last run went. Makes no image.

    The decisions in `review` replace those that the run folder kept, and are kept there in their stead. Raises UsageError
    where the recipe asks for other images than the run folder's.
    """
    limit = read_state(loaded.output).get("limit")
    prepared = prepare(loaded, limit, reviewed=review is None)
    plan, recipe = prepared.plan, prepared.recipe
    with RunStore(prepared.output, recipe.image.format) as store:
        _require_same_images(store, loaded, plan, limit)
        if review is not None:
            kept = store.folder / KEPT_AS
            known = set(store.records)
            with suppress(UsageError):  # a review that is broken, or not there, is about to be replaced
                known |= read_review(kept).keys()
            plan = replace(plan, review=read_review(review, known))
            write_atomically(kept, review.read_text("utf-8-sig"))
        write_atomically(store.folder / "recipe.yaml", loaded.to_yaml(store.folder, aliases()))
        judged = judge_plan(plan, recipe, store.present())
        summary = summarise(prepared, plan, judged)
        export_outputs(store, plan, recipe, judged, summary)
    return summary


def _require_same_images(store: RunStore, loaded: LoadedRecipe, plan: Plan, limit: int | None) -> None:
    """Raises UsageError for images that are neither made nor planned by the recipe that the run folder has kept."""
    kept = store.folder / "recipe.yaml"
    lacking = {item.job.id for item in plan.items} - store.records.keys()
    if not lacking or not kept.is_file() or kept.read_text("utf-8") == loaded.to_yaml(store.folder, aliases()):
        return
    own = prepare(load_recipe(kept), limit, reviewed=False).plan
    if lacking := lacking - {item.job.id for item in own.items}:
        raise UsageError(
            f"{store.folder}: export makes no image, and this recipe asks for {len(lacking)} that the run folder's does not",
            "export with other checks, require or include_sources only; 'diffgen run' makes other images",
        )
