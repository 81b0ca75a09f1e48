"""Edit the photographs of a labelled detection dataset with latent diffusion so that every label stays true.

The command line is the main interface. From Python:

    import diffgen

    summary = diffgen.run_recipe(diffgen.load_recipe("configs/winter.yaml"))
    for image in diffgen.open_run("runs/winter").images:
        print(image.source.name, image.condition, image.verdict)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffgen.version import __version__

if TYPE_CHECKING:
    from diffgen.api import Image, Run, evaluate_run, export_run, load_recipe, open_run, plan_recipe, run_recipe
    from diffgen.errors import DiffgenError, UsageError
    from diffgen.recipe.load import LoadedRecipe
    from diffgen.run.summary import Summary

_HOMES = {
    "DiffgenError": "diffgen.errors",
    "Image": "diffgen.api",
    "LoadedRecipe": "diffgen.recipe.load",
    "Run": "diffgen.api",
    "Summary": "diffgen.run.summary",
    "UsageError": "diffgen.errors",
    "evaluate_run": "diffgen.api",
    "export_run": "diffgen.api",
    "load_recipe": "diffgen.api",
    "open_run": "diffgen.api",
    "plan_recipe": "diffgen.api",
    "run_recipe": "diffgen.api",
}

__all__ = [
    "DiffgenError", "Image", "LoadedRecipe", "Run", "Summary", "UsageError", "__version__", "evaluate_run", "export_run",
    "load_recipe", "open_run", "plan_recipe", "run_recipe",
]  # fmt: skip


def __dir__() -> list[str]:
    return [*__all__]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `diffgen --help` must not wait for numpy and pydantic."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'diffgen' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
