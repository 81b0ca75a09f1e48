"""Recipe × dataset → items and batches. Pure: no files, no clock, no torch; the same input gives the same plan.

Every choice (selection, share, assignment, val) is made by hashing the source's image, so it does not depend on the
order or the number of the other sources, nor on an edited label.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial

from diffgen.editors import check_class, effective_object_strength, effective_strength
from diffgen.editors.schedulers import check_scheduler
from diffgen.errors import UsageError
from diffgen.formats import SPLITS
from diffgen.geometry import plan_for
from diffgen.imagined import prompt_of
from diffgen.models import Model
from diffgen.placement import Place, find_places
from diffgen.recipe import EDGE_MAPS, Condition, Recipe
from diffgen.review import Review
from diffgen.sources import Dataset
from diffgen.types import Batch, Guide, Item, Job, Settings, Source, Verdict, unit
from diffgen.vocabulary import Vocabulary, misheard

# The most class names a prompt lists: encoders cut long prompts silently, and what is cut is the condition.
MOST_OBJECTS = 4
FEATHER = 12  # pixels, where a restored object needs one and the recipe names none
ATTEMPT_FACTOR = 0.75  # of the strength from one attempt to the next


Edit = tuple[Condition, Settings]


@dataclass(frozen=True)
class Plan:
    """`sources` are all that the exported dataset holds, edited or not, in plan order (none of text2img); `edits` are those
    to edit, each with its conditions, in plan order. `items` follow from them, `variants` for each edit."""

    sources: tuple[Source, ...]
    edits: tuple[tuple[Source, tuple[Edit, ...]], ...]
    dataset: Dataset
    seed: int
    variants: int
    attempts: int = 1
    restore: frozenset[str] = frozenset()  # conditions whose next attempt holds the objects
    review: Review = field(default_factory=dict)  # what a person decided, by job id
    # Source digest and condition -> where each variant gets an object; sources without room for one are not in `edits`.
    places: Mapping[tuple[str, str], tuple[Place, ...]] = field(default_factory=dict)

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """Every image to make. Made when first asked for: half a million jobs take seconds."""
        return tuple(self._items())

    @cached_property
    def conditions(self) -> tuple[Edit, ...]:
        """The conditions that sources get, each with its settings."""
        groups = {id(edits): edits for _, edits in self.edits}.values()  # most sources share theirs
        return tuple({edit[0].name: edit for edits in groups for edit in edits}.values())

    @property
    def needs_masks(self) -> bool:
        """Whether masks or control maps are made, or detail is brought back."""
        return bool(self.restore) or any(
            s.object_strength is not None or s.object_detail or s.detail or s.controls or s.task
            for _, s in self.conditions
        )

    @property
    def inserted(self) -> frozenset[int]:
        """The classes that a detector must be able to confirm."""
        return frozenset(i for _, s in self.conditions if s.task == "insert" for i in s.classes or ())

    def next_attempt(self, item: Item, verdict: Verdict) -> Item | None:
        """What is made of a rejected item next. Less strength does not help where nothing happened.

        Where a person said no, nothing that nobody has looked at takes the place.
        """
        if verdict.accepted or verdict.reason in ("failed", "unchanged", "review"):
            return None
        return next_attempt(item, self.attempts, restore=item.job.settings.condition in self.restore)

    def _items(self) -> Iterator[Item]:
        prompts: dict[tuple[str, str, str], str] = {}  # one text object a prompt: half a million jobs share a few
        for source, edits in self.edits:
            whole = describe(source, self.dataset.names)
            for condition, settings in edits:
                objects = whole if settings.task is None else _painted(source, settings, self.dataset.names)
                places = self.places.get((source.digest, condition.name))
                key = condition.name, source.text or "", objects
                if (prompt := prompts.get(key)) is None:
                    prompt = prompts[key] = _prompt(source, condition, settings, objects)
                for variant in range(self.variants):
                    seed = _seed(self.seed, source, condition, variant)
                    maps = _own_maps(source, settings) if settings.controls else ()
                    place = places[variant] if places else None
                    job = Job(
                        source.digest,
                        settings,
                        prompt,
                        condition.negative_prompt,
                        seed,
                        variant,
                        maps=maps,
                        place=place,
                    )
                    yield Item(source, job)


def _own_maps(source: Source, settings: Settings) -> tuple[str, ...]:
    digests = {folder: digest for folder, _, digest in source.maps}
    return tuple(digests[guide.folder] for guide in settings.controls or () if guide.folder is not None)


def _seed(seed: int, source: Source, condition: Condition, variant: int) -> int:
    return int(unit("seed", seed, source.digest, condition.name, variant) * 2**48)


def _seeds(recipe: Recipe, condition: Condition, source: Source) -> list[int]:
    return [_seed(recipe.seed, source, condition, variant) for variant in range(recipe.variants)]


def plan_jobs(recipe: Recipe, dataset: Dataset, model: Model, limit: int | None = None) -> Plan:
    """Every image the recipe asks for. Raises UsageError when the recipe names what the dataset does not have."""
    if recipe.text2img is not None:
        return _imagined(recipe, dataset, model, limit)
    sources = _with_val(recipe, dataset)
    if "train" not in dataset.splits:
        raise UsageError(
            f"{dataset.path}: the dataset has no 'train' split", "Ultralytics needs one: add 'train:' to it"
        )
    if missing := [split for split in recipe.select.splits if split not in dataset.splits]:
        raise UsageError(
            f"select.splits: the dataset has no split '{missing[0]}'", f"its splits: {', '.join(dataset.splits)}"
        )
    chosen = _select(recipe, sources, dataset.names)
    if limit is not None:
        chosen = _limited(chosen, limit)
        keep = {source.key for source in chosen}
        sources = [s for s in sources if s.split not in recipe.select.splits or s.key in keep]
    conditions = edits_of(recipe, model, dataset)
    places = {
        (digest, condition.name): found
        for condition, settings in conditions
        if settings.task == "insert"
        for digest, found in find_places(
            dataset, settings, model.least_object, chosen, partial(_seeds, recipe, condition)
        ).items()
    }
    if recipe.assign == "all" and all(condition.share >= 1 and not condition.task for condition, _ in conditions):
        edits = tuple((source, conditions) for source in chosen)
    else:
        edits = tuple(
            (source, _assigned(recipe, tuple(edit for edit in conditions if fits(source, edit, places)), source))
            for source in chosen
        )
    restore = {c.name for c in recipe.conditions if recipe.checks_for(c).on_object_lost == "restore"}
    return Plan(
        tuple(sources), edits, dataset, recipe.seed, recipe.variants, recipe.attempts, frozenset(restore), places=places
    )


def _limited(chosen: Sequence[Source], limit: int) -> list[Source]:
    return [s for split in SPLITS for s in [c for c in chosen if c.split == split][:limit]]


def _imagined(recipe: Recipe, dataset: Dataset, model: Model, limit: int | None) -> Plan:
    """The plan where nothing is edited: all images are made, those of val too, if the recipe asks for a val."""
    chosen = list(dataset.sources) if recipe.val_from_train is None else _with_val(recipe, dataset)
    if limit is not None:
        chosen = _limited(chosen, limit)
    conditions = edits_of(recipe, model, dataset)
    edits = tuple((source, _assigned(recipe, conditions, source)) for source in chosen)
    return Plan((), edits, dataset, recipe.seed, recipe.variants, recipe.attempts)


def fits(source: Source, edit: Edit, places: Mapping[tuple[str, str], tuple[Place, ...]]) -> bool:
    """Whether a source has what the condition's task needs: objects to keep, objects to remove, room for one more."""
    condition, settings = edit
    if settings.task == "insert":
        return (source.digest, condition.name) in places
    if settings.task is None:
        return True
    return any(settings.classes is None or class_id in settings.classes for class_id, _ in source.counts)


