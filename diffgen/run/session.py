"""One command's world: a recipe met with its dataset, model, plan and run folder, and, to make images, a device."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from diffgen.dataset.control_maps import with_maps
from diffgen.dataset.dataset import Dataset, read_dataset, with_shapes
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.masks import require_masks
from diffgen.errors import UsageError
from diffgen.files import write_atomically
from diffgen.models.aliases import aliases
from diffgen.models.loras import resolve_loras
from diffgen.models.model import Model, require_on_disk, vocabulary
from diffgen.models.resolve import require_networks, resolve_recipe_model, revisions, with_revisions
from diffgen.output.outcome import Judging, Outcome
from diffgen.output.review import REVIEW_FILE, Review, read_review
from diffgen.plan.plan import Plan, plan_jobs
from diffgen.plan.text2img import text2img_dataset
from diffgen.plan.warnings import unknown_words, unsuited_controls, unsupported_guidance
from diffgen.recipe.load import LoadedRecipe, load_recipe
from diffgen.recipe.schema import Recipe
from diffgen.run.store.images import read_present
from diffgen.run.store.state import is_run_folder, read_state
from diffgen.run.store.store import RunStore
from diffgen.run.worker_setup import Device, MakeWorker, load_worker
from diffgen.types import Record

# Images per batch when the recipe says "auto". On a CPU a larger batch is no faster; on a GPU it is, and the worker
# halves a batch that does not fit.
AUTO_BATCH = {"cpu": 4}
AUTO_BATCH_ACCELERATOR = 16

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Session:
    """Everything that is known before an image is made. Reading one loads no torch and writes nothing but caches.

    `review` is what a person decided, by job id; `limit` that of the command line; `device` is set by `on_device`.
    """

    loaded: LoadedRecipe
    dataset: Dataset
    model: Model
    plan: Plan
    limit: int | None = None
    review: Review = field(default_factory=dict)
    device: Device | None = None

    @classmethod
    def open(cls, loaded: LoadedRecipe, limit: int | None = None, *, reviewed: bool = True) -> Session:
        """Read the dataset, find the model and plan. The review is the run folder's own, unless `reviewed` is False.

        Raises UsageError for a recipe that does not suit its dataset or model, DiffgenError for what cannot be read.
        """
        recipe, folder = loaded.recipe, loaded.output
        with FileCache() as cache, no_collector():
            if recipe.text2img is not None:
                model = resolve_recipe_model(recipe, loaded.base, cache)
                dataset = text2img_dataset(recipe.text2img, model, loaded.path)
            else:
                dataset = _read_dataset(loaded, cache)
                model = resolve_recipe_model(recipe, loaded.base, cache)
            if recipe.loras:
                loras = resolve_loras([lora.model_dump() for lora in recipe.loras], loaded.base, cache)
                model = replace(model, loras=loras)
        state = read_state(folder) if is_run_folder(folder) else {}
        model = with_revisions(model, recipe, state.get("revisions", {}))
        _check_apart(folder, dataset)
        with no_collector():
            plan = plan_jobs(recipe, dataset, model, limit)
        kept = folder / REVIEW_FILE
        review = read_review(kept) if reviewed and kept.is_file() else {}
        return cls(loaded, dataset, model, plan, limit, review)

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
        """The plan judged by `records`, those whose image is there, by job id."""
        return Outcome.of(self.folder, self.recipe, self.plan, self.review, records)

    def reread(self) -> Session:
        """The same as it is now: files may have changed since."""
        return Session.open(self.loaded, self.limit)

    def fetched(self) -> Session:
        """With the model and its networks on this machine. A hub commit that was unknown until now changes the job ids.

        Raises DiffgenError with the command that fetches what cannot be had.
        """
        model = require_networks(require_on_disk(self.model), self.recipe)
        if model == self.model:
            return self
        return replace(self, model=model, plan=plan_jobs(self.recipe, self.dataset, model, self.limit))

    def on_device(self, threads: int | None = None) -> Session:
        """With a device chosen (this imports torch) and the model laid out for it. `threads` is of the CPU, None: all."""
        from diffgen.editing.pipelines.device import pick_device, pick_dtype
        from diffgen.editing.pipelines.offload import pick_layout

        name, why_device = pick_device(self.recipe.device)
        dtype, why_dtype = pick_dtype(self.recipe.dtype, name)
        layout, why_layout = pick_layout(self.recipe.memory, name, dtype, self.model)
        reason = f"device {name} ({why_device}), {dtype} ({why_dtype})"
        reason += f", memory {layout} ({why_layout})" if why_layout else ""
        device = Device(name, dtype, threads or cpu_count(), reason)
        return replace(self, model=replace(self.model, layout=layout), device=device)

    def make_worker(self) -> MakeWorker:
        """What loads the model and makes the worker of this process. Needs a device."""
        device = self.device
        assert device is not None
        return lambda: load_worker(self.model, device, self.dataset, self.plan.inserted)

    def warnings(self) -> Iterator[str]:
        """What the plan asks of the model that it is not likely to do well."""
        if self.recipe.text2img is not None and self.recipe.val_from_train is None:
            yield "nothing to validate on will be made; train with a copy of data.yaml that names labelled photographs"
        yield from unknown_words(self.plan, vocabulary(self.model))
        yield from unsupported_guidance(self.plan, self.model)
        yield from unsuited_controls(self.plan)

    def recipe_text(self) -> str:
        """The recipe as the run folder keeps it."""
        return self.loaded.to_yaml(self.folder, aliases())

    def write_recipe(self, *, replace_old: bool = True) -> None:
        """Keep the recipe in the run folder, which is there."""
        path = self.folder / "recipe.yaml"
        if replace_old or not path.exists():
            write_atomically(path, self.recipe_text())


def open_run(folder: Path) -> Outcome:
    """What a run folder holds, judged by the recipe kept there, without its lock: also while a run is writing.

    Raises UsageError when it is no run folder.
    """
    loaded = load_recipe(folder)
    session = Session.open(loaded, read_state(loaded.output).get("limit"))
    return session.outcome(read_present(session.folder, session.recipe.image.format))


def _read_dataset(loaded: LoadedRecipe, cache: FileCache) -> Dataset:
    recipe = loaded.recipe
    assert recipe.dataset is not None
    dataset = with_maps(read_dataset(recipe.dataset, loaded.base, cache), recipe, loaded.base, cache)
    if any(condition.task == "insert" for condition in recipe.conditions):
        dataset = with_shapes(dataset, recipe.select.splits)
    return dataset


def _check_apart(folder: Path, dataset: Dataset) -> None:
    """Raises UsageError where the run folder holds sources, or lies in a folder that is searched for them."""
    parents = {source.path.rpartition(os.sep)[0] for source in dataset.sources if source.path}
    above = next((parent for parent in parents if Path(parent).resolve().is_relative_to(folder)), None)
    below = next((searched for searched in dataset.folders if folder.is_relative_to(searched.resolve())), None)
    if above or below:
        raise UsageError(
            f"output {folder} "
            + (f"holds images of the dataset ({above})" if above else f"lies in its folder {below}"),
            "choose a run folder outside the dataset's folders",
        )


@contextmanager
def no_collector() -> Iterator[None]:
    """Pause the garbage collector: planning makes millions of small values and no garbage, and half of its time went
    into searching them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def cpu_count() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_ready(
    session: Session, store: RunStore, make_worker: MakeWorker | None, notify: Notify
) -> tuple[Session, int, MakeWorker]:
    """What it takes to make images: the session with its model on this machine, the batch size, the worker's maker.

    A run folder keeps its first batch size, threads and hub commits, so that resuming gives the same bytes.
    `make_worker` replaces ours, which then nothing is fetched or loaded for.
    """
    if make_worker is None:
        session = session.fetched()
        if found := revisions(session.model):
            store.note(revisions={**store.state.get("revisions", {}), **found})
    for line in session.warnings():
        notify(f"warning: {line}")
    if session.plan.needs_masks:
        require_masks()
    wanted = session.recipe.batch_size
    if make_worker is not None:
        size = wanted if isinstance(wanted, int) else AUTO_BATCH["cpu"]
        return session, store.settle(batch_size=size, threads=cpu_count())["batch_size"], make_worker
    session = session.on_device(store.settle(threads=cpu_count())["threads"])
    assert session.device is not None
    auto = AUTO_BATCH.get(session.device.name, AUTO_BATCH_ACCELERATOR)
    size = store.settle(batch_size=auto if wanted == "auto" else wanted)["batch_size"]
    notify(f"model {session.model.name}, {session.device.reason}, batches of {size}")
    if wanted not in ("auto", size):
        notify(f"batch_size stays {size}, as this run folder began; a new folder takes the new one")
    return session, size, session.make_worker()
