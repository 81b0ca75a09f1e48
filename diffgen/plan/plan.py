"""Plans every image of a recipe over a dataset. Pure: no files, no clock, no torch; same input, same plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

from diffgen.dataset.dataset import Dataset
from diffgen.dataset.targets import Target
from diffgen.errors import UsageError
from diffgen.models.model import Model
from diffgen.plan.attempts import next_attempt
from diffgen.plan.insertion import Place, find_places
from diffgen.plan.prompts import describe, painted_words, resolve_prompt
from diffgen.plan.select import Edit, assigned_edits, first_sources, fits, select_sources, with_val
from diffgen.plan.settings import edits_of, levels_of
from diffgen.recipe.schema import Recipe
from diffgen.recipe.sections import Condition
from diffgen.types import EDIT_VERSION, Item, Job, Settings, Source, Verdict, unit

STRIDE = 2  # levels from one variant's strength to the next one's: five variants of a picture have all five levels


@dataclass(frozen=True)
class Plan:
    """All images to make. `sources` are what the exported dataset holds, edited or not (none for text2img); `edits` are
    the sources to edit, each with its conditions. Both are in plan order. Each edit gives `variants` items."""

    sources: tuple[Source, ...]
    edits: tuple[tuple[Source, tuple[Edit, ...]], ...]
    dataset: Dataset
    seed: int
    variants: int
    attempts: int = 1
    restore: frozenset[str] = frozenset()  # conditions whose first retry leaves the objects unedited
    # (source digest, condition) -> a place for each variant's inserted object; a source without room is not edited.
    places: Mapping[tuple[str, str], tuple[Place, ...]] = field(default_factory=dict)
    least_object: int = 0  # px at the working size; the model's autoencoder may lose smaller ones

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """Every image to make. Computed on first use: half a million jobs take seconds."""
        return tuple(self._items())

    @cached_property
    def conditions(self) -> tuple[Edit, ...]:
        """The conditions that at least one source gets, each with its settings."""
        groups = {id(edits): edits for _, edits in self.edits}.values()  # most sources share one tuple
        return tuple({edit[0].name: edit for edits in groups for edit in edits}.values())

    @property
    def inserted(self) -> frozenset[int]:
        """Ids of the classes that tasks insert; the detector must know them to confirm the objects."""
        return frozenset(i for _, s in self.conditions if s.task == "insert" for i in s.classes or ())

    def next_attempt(self, item: Item, verdict: Verdict) -> Item | None:
        """The item's next attempt, or None.

        An image that changed too little gets none, because less strength would change it even less. Nor does one rejected in
        a review: an image that nobody has reviewed must not take its place.
        """
        if verdict.accepted or verdict.reason in ("failed", "unchanged", "weak-effect", "review"):
            return None
        return next_attempt(item, self.attempts, restore=item.job.settings.condition in self.restore)

    def all_attempts(self) -> Iterator[Item]:
        """Every item, each followed by all of its possible later attempts."""
        for item in self.items:
            attempt: Item | None = item
            while attempt is not None:
                yield attempt
                attempt = self.next_attempt(attempt, Verdict(False))

    def strengths(self) -> dict[str, dict[float, int]]:
        """For each condition whose strength is a range: how many images each level has, weakest first."""
        counts = {c.name: dict.fromkeys(c.strengths, 0) for c, _ in self.conditions if len(c.strengths) > 1}
        for source, edits in self.edits:
            for condition, _ in edits:
                if condition.name in counts:
                    for level in self._levels(source, condition):
                        counts[condition.name][condition.strengths[level]] += 1
        return counts

    def planned_strength(self, item: Item) -> float:
        """Strength of the image's first attempt; later attempts have less."""
        condition = next(c for c, _ in self.conditions if c.name == item.job.settings.condition)
        return condition.strengths[self._levels(item.source, condition)[item.job.variant]]

    def _levels(self, source: Source, condition: Condition) -> list[int]:
        """The strength level, from 0, of each variant of a source. It depends on the recipe's seed, the source and
        the condition only; each level is as likely as the others."""
        levels = len(condition.strengths)
        first = int(unit("strength", self.seed, source.digest, condition.name) * levels) if levels > 1 else 0
        return [(first + STRIDE * variant) % levels for variant in range(self.variants)]

    def _items(self) -> Iterator[Item]:
        prompts: dict[tuple[str, str, str], str] = {}  # half a million jobs share a few prompts: keep each text once
        levels = {edit[0].name: levels_of(edit) for edit in self.conditions}
        for source, edits in self.edits:
            whole = describe(source, self.dataset.names)
            for condition, settings in edits:
                objects = whole if settings.task is None else painted_words(source, settings, self.dataset.names)
                key = condition.name, source.text or "", objects
                if (prompt := prompts.get(key)) is None:
                    prompt = prompts[key] = resolve_prompt(source, condition, settings, objects)
                negative, maps = condition.negative_prompt, _own_maps(source, settings) if settings.controls else ()
                places = self.places.get((source.digest, condition.name))
                strengths, targets = levels[condition.name], self.dataset.targets.get(condition.name, ())
                seeds = _seeds(self.seed, self.variants, condition, source)
                for variant, (seed, level) in enumerate(zip(seeds, self._levels(source, condition), strict=True)):
                    place, at = places[variant] if places else None, strengths[level]
                    target = _drawn(targets, seed).digest if targets else None
                    job = Job(source.digest, at, prompt, negative, seed, variant, maps=maps, place=place, target=target)
                    yield Item(source, job)