def edits_of(recipe: Recipe, model: Model, dataset: Dataset) -> tuple[Edit, ...]:
    """Every condition with its settings, as sources get them that it is meant for. Raises UsageError."""
    return tuple(
        (condition, _settings(recipe, condition, model, _classes(recipe, condition, model, dataset)))
        for condition in recipe.conditions
    )


def _with_val(recipe: Recipe, dataset: Dataset) -> list[Source]:
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


def _select(recipe: Recipe, sources: Iterable[Source], names: Sequence[str]) -> list[Source]:
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


def _assigned(recipe: Recipe, conditions: tuple[Edit, ...], source: Source) -> tuple[Edit, ...]:
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


def _classes(recipe: Recipe, condition: Condition, model: Model, dataset: Dataset) -> tuple[int, ...] | None:
    """Ids of the classes that the condition's task is about, None for all. Raises UsageError for a task that cannot be."""
    names = dataset.names
    if (condition.task is None) == (model.editor == "inpaint"):
        if condition.task is None:
            raise UsageError(
                f"conditions: '{condition.name}' has no task, and model '{model.name}' (inpaint) paints parts of a picture",
                "add `task: background`, remove or insert to it; for other conditions use an img2img or instruct model",
            )
        raise UsageError(
            f"conditions: '{condition.name}': task: {condition.task} is not for model '{model.name}' ({model.editor})",
            "use an inpaint model, such as sd15-inpaint, or any Stable Diffusion model with `editor: inpaint`",
        )
    if condition.task is None:
        return None
    if unknown := [name for name in condition.classes or () if name not in names]:
        raise UsageError(
            f"conditions: '{condition.name}': classes: the dataset has no class '{unknown[0]}'",
            f"its classes: {', '.join(names)}",
        )
    objects, detail = recipe.objects_for(condition), recipe.detail if condition.detail is None else condition.detail
    if objects.strength is not None or objects.detail or detail:
        raise UsageError(
            f"conditions: '{condition.name}': objects.strength, objects.detail and detail do nothing with a task",
            "remove them; what is not painted stays the source's own, objects.feather says how it fades",
        )
    if condition.task == "insert" and dataset.keypoints is not None:
        raise UsageError(
            f"conditions: '{condition.name}': nothing knows the keypoints of an object that is inserted",
            "use `task: insert` with datasets of boxes, segments or OBB",
        )
    if condition.task == "insert" and recipe.resolution.mode == "tile":
        raise UsageError(
            f"conditions: '{condition.name}': in tiles an object would be painted into each",
            "use `resolution: {mode: fit}` with `task: insert`",
        )
    return tuple(i for i, name in enumerate(names) if name in condition.classes) if condition.classes else None


