"""`diffgen clean`: delete images that the recipe no longer plans."""

from __future__ import annotations

from diffgen.recipe.load import LoadedRecipe
from diffgen.run.session import Notify, Session
from diffgen.run.store.state import read_state
from diffgen.run.store.store import RunStore


def clean(loaded: LoadedRecipe, *, remove: bool, notify: Notify = lambda _: None) -> tuple[int, int]:
    """(images, bytes) in the run folder that the recipe no longer plans; with `remove`, they are deleted.

    Raises UsageError when it is not a run folder.
    """
    read_state(loaded.output)  # checks that it is a run folder: opening a store would make one
    plan = Session.open(loaded).plan  # without the last run's --limit, as images beyond it are still planned
    keep = {item.job.id for item in plan.all_attempts()}
    with RunStore(loaded.output, loaded.recipe.image.format) as store:
        for line in store.repaired:
            notify(f"repaired: {line}")
        return store.drop_all_but(keep, remove=remove)
