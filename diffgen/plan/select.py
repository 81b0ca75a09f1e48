"""Chooses the sources to edit, those that become val, and the conditions of each. By hash, so choices are stable."""

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
    """The first `limit` sources of each split."""
    return [s for split in SPLITS for s in [c for c in chosen if c.split == split][:limit]]


def fits(source: Source, edit: Edit, places: Mapping[tuple[str, str], tuple[Place, ...]]) -> bool:
    """Whether a source suits the condition and has what its task needs: objects to keep or remove, or room for one more."""
    condition, settings = edit
    if any(look in condition.skip_if for look in source.looks):
        return False
    if settings.task == "insert":
        return (source.digest, condition.name) in places
    if settings.task is None:
        return True
    return any(settings.classes is None or class_id in settings.classes for class_id, _ in source.counts)


def with_val(recipe: Recipe, dataset: Dataset) -> list[Source]:
    """All sources of the dataset; if it has no val split, the share `val_from_train` of train becomes val, by hash.

    Copies of one picture go to the same split. Raises UsageError when there is no val split and no share.
    """
    if "val" in dataset.splits:
        return list(dataset.sources)
    if recipe.val_from_train is None:
        raise UsageError(
            f"{dataset.path}: the dataset has no 'val' split, and training needs one",
            "add 'val:' to it, or 'val_from_train: 0.1' to the recipe",
        )
    train = sorted({s.image_digest for s in dataset.sources if s.split == "train"}, key=lambda d: unit("val", d))
    usable = {s.image_digest for s in dataset.sources if s.split == "train" and s.problem is None}
    ranked = [digest for digest in train if digest in usable]
    if len(ranked) < 2:
        raise UsageError(
            f"{dataset.path}: val_from_train needs at least two usable pictures in train", "add 'val:' to the dataset"
        )
    moved = {digest for digest in train if unit("val", digest) < recipe.val_from_train}
    moved = (moved | {ranked[0]}) - {ranked[-1]}  # even a small dataset has a usable picture in train and in val
    sources = [
        replace(s, split="val") if s.split == "train" and s.image_digest in moved else s for s in dataset.sources
    ]
    return sorted(sources, key=lambda source: SPLITS.index(source.split))  # stable: keeps the order within a split


def select_sources(recipe: Recipe, sources: Iterable[Source], names: Sequence[str]) -> list[Source]:
    """The sources that `select:` picks for editing. Raises UsageError for a class that the dataset does not have."""
    select = recipe.select
    wanted = None
    if select.classes is not None:
        if unknown := [name for name in select.classes if name not in names]:
            raise UsageError(
                f"select.classes: the dataset has no class '{unknown[0]}'", f"its classes: {', '.join(names)}"
            )
        wanted = {i for i, name in enumerate(names) if name in select.classes}
    usable = [source for source in sources if source.split in select.splits and source.problem is None]
    chosen = [
        source
        for source in usable
        if (source.counts or select.backgrounds is None)
        and (wanted is None or any(class_id in wanted for class_id, _ in source.counts))
        and (select.share >= 1 or unit("select", recipe.seed, source.image_digest) < select.share)
    ]
    if select.max is not None:
        chosen = _first_by_hash(recipe, chosen, select.max)
    if select.backgrounds is None:
        return chosen
    empty = [source for source in usable if not source.counts]
    keep = {source.key for source in [*chosen, *_first_by_hash(recipe, empty, round(select.backgrounds * len(chosen)))]}
    return [source for source in usable if source.key in keep]


def _first_by_hash(recipe: Recipe, sources: list[Source], count: int) -> list[Source]:
    """`count` of the sources, chosen by hash, in their original order. A larger count only adds sources."""
    ranks = sorted(range(len(sources)), key=lambda i: unit("select", recipe.seed, sources[i].image_digest))
    keep = set(ranks[:count])
    return [source for i, source in enumerate(sources) if i in keep]


def assigned_edits(recipe: Recipe, conditions: tuple[Edit, ...], source: Source) -> tuple[Edit, ...]:
    """The conditions of one source, by `assign:` and the conditions' shares.

    `one` is rendezvous hashing weighted by share (Thaler and Ravishankar 1998; weights after Wang, Schindelhauer 2005):
    a new condition takes sources from the others, and no other source changes its condition.
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
