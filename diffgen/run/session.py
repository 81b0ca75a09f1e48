"""What a command works with: a recipe, its dataset, model, plan and run folder, and, to make images, a device."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import yaml

from diffgen.checks.looks import with_looks
from diffgen.dataset.control_maps import with_maps
from diffgen.dataset.dataset import Dataset, read_dataset, with_shapes, with_targets
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.geometry import require_opencv
from diffgen.dataset.remarks import check_labelled
from diffgen.editing.pipelines.device import check_dtype
from diffgen.errors import UsageError
from diffgen.files import cpu_count, write_atomically
from diffgen.models.aliases import aliases
from diffgen.models.loras import require_peft
from diffgen.models.model import Model, known_class, vocabulary
from diffgen.models.resolve import as_kept, require_loras, require_parts, resolve_recipe_model, to_keep
from diffgen.output.outcome import Judging, Outcome
from diffgen.output.review import REVIEW_FILE, Review, read_review
from diffgen.plan.plan import Plan, plan_jobs
from diffgen.plan.text2img import text2img_dataset
from diffgen.plan.warnings import unknown_words, unsuited_controls, unsupported_guidance
from diffgen.recipe.load import LoadedRecipe, load_recipe
from diffgen.recipe.schema import Recipe
from diffgen.run.store.images import image_files, read_present
from diffgen.run.store.records import edit_version_of
from diffgen.run.store.state import is_run_folder, read_state
from diffgen.run.store.store import RunStore
from diffgen.run.worker_setup import Device, MakeWorker, load_worker
from diffgen.types import EDIT_VERSION, Record

# Images per batch for `batch_size: auto`. Larger batches are faster on a GPU but not on a CPU; the worker halves a batch
# that does not fit into memory.
AUTO_BATCH_CPU, AUTO_BATCH_ACCELERATOR = 4, 16

OLDER_IMAGES = "its images were made by an older diffgen, and this version edits differently"

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Session:
    """Everything known before an image is made. `open` does not import torch and writes nothing but caches.

    `review` holds a person's decisions by job id; `limit` is the command line's; `edit_version` is that of the run folder's
    images; `on_device` sets `device`.
    """

    loaded: LoadedRecipe
    dataset: Dataset
    model: Model
    plan: Plan
    limit: int | None = None
    review: Review = field(default_factory=dict)
    edit_version: int = EDIT_VERSION
    device: Device | None = None

    @classmethod
    def open(
        cls, loaded: LoadedRecipe, limit: int | None = None, *, reviewed: bool = True, remake: bool = False
    ) -> Session:
        """Read the dataset, find the model and plan. Uses the run folder's review unless `reviewed` is False.

        Images of an older diffgen are planned as that version did, unless they are to be replaced (`remake`).

        Raises UsageError for a recipe that does not suit its dataset or model, DiffgenError for files it cannot read.
        """
        recipe, folder = loaded.recipe, loaded.output
        with FileCache() as cache, no_collector():
            if recipe.text2img is not None:
                model = resolve_recipe_model(recipe, loaded.base, cache)
                dataset = text2img_dataset(recipe.text2img, model, loaded.path)
            else:
                dataset = _read_dataset(loaded, cache)
                model = resolve_recipe_model(recipe, loaded.base, cache)
        state = read_state(folder) if is_run_folder(folder) else {}
        if recipe.text2img is None:
            check_labelled(dataset, state.get("labelled") or {})
        model = as_kept(model, recipe, state)
        if state and any(lora.unknown for lora in model.loras):
            model = require_loras(model)  # the folder's jobs cannot be told without them
        _check_apart(folder, dataset)
        with no_collector():
            edit_version = EDIT_VERSION if remake else edit_version_of(folder, state)
            plan = plan_jobs(recipe, dataset, model, limit, edit_version)
        kept = folder / REVIEW_FILE
        review = read_review(kept) if reviewed and kept.is_file() else {}
        return cls(loaded, dataset, model, plan, limit, review, edit_version)

    @property
    def recipe(self) -> Recipe:
        return self.loaded.recipe

    @property
    def folder(self) -> Path:
        """The run folder, absolute."""
        return self.loaded.output

    @cached_property
    def judging(self) -> Judging:
        return Judging(self.recipe, self.dataset, self.review)

    def outcome(self, records: Mapping[str, Record]) -> Outcome:
        """The plan judged by `records`, by job id; leave out records whose image file is missing."""
        return Outcome.of(self.folder, self.recipe, self.plan, self.review, records)

    def reread(self) -> Session:
        """The session opened again: files may have changed."""
        return Session.open(self.loaded, self.limit)

    def check_runnable(self) -> None:
        """Raises DiffgenError if it is already known that this machine or this model cannot do what the recipe asks for."""
        self._check_words()
        check_dtype(self.recipe.dtype, known_class(self.model))
        if self.model.loras:
            require_peft()

    def _check_words(self) -> None:
        """Raises UsageError for texts that a model with a small vocabulary was never taught: it would make copies of the
        sources. LoRAs may teach others."""
        unknown = unknown_words(self.plan, vocabulary(self.model))
        if unknown and not self.recipe.allow_unknown_words and not self.model.loras:
            raise UsageError(
                f"conditions: {'; '.join(unknown)}",
                f"use a preset, or words that `diffgen models {self.model.name}` lists, or another model; "
                "`allow_unknown_words: true` in the recipe tries them anyway",
            )

    def fetched(self) -> Session:
        """The session with all that its model needs downloaded. A hub commit that was unknown before changes the job ids.

        Raises the errors of `check_runnable`, and DiffgenError, with the command that fetches it, when a download fails.
        """
        self.check_runnable()
        model = require_parts(self.model, self.recipe)
        if model == self.model:
            return self
        return replace(
            self, model=model, plan=plan_jobs(self.recipe, self.dataset, model, self.limit, self.edit_version)
        )

    def on_device(self, threads: int | None = None) -> Session:
        """The session with a device and a memory layout chosen; imports torch. `threads` are CPU threads, None: all."""
        from diffgen.editing.pipelines.device import pick_device, pick_dtype
        from diffgen.editing.pipelines.offload import pick_layout

        name, why_device = pick_device(self.recipe.device)
        dtype, why_dtype = pick_dtype(self.recipe.dtype, name, known_class(self.model))
        layout, why_layout = pick_layout(self.recipe.memory, name, dtype, self.model)
        reason = f"device {name} ({why_device}), {dtype} ({why_dtype})"
        reason += f", memory {layout} ({why_layout})" if why_layout else ""
        device = Device(name, dtype, threads or cpu_count(), reason)
        return replace(self, model=replace(self.model, layout=layout), device=device)

    def make_worker(self) -> MakeWorker:
        """A function that loads the model and returns a worker. Needs a device."""
        device = self.device
        assert device is not None
        return lambda: load_worker(self.model, device, self.dataset, self.plan.inserted)

    def warnings(self) -> Iterator[str]:
        """Warnings about a plan that its model is unlikely to do well, and about a missing val split."""
        if self.edit_version != EDIT_VERSION:
            yield f"{self.folder}: {OLDER_IMAGES}; `diffgen run --remake` replaces them"
        if self.recipe.text2img is not None and self.recipe.val_from_train is None:
            yield "no val images will be made; train with a copy of data.yaml whose val split has labelled photographs"
        yield from unknown_words(self.plan, vocabulary(self.model))
        yield from unsupported_guidance(self.plan, self.model)
        yield from unsuited_controls(self.plan)

    def check_version(self) -> None:
        """Raises UsageError if this diffgen edits differently from the one that made the run folder's images."""
        if self.edit_version != EDIT_VERSION:
            made = sum(1 for _ in image_files(self.folder))
            raise UsageError(
                f"{self.folder}: {OLDER_IMAGES} ({made} images)",
                "--remake replaces them; `diffgen export` uses them as they are; a new --output keeps them",
            )

    def check_device(self) -> None:
        """Raises UsageError if the recipe's device is not there; imports torch."""
        from diffgen.editing.pipelines.device import pick_device

        pick_device(self.recipe.device)

    def recipe_text(self) -> str:
        """The recipe as the run folder keeps it."""
        return self.loaded.to_yaml(self.folder, aliases())

    def changed_keys(self) -> list[str]:
        """The keys in which the run folder's recipe differs, for example after `export --set`; this recipe overrides
        them."""
        path = self.folder / "recipe.yaml"
        if not path.is_file():
            return []
        try:
            kept = yaml.safe_load(path.read_bytes())
        except (OSError, ValueError, yaml.YAMLError):
            return []
        new = yaml.safe_load(self.recipe_text())
        return sorted(key for key in new if not isinstance(kept, dict) or kept.get(key) != new[key])

    def write_recipe(self, *, replace_old: bool = True) -> None:
        """Write the recipe to the run folder, which must exist."""
        path = self.folder / "recipe.yaml"
        if replace_old or not path.exists():
            write_atomically(path, self.recipe_text())