def _settings(recipe: Recipe, condition: Condition, model: Model, classes: tuple[int, ...] | None = None) -> Settings:
    def pick(own: float | None, default: float) -> float:
        return default if own is None else own

    check_class(model)
    scheduler = condition.scheduler or model.scheduler
    if scheduler is not None:
        try:
            check_scheduler(scheduler, model.pipeline)
        except UsageError as error:
            raise UsageError(f"conditions: {condition.name}: {error.message}", error.hint) from None
    long_side = recipe.resolution.long_side
    image_guidance = pick(condition.image_guidance, model.image_guidance) if model.image_guidance is not None else None
    objects = recipe.objects_for(condition)
    held = objects.strength is not None and objects.strength < condition.strength
    detail = recipe.detail if condition.detail is None else condition.detail
    controls = _guides(recipe, condition, model)
    annotator = next((network.identity for network in model.networks if network.role == "detector"), None)
    if recipe.text2img is not None:  # at the size that is asked for, and not at the model's own
        long_side = max(recipe.text2img.width or model.native, recipe.text2img.height or model.native)
    return Settings(
        # A condition without controls is what it would be in a recipe without them.
        editor="img2img" if model.editor == "controlnet" and not controls else model.editor,
        model=model.identity,
        condition=condition.name,
        strength=1.0 if annotator else float(condition.strength),  # from noise, whatever a preset says
        steps=condition.steps or model.steps,
        guidance=float(pick(condition.guidance, model.guidance)),
        image_guidance=None if image_guidance is None else float(image_guidance),
        scheduler=scheduler,
        severity=model.severity,
        long_side=long_side or model.native,
        smallest=None if long_side else model.smallest,
        mode=recipe.resolution.mode,
        multiple=model.multiple,
        image_format=recipe.image.format,
        quality=None if recipe.image.format == "png" else recipe.image.quality,
        object_strength=objects.strength if held else None,
        feather=objects.feather if held or objects.detail or condition.task else None,
        object_detail=objects.detail or None,
        detail=detail or None,
        loras=tuple((lora.digest, lora.weight) for lora in model.loras) or None,
        controls=controls or None,
        task=condition.task,
        classes=classes,
        annotator=annotator,
    )