def _drawn(targets: tuple[Target, ...], seed: int) -> Target:
    """The picture that an image is matched with, by rendezvous hashing: a new picture takes its share of the images, and all
    other images stay the same."""
    return max(targets, key=lambda target: unit("match", seed, target.digest))


def _own_maps(source: Source, settings: Settings) -> tuple[str, ...]:
    digests = {folder: digest for folder, _, digest in source.maps}
    return tuple(digests[control.folder] for control in settings.controls or () if control.folder is not None)


def _seeds(seed: int, variants: int, condition: Condition, source: Source) -> list[int]:
    return [int(unit("seed", seed, source.digest, condition.name, n) * 2**48) for n in range(variants)]


def plan_jobs(
    recipe: Recipe, dataset: Dataset, model: Model, limit: int | None = None, edit_version: int = EDIT_VERSION
) -> Plan:
    """Plan every image that the recipe asks for; `limit` edits only the first sources of each split.

    With an older `edit_version` the jobs are those that a diffgen of that time planned.

    Raises UsageError when the recipe names a split or class that the dataset lacks, or asks what the model cannot do.
    """
    if recipe.text2img is not None:
        return _text2img_plan(recipe, dataset, model, limit, edit_version)
    sources = with_val(recipe, dataset)
    if "train" not in dataset.splits:
        raise UsageError(
            f"{dataset.path}: the dataset has no 'train' split", "add 'train:' to it: Ultralytics needs one"
        )
    if missing := [split for split in recipe.select.splits if split not in dataset.splits]:
        raise UsageError(
            f"select.splits: the dataset has no split '{missing[0]}'", f"its splits: {', '.join(dataset.splits)}"
        )
    chosen = select_sources(recipe, sources, dataset.names)
    if limit is not None:
        chosen = first_sources(chosen, limit)
        keep = {source.key for source in chosen}
        sources = [s for s in sources if s.split not in recipe.select.splits or s.key in keep]
    conditions = edits_of(recipe, model, dataset, edit_version)
    places: dict[tuple[str, str], tuple[Place, ...]] = {}
    for condition, settings in conditions:
        if settings.task == "insert":
            seeds = partial(_seeds, recipe.seed, recipe.variants, condition)
            free = find_places(dataset, settings, model.least_object, chosen, seeds)
            places |= {(digest, condition.name): found for digest, found in free.items()}

    def suited(source: Source) -> tuple[Edit, ...]:
        return tuple(edit for edit in conditions if fits(source, edit, places))

    if recipe.assign == "all" and all(condition.share >= 1 and not condition.task for condition, _ in conditions):
        alike = {source.looks: source for source in chosen}
        shared = {look: suited(source) for look, source in alike.items()}  # most sources share one tuple
        edits = tuple((source, shared[source.looks]) for source in chosen)
    else:
        edits = tuple((source, assigned_edits(recipe, suited(source), source)) for source in chosen)
    restore = {c.name for c in recipe.conditions if recipe.checks_for(c).on_object_lost == "restore"}
    return Plan(
        tuple(sources), edits, dataset, recipe.seed, recipe.variants, recipe.attempts, frozenset(restore), places,
        model.least_object,
    )  # fmt: skip


def _text2img_plan(recipe: Recipe, dataset: Dataset, model: Model, limit: int | None, edit_version: int) -> Plan:
    """The plan of a text-to-image recipe: every image is generated, also those of val if the recipe asks for one."""
    chosen = list(dataset.sources) if recipe.val_from_train is None else with_val(recipe, dataset)
    if limit is not None:
        chosen = first_sources(chosen, limit)
    conditions = edits_of(recipe, model, dataset, edit_version)
    edits = tuple((source, assigned_edits(recipe, conditions, source)) for source in chosen)
    return Plan((), edits, dataset, recipe.seed, recipe.variants, recipe.attempts)