def open_run(folder: Path) -> Outcome:
    """Judge a run folder by the recipe it keeps. Takes no lock, so it works while a run is writing.

    Raises UsageError when `folder` is not a run folder.
    """
    loaded = load_recipe(folder)
    session = Session.open(loaded, read_state(loaded.output).get("limit"))
    return session.outcome(read_present(session.folder, session.recipe.image.format))


def _read_dataset(loaded: LoadedRecipe, cache: FileCache) -> Dataset:
    recipe = loaded.recipe
    assert recipe.dataset is not None
    dataset = with_maps(read_dataset(recipe.dataset, loaded.base, cache), recipe, loaded.base, cache)
    dataset = with_targets(dataset, recipe, loaded.base, cache)
    if any(condition.skip_if for condition in recipe.conditions):
        dataset = with_looks(dataset, recipe.select.splits, cache)
    if any(condition.task == "insert" for condition in recipe.conditions):
        dataset = with_shapes(dataset, recipe.select.splits)
    return dataset


def _check_apart(folder: Path, dataset: Dataset) -> None:
    """Raises UsageError when the run folder contains sources, or is inside a folder that is searched for them."""
    parents = {source.path.rpartition(os.sep)[0] for source in dataset.sources if source.path}
    inside = next((parent for parent in parents if Path(parent).resolve().is_relative_to(folder)), None)
    around = next((searched for searched in dataset.folders if folder.is_relative_to(searched.resolve())), None)
    if inside or around:
        problem = f"contains images of the dataset ({inside})" if inside else f"is inside the dataset's folder {around}"
        raise UsageError(f"output {folder} {problem}", "choose a run folder outside the dataset's folders")