def _guides(recipe: Recipe, condition: Condition, model: Model) -> tuple[Guide, ...]:
    identities = {(network.name, network.role): network.identity for network in model.networks}
    return tuple(
        Guide(
            control.kind,
            identities[control.model, "controlnet"],
            float(control.weight),
            None if control.estimator is None else identities[control.estimator, control.kind],
            control.folder,
        )
        for control in recipe.controls_for(condition)
    )


def _text(condition: Condition, settings: Settings) -> str:
    """What the editor's family reads of a condition, `{objects}` not yet filled in."""
    instruct = settings.editor == "instruct" and condition.instruction
    return str(condition.instruction if instruct else condition.prompt)


def _prompt(source: Source, condition: Condition, settings: Settings, objects: str) -> str:
    if source.text is not None:
        return prompt_of(source, condition.prompt, objects)
    return _text(condition, settings).replace("{objects}", objects)


def _painted(source: Source, settings: Settings, names: Sequence[str]) -> str:
    """The objects that are to be seen where a task paints, in words: what is inserted, or what is not removed."""
    if settings.task == "background":
        return describe(source, names)
    if settings.task == "insert":
        return describe(replace(source, counts=tuple((i, 1) for i in settings.classes or ())), names)
    left = tuple((i, n) for i, n in source.counts if settings.classes is not None and i not in settings.classes)
    return describe(replace(source, counts=left), names)


def describe(source: Source, names: Sequence[str]) -> str:
    """The objects of a picture in words, most frequent first: "cars, a person and a traffic light"."""
    ranked = sorted(source.counts, key=lambda pair: (-pair[1], pair[0]))[:MOST_OBJECTS]
    words = [_article(names[i]) if n == 1 else _plural(names[i]) for i, n in ranked]
    if not words:
        return "a scene"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" and noun else f"a {noun}"


