"""What `from diffgen import …` gives: all of it named, typed and documented, and nothing loaded before it is asked for."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import diffgen
from diffgen import DiffgenError, LoadedRecipe, Outcome, Summary, load_recipe, open_run, run_recipe
from tests.fakes import make


def test_every_public_name_is_there_and_documented() -> None:
    given = {
        "DiffgenError": DiffgenError, "LoadedRecipe": LoadedRecipe, "Outcome": Outcome, "Summary": Summary,
        "load_recipe": load_recipe, "open_run": open_run, "run_recipe": run_recipe,
    }  # fmt: skip
    assert sorted({"__version__", *given}) == sorted(diffgen.__all__)
    for name, thing in given.items():
        assert callable(thing)
        assert thing is getattr(diffgen, name)
        assert thing.__doc__, f"{name} has no docstring"


def test_type_checkers_see_the_same_names() -> None:
    """They read the imports under TYPE_CHECKING, where Python asks `__getattr__`."""
    (block,) = [node for node in ast.parse(Path(diffgen.__file__).read_text("utf-8")).body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname or alias.name: (node.module, alias.name) for node in imports for alias in node.names}
    assert sorted({"__version__", *seen}) == sorted(diffgen.__all__)
    for name, (module, own) in seen.items():
        assert getattr(importlib.import_module(str(module)), own) is getattr(diffgen, name)


def test_no_other_name_is_made_up() -> None:
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        diffgen.runs  # noqa: B018 the access is what is tested


def test_the_example_of_the_docstring(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    summary = run_recipe(load_recipe(tmp_path / "out"))
    opened = open_run(tmp_path / "out")
    assert isinstance(load_recipe(recipe), LoadedRecipe)
    assert isinstance(summary, Summary)
    assert isinstance(opened, Outcome)
    shown = [(entry.item.source.key, entry.accepted) for entry in opened.entries]
    assert len(shown) == summary.accepted == 8
    assert all(accepted for _, accepted in shown)
    with pytest.raises(DiffgenError):
        open_run(tmp_path / "nowhere")


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import diffgen, sys; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "pydantic", "torch", "PIL", "yaml", "typer"} & set(done.stdout.split())
