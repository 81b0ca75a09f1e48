"""`diffgen doctor`: what this machine has and what a run would use. Also for bug reports."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffgen.dataset.file_cache import FileCache, cache_dir
from diffgen.errors import DiffgenError
from diffgen.models.fetch import pull_command
from diffgen.models.find import resolve_model
from diffgen.models.hub import is_offline
from diffgen.models.model import Model, is_on_disk, known_class
from diffgen.models.networks import network_command, require_detector_file
from diffgen.models.resolve import as_kept, missing_networks, resolve_recipe_model
from diffgen.recipe.load import LoadedRecipe
from diffgen.run.session import Session
from diffgen.run.store.state import check_folder, is_run_folder, read_state
from diffgen.version import __version__, installed_version

PACKAGES = ("torch", "diffusers", "transformers", "ultralytics", "numpy", "pillow", "pydantic")


def examine(loaded: LoadedRecipe | None = None) -> dict[str, Any]:
    """Versions, device, memory and model; `problems` lists what would stop a run. Imports torch."""
    problems: list[str] = []
    facts: dict[str, Any] = {
        "diffgen": __version__,
        "python": platform.python_version(),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "cpus": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "disk_free_gb": round(shutil.disk_usage(_existing(loaded.output if loaded else Path.cwd())).free / 1e9, 1),
        "cache": str(cache_dir()),
        "offline": is_offline(),
    }
    model = None
    with _collecting(problems):
        model = _resolved(loaded)
    with _collecting(problems):
        facts |= _device(loaded, model)
    with _collecting(problems):
        facts |= _model(loaded, model, facts, problems)
    if loaded is not None:
        with _collecting(problems):
            check_folder(loaded.output)
        with _collecting(problems):  # dataset, LoRAs and detector
            session = Session.open(loaded)
            require_detector_file(session.model.observers)
            session.check_runnable()
    return {**facts, "problems": problems}


def _resolved(loaded: LoadedRecipe | None) -> Model:
    with FileCache() as cache:
        if loaded is None:
            return resolve_model("pocket", None, Path(), cache)
        model = resolve_recipe_model(loaded.recipe, loaded.base, cache)
    return as_kept(model, loaded.recipe, read_state(loaded.output)) if is_run_folder(loaded.output) else model


def _device(loaded: LoadedRecipe | None, model: Model | None) -> dict[str, Any]:
    from diffgen.editing.pipelines.device import pick_device, pick_dtype

    device, why = pick_device(loaded.recipe.device if loaded else "auto")
    dtype, why_dtype = pick_dtype(
        loaded.recipe.dtype if loaded else "auto", device, known_class(model) if model else None
    )
    return {"device": device, "device_reason": why, "dtype": dtype, "dtype_reason": why_dtype}


def _model(
    loaded: LoadedRecipe | None, model: Model | None, facts: dict[str, Any], problems: list[str]
) -> dict[str, Any]:
    from diffgen.editing.pipelines.offload import pick_layout

    if model is None:
        return {}
    on_disk = is_on_disk(replace(model, loras=()))
    shown = {"name": model.name, "editor": model.editor, "on_disk": on_disk, "steps": model.steps}
    if not on_disk:
        problems.append(f"model '{model.name}' is not on this machine; {pull_command(model.name, model.revision)}")
    for lora in model.loras:
        if lora.path is None:
            pull = pull_command(str(loaded.path) if loaded else model.name)
            problems.append(f"LoRA '{lora.name}' is not on this machine; {pull}")
    for network in missing_networks(model):
        problems.append(f"{network.full_name} is not on this machine; {network_command(network)}")
    if "device" not in facts:
        return {"model": shown}
    requested = loaded.recipe.memory if loaded else "auto"
    layout, why = pick_layout(requested, facts["device"], facts["dtype"], model)
    return {"model": shown, "layout": str(layout), "layout_reason": why}


@contextmanager
def _collecting(problems: list[str]) -> Iterator[None]:
    """Add a DiffgenError to the problems and go on."""
    try:
        yield
    except DiffgenError as error:
        if (line := f"{error.message}; {error.hint}") not in problems:
            problems.append(line)


def examination_text(facts: dict[str, Any]) -> str:
    """The facts of `examine` as text."""
    packages = ", ".join(f"{name} {version or 'missing'}" for name, version in facts["packages"].items())
    memory = f"{facts['memory_gb']} GB" if facts["memory_gb"] else "unknown"
    lines = [
        f"diffgen   {facts['diffgen']}, Python {facts['python']}",
        f"packages  {packages}",
        f"machine   {facts['cpus']} CPUs, memory {memory}, {facts['disk_free_gb']} GB free on the output disk",
    ]
    if "device" in facts:
        lines.append(
            f"device    {facts['device']} ({facts['device_reason']}), {facts['dtype']} ({facts['dtype_reason']})"
        )
    if facts.get("layout_reason"):
        lines.append(f"memory    {facts['layout']} ({facts['layout_reason']})")
    if "model" in facts:
        model = facts["model"]
        here = "on this machine" if model["on_disk"] else "not on this machine"
        lines.append(f"model     {model['name']} ({model['editor']}, {model['steps']} steps), {here}")
    hub = "offline (HF_HUB_OFFLINE)" if facts["offline"] else "online"
    lines.append(f"hub       {hub}; cache {facts['cache']}")
    lines += [f"problem   {problem}" for problem in facts["problems"]]
    return "\n".join(lines)


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    return path if path.exists() else _existing(path.parent)
