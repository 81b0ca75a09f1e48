"""Edit the photographs of a labelled detection dataset with latent diffusion so that every label stays true.

The command line is the main way in. From Python:

    from diffgen import load_recipe, open_run, run_recipe

    summary = run_recipe(load_recipe(Path("configs/winter.yaml")))
    for entry in open_run(Path("runs/winter")).entries:
        print(entry.item.source.key, entry.accepted)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffgen.version import __version__

if TYPE_CHECKING:
    from diffgen.errors import DiffgenError
    from diffgen.output.outcome import Outcome
    from diffgen.recipe.load import LoadedRecipe, load_recipe
    from diffgen.run.loop import run as run_recipe
    from diffgen.run.session import open_run
    from diffgen.run.summary import Summary


__all__ = ["DiffgenError", "LoadedRecipe", "Outcome", "Summary", "__version__", "load_recipe", "open_run", "run_recipe"]

_HOMES = {
    "DiffgenError": ("diffgen.errors", "DiffgenError"),
    "LoadedRecipe": ("diffgen.recipe.load", "LoadedRecipe"),
    "Outcome": ("diffgen.output.outcome", "Outcome"),
    "Summary": ("diffgen.run.summary", "Summary"),
    "load_recipe": ("diffgen.recipe.load", "load_recipe"),
    "open_run": ("diffgen.run.session", "open_run"),
    "run_recipe": ("diffgen.run.loop", "run"),  # diffgen.run is a package
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: `diffgen --help` must not wait for numpy and pydantic."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'diffgen' has no attribute '{name}'")
    module, own_name = _HOMES[name]
    return getattr(importlib.import_module(module), own_name)
