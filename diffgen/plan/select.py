"""Which sources are edited, which become val, and which conditions each gets: by hash, so the choice is stable."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from diffgen.dataset.dataset import Dataset
from diffgen.dataset.formats import SPLITS
from diffgen.errors import UsageError
from diffgen.plan.insertion import Place
from diffgen.recipe.schema import Recipe
from diffgen.recipe.sections import Condition
from diffgen.types import Settings, Source, unit

Edit = tuple[Condition, Settings]


def first_sources(chosen: Sequence[Source], limit: int) -> list[Source]:
    return [s for split in SPLITS for s in [c for c in chosen if c.split == split][:limit]]


def fits(source: Source, edit: Edit, places: Mapping[tuple[str, str], tuple[Place, ...]]) -> bool:
    """Whether a source has what the condition's task needs: objects to keep, objects to remove, room for one more."""
    condition, settings = edit
    if settings.task == "insert":
        return (source.digest, condition.name) in places
    if settings.task is None:
        return True
    return any(settings.classes is None or class_id in settings.classes for class_id, _ in source.counts)


def with_val(recipe: Recipe, dataset: Dataset) -> list[Source]:
    """All sources; without a val split, a share of train becomes val by hash: whole sources, then never edited."""
    if "val" in dataset.splits:
        return list(dataset.sources)
    if recipe.val_from_train is None:
        raise UsageError(
            f"{dataset.path}: the dataset has no 'val' split, and training needs one",
            "add 'val:' to it, or 'val_from_train: 0.1' to the recipe",
        )
    train = sorted({s.image_digest for s in dataset.sources if s.split == "train"}, key=lambda d: unit("val", d))
    good = {s.image_digest for s in dataset.sources if s.split == "train" and s.problem is None}
    sound = [digest for digest in train if digest in good]
    if len(sound) < 2:
        raise UsageError(
            f"{dataset.path}: val_from_train needs two sound pictures or more in train", "add 'val:' to the dataset"
        )
    moved = {digest for digest in train if unit("val", digest) < recipe.val_from_train}
    moved |= {sound[0]}  # a small dataset: at least one picture that can be read on either side
    moved -= {sound[-1]}
    sources = [
        replace(s, split="val") if s.split == "train" and s.image_digest in moved else s for s in dataset.sources
    ]
    order = {"train": 0, "val": 1, "test": 2}
    return sorted(sources, key=lambda source: order[source.split])  # stable: plan order within a split is kept


def select_sources(recipe: Recipe, sources: Iterable[Source], names: Sequence[str]) -> list[Source]:
    select = recipe.select
    wanted = None
    if select.classes is not None:
        if unknown := [name for name in select.classes if name not in names]:
            raise UsageError(
                f"select.classes: the dataset has no class '{unknown[0]}'", f"its classes: {', '.join(names)}"
            )
        wanted = {i for i, name in enumerate(names) if name in select.classes}
    chosen = [
        source
        for source in sources
        if source.split in select.splits
        and source.problem is None
        and (wanted is None or any(class_id in wanted for class_id, _ in source.counts))
        and (select.share >= 1 or unit("select", recipe.seed, source.image_digest) < select.share)
    ]
    if select.max is not None and len(chosen) > select.max:
        ranks = sorted(range(len(chosen)), key=lambda i: unit("select", recipe.seed, chosen[i].image_digest))
        keep = set(ranks[: select.max])
        chosen = [source for i, source in enumerate(chosen) if i in keep]
    return chosen


def assigned_edits(recipe: Recipe, conditions: tuple[Edit, ...], source: Source) -> tuple[Edit, ...]:
    """The conditions of one source.

    `one` is rendezvous hashing weighted by share (Thaler and Ravishankar 1998; weights after Wang, Schindelhauer 2005):
    a condition added later takes sources from the others and moves no other source.
    """
    digest = source.image_digest
    if recipe.assign == "one" and conditions:

        def score(entry: Edit) -> float:
            drawn = unit("assign", recipe.seed, digest, entry[0].name)
            return entry[0].share / -math.log(drawn or 1e-300)

        return (max(conditions, key=score),)
    return tuple(
        entry
        for entry in conditions
        if entry[0].share >= 1 or unit("share", recipe.seed, digest, entry[0].name) < entry[0].share
    )
