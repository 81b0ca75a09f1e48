"""A recipe met with its dataset, model, run folder and device."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from diffgen.plan.plan import Plan, plan_jobs
from diffgen.plan.review import KEPT_AS, read_review
from diffgen.plan.text2img import text2img_dataset
from diffgen.plan.warnings import unknown_words, unsuited_controls, unsupported_guidance
from diffgen.recipe.load import LoadedRecipe
from diffgen.recipe.schema import Recipe
from diffgen.run.store.state import is_run_folder, read_state
from diffgen.run.store.store import RunStore
from diffgen.run.worker import Worker
from diffgen.run.worker_setup import Detectors, MakeWorker, load_worker

# Images per batch when the recipe says "auto". On a CPU a larger batch is no faster; on a GPU it is, and memory that
# runs out halves it.
AUTO_BATCH = {"cpu": 4}
AUTO_BATCH_ACCELERATOR = 16

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recipe met with its dataset and model: everything known before any image is made."""

    recipe: Recipe
    dataset: Dataset
    model: Model
    plan: Plan
    output: Path


def prepare(loaded: LoadedRecipe, limit: int | None = None, *, reviewed: bool = True) -> Prepared:
    """Read the dataset, find the model, plan. Loads no torch and writes nothing but the cache of digests.

    The plan has the review that the run folder keeps, unless `reviewed` is False.
    """
    recipe, output = loaded.recipe, loaded.output
    with FileCache() as cache, no_collector():
        if recipe.dataset is not None:
            dataset = with_maps(read_dataset(recipe.dataset, loaded.base, cache), recipe, loaded.base, cache)
            if any(condition.task == "insert" for condition in recipe.conditions):
                dataset = with_shapes(dataset, recipe.select.splits)
        model = resolve_recipe_model(recipe, loaded.base, cache)
        if recipe.text2img is not None:
            dataset = text2img_dataset(recipe.text2img, model, loaded.path)
        if recipe.loras:
            entries = [lora.model_dump() for lora in recipe.loras]
            model = replace(model, loras=resolve_loras(entries, loaded.base, cache))
    state = read_state(output) if is_run_folder(output) else {}
    model = with_revisions(model, recipe, state.get("revisions", {}))
    parents = {source.path.rpartition(os.sep)[0] for source in dataset.sources if source.path}
    above = next((folder for folder in parents if Path(folder).resolve().is_relative_to(output)), None)
    below = next((f for f in dataset.folders if output.is_relative_to(f.resolve())), None)
    if above or below:
        raise UsageError(
            f"output {output} "
            + (f"holds images of the dataset ({above})" if above else f"lies in its folder {below}"),
            "choose a run folder outside the dataset's folders",
        )
    with no_collector():
        plan = plan_jobs(recipe, dataset, model, limit)
    if reviewed and (kept := output / KEPT_AS).is_file():
        plan = replace(plan, review=read_review(kept))
    return Prepared(recipe, dataset, model, plan, output)


@contextmanager
def no_collector() -> Iterator[None]:
    """Planning makes millions of small values and no garbage: looking through them for some took half of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def make_ready(
    store: RunStore,
    prepared: Prepared,
    judges: Detectors,
    make_worker: MakeWorker | None,
    talk: Notify,
    limit: int | None = None,
) -> tuple[Prepared, int, MakeWorker]:
    """What is needed to make images, not yet loaded: the plan with the model on this machine, the batch size of this
    run folder, and the worker's maker. `make_worker` replaces ours."""
    if make_worker is None:
        prepared = fetched(prepared, limit)
        if found := revisions(prepared.model):  # a run folder stays with the commits it began with
            store.note(revisions={**store.state.get("revisions", {}), **found})
    if prepared.recipe.text2img is not None and prepared.recipe.val_from_train is None:
        talk(
            "warning: nothing to validate on will be made; train with a copy of data.yaml that names labelled photographs"
        )
    plan, model = prepared.plan, prepared.model
    heard = unknown_words(plan, vocabulary(model))
    for line in [*heard, *unsupported_guidance(plan, model), *unsuited_controls(plan)]:
        talk(f"warning: {line}")
    kept, make = _settle(store, prepared, judges, make_worker, talk)
    return prepared, kept["batch_size"], make


def fetched(prepared: Prepared, limit: int | None = None) -> Prepared:
    """With the model on this machine; a hub model whose commit was unknown until now changes the plan's ids."""
    model = require_networks(require_on_disk(prepared.model), prepared.recipe)
    if model == prepared.model:
        return prepared
    plan = plan_jobs(prepared.recipe, prepared.dataset, model, limit)
    return replace(prepared, model=model, plan=replace(plan, review=prepared.plan.review))


def _settle(
    store: RunStore, prepared: Prepared, judges: Detectors, make_worker: MakeWorker | None, talk: Notify
) -> tuple[dict[str, Any], MakeWorker]:
    """Batch size and threads: a run folder keeps its first choice, so that resuming gives the same bytes."""
    recipe, model = prepared.recipe, prepared.model
    if prepared.plan.needs_masks:
        require_masks()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if make_worker is not None:
        size = recipe.batch_size if isinstance(recipe.batch_size, int) else AUTO_BATCH["cpu"]
        return store.settle(batch_size=size, threads=cores), make_worker
    prepared, device, dtype, why = choose_device(prepared)
    wanted = AUTO_BATCH.get(device, AUTO_BATCH_ACCELERATOR) if recipe.batch_size == "auto" else recipe.batch_size
    kept = store.settle(batch_size=wanted, threads=cores)
    talk(f"model {model.name}, {why}, batches of {kept['batch_size']}")
    if recipe.batch_size not in ("auto", kept["batch_size"]):
        talk(f"batch_size stays {kept['batch_size']}, as this run folder began; a new folder takes the new one")
    return kept, worker_on(prepared, device, dtype, kept["threads"], judges)


def keep_recipe(store: RunStore, loaded: LoadedRecipe) -> None:
    """For a folder that has none yet; the recipe of a run stays the one that its dataset was made by."""
    if not (store.folder / "recipe.yaml").exists():
        write_atomically(store.folder / "recipe.yaml", loaded.to_yaml(store.folder, aliases()))


def choose_device(prepared: Prepared) -> tuple[Prepared, str, str, str]:
    """(the same with its model laid out for the device, device, number type, all with their reasons for people)."""
    from diffgen.editing.pipelines.device import pick_device, pick_dtype
    from diffgen.editing.pipelines.offload import pick_layout

    recipe, model = prepared.recipe, prepared.model
    device, why_device = pick_device(recipe.device)
    dtype, why_dtype = pick_dtype(recipe.dtype, device)
    layout, why_layout = pick_layout(recipe.memory, device, dtype, model)
    why = f"device {device} ({why_device}), {dtype} ({why_dtype})"
    why += f", memory {layout} ({why_layout})" if why_layout else ""
    return replace(prepared, model=replace(model, layout=layout)), device, dtype, why


def worker_on(
    prepared: Prepared, device: str, dtype: str, threads: int, judges: Detectors | None = None
) -> Callable[[], Worker]:
    """What loads the model and makes the worker of this process."""
    model, dataset = prepared.model, prepared.dataset
    if judges is not None:
        judges = replace(judges, names=dataset.names, inserted=prepared.plan.inserted)
    return lambda: load_worker(model, device, dtype, threads, len(dataset.names), dataset.keypoints, judges)