@contextmanager
def no_collector() -> Iterator[None]:
    """Pause the garbage collector: planning makes millions of small objects and no garbage, and collection took half of
    its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def make_ready(
    session: Session, store: RunStore, make_worker: MakeWorker | None, notify: Notify, sharing: int = 1
) -> tuple[Session, int, MakeWorker]:
    """Prepare to make images: returns the session with its model downloaded, the batch size, and a function that makes the
    worker. `sharing` is the number of processes that share the CPUs.

    A run folder keeps its first batch size, threads and hub commits, so a resumed run gives the same bytes. With
    `make_worker` nothing is downloaded and no device is chosen.
    """
    session.check_version()
    if make_worker is None:
        session = session.fetched()
        kept = to_keep(session.model)
        store.note(**{key: {**(store.state.get(key) or {}), **kept[key]} for key in kept if kept[key]})
    for line in session.warnings():
        notify(f"warning: {line}")
    require_opencv()
    wanted, threads = session.recipe.batch_size, store.settle(threads=max(1, cpu_count() // sharing))["threads"]
    if make_worker is None:
        session = session.on_device(threads)
    device = session.device
    auto = AUTO_BATCH_CPU if device is None or device.name == "cpu" else AUTO_BATCH_ACCELERATOR
    size = store.settle(batch_size=auto if wanted == "auto" else wanted)["batch_size"]
    if device is not None:
        notify(f"model {session.model.name}, {device.reason}, batches of {size}")
    if wanted not in ("auto", size):
        notify(f"batch_size stays {size}, the value this run folder started with; use a new folder for another")
    return session, size, make_worker or session.make_worker()
