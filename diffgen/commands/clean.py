"""`diffgen clean`: delete images that the recipe no longer plans."""

from __future__ import annotations

from diffgen.recipe.load import LoadedRecipe
from diffgen.run.session import Session
from diffgen.run.store.state import read_state
from diffgen.run.store.store import RunStore


def clean(loaded: LoadedRecipe, *, remove: bool) -> tuple[int, int]:
    """(images, bytes) in the run folder that the recipe no longer plans; with `remove`, they and their records go.

    Raises UsageError when it is no run folder.
    """
    read_state(loaded.output)  # opening a store would make the folder
    plan = Session.open(loaded).plan  # without the limit of the last run: what that left out is still wanted
    keep = {item.job.id for item in plan.all_attempts()}
    with RunStore(loaded.output, loaded.recipe.image.format) as store:
        return store.drop_all_but(keep, remove=remove)
