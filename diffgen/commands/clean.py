"""`diffgen clean`: delete images that the recipe no longer plans."""

from __future__ import annotations

from diffgen.recipe.load import LoadedRecipe
from diffgen.run.session import prepare
from diffgen.run.store.state import read_state
from diffgen.run.store.store import RunStore
from diffgen.types import Item, Verdict


def clean(loaded: LoadedRecipe, *, remove: bool) -> tuple[int, int]:
    """(images, bytes) in the run folder that the recipe no longer plans; with `remove`, they and their records go."""
    read_state(loaded.output)  # raises where nothing was run: opening a store would make a folder
    plan = prepare(loaded).plan  # without the limit of the last run: what it hid is still wanted
    keep = set()
    for item in plan.items:
        attempt: Item | None = item
        while attempt is not None:
            keep.add(attempt.job.id)
            attempt = plan.next_attempt(attempt, Verdict(False))
    with RunStore(loaded.output, loaded.recipe.image.format) as store:
        return store.drop_all_but(keep, remove=remove)