def _plural(noun: str) -> str:
    irregular = {"person": "people", "man": "men", "woman": "women", "child": "children", "sheep": "sheep"}
    if noun in irregular:
        return irregular[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def working_size(size: tuple[int, int], settings: Settings) -> tuple[int, int]:
    """(width, height) in pixels at which the model sees a source of `size`."""
    return plan_for(*size, settings).size


def misheard_prompts(plan: Plan, words: Vocabulary | None) -> list[str]:
    """One line for each condition whose text asks a model of few words for more than it was taught."""
    if words is None:
        return []
    heard = ((c.name, misheard(_text(c, settings).replace("{objects}", ""), words)) for c, settings in plan.conditions)
    return [f"{name}: the model {why}" for name, why in heard if why]


def untaught_guidance(plan: Plan, model: Model) -> list[str]:
    """One line for each condition that guides a model of few words, whose training knew one guidance only, by another."""
    if model.vocabulary is None:
        return []
    asked = (
        (c.name, key, own, value)
        for c, settings in plan.conditions
        for key, own, value in (
            ("guidance", model.guidance, settings.guidance),
            ("image_guidance", model.image_guidance, settings.image_guidance),
        )
        if value != own
    )
    return [
        f"{name}: the model was trained for {key} {own:g} only, and this asks for {value:g}"
        for name, key, own, value in asked
    ]


_NO_EDGES = re.compile(r"\b(night|snow\w*|blizzard)\b", re.IGNORECASE)


def unsuited_controls(plan: Plan) -> list[str]:
    """One line for each condition that edges hold to the daylight it should leave: its shadows, its bare ground."""
    lines = []
    for condition, settings in plan.conditions:
        edges = {g.kind: None for g in settings.controls or () if g.kind in EDGE_MAPS and g.weight}
        if edges and _NO_EDGES.search(f"{condition.name} {condition.prompt}"):
            lines.append(
                f"{condition.name}: {' and '.join(edges)} maps hold the daylight's shadows and the bare ground in "
                "place; for night and snow use depth and segmentation"
            )
    return lines


def next_attempt(item: Item, attempts: int, restore: bool = False) -> Item | None:
    """The image of a rejected item with less strength; None when no attempt is left that would be another image.

    Prompt and seed stay: the same snow, thinner. An attempt whose effective strengths are the last one's is skipped. With
    `restore` the first of them keeps the scene's strength, and has the source's objects: not edited, detail in full.
    What a task paints, and what is made from noise, is made of another seed instead.
    """
    job, settings = item.job, item.job.settings
    if settings.task is not None or settings.annotator is not None:
        # Less strength would only leave more of what was there, and from noise there is no less: other noise instead.
        if job.attempt + 1 >= attempts:
            return None
        return Item(item.source, replace(job, seed=int(unit("again", job.seed) * 2**48), attempt=job.attempt + 1))
    first = restore and settings.strength > 0 and settings.object_strength != 0 and item.source.counts
    if first and job.attempt + 1 < attempts:
        held = replace(settings, object_strength=0.0, object_detail=1.0, feather=settings.feather or FEATHER)
        return Item(item.source, replace(job, settings=held, attempt=job.attempt + 1))
    before = effective_strength(settings), effective_object_strength(settings)
    for attempt in range(job.attempt + 1, attempts):
        settings = _weaker(settings)
        if (effective_strength(settings), effective_object_strength(settings)) != before:
            return Item(item.source, replace(job, settings=settings, attempt=attempt))
    return None


@lru_cache(maxsize=4096)
def _weaker(settings: Settings) -> Settings:
    held = settings.object_strength
    return replace(
        settings,
        strength=round(settings.strength * ATTEMPT_FACTOR, 4),
        object_strength=None if held is None else round(held * ATTEMPT_FACTOR, 4),
    )


def cut_batches(items: Iterable[Item], batch_size: int) -> list[Batch]:
    """Batches in plan order: one batch shares settings and working size, and holds each job once.

    Cut from the whole plan, before what is done is taken away, so that a resumed run makes the same batches.
    """
    open_groups: dict[tuple[str, tuple[int, int]], list[Item]] = {}
    seen: set[str] = set()
    batches = []
    for item in items:
        if item.job.id in seen:
            continue
        seen.add(item.job.id)
        group = open_groups.setdefault(
            (item.job.settings.digest, working_size((item.source.width, item.source.height), item.job.settings)), []
        )
        group.append(item)
        if len(group) == batch_size:
            batches.append(Batch(tuple(group)))
            group.clear()
    batches += [Batch(tuple(group)) for group in open_groups.values() if group]
    return batches


def pending_batches(batches: Iterable[Batch], done: Set[str], tried: Set[str] = frozenset()) -> list[Batch]:
    """What is left of the batches.

    A batch is run again whole where all that it lacks was `tried` before (it failed, or its image was deleted): made in
    other company, an image would differ in its last bits. What is new (another selection, an edited label) runs without
    what is done, which would cost the device's time for nothing.
    """
    pending = []
    for batch in batches:
        left = [item for item in batch.items if item.job.id not in done]
        if left:
            again = all(item.job.id in tried for item in left)
            pending.append(batch if again else Batch(tuple(left)))
    return pending
