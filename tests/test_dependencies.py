"""pyproject.toml declares whatever diffgen imports itself, so that no other package has to bring it along."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def imported(tree: ast.AST) -> Iterator[str]:
    """The top-level packages that a module imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).partition(".")[0]


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_declared() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines]
    declared = {normalised(re.split(r"[^\w.-]", line)[0]) for line in [*project["dependencies"], *extras]}
    files = list((ROOT / "diffgen").rglob("*.py"))
    found = {name for file in files for name in imported(ast.parse(file.read_text("utf-8")))}
    found -= {*sys.stdlib_module_names, "diffgen"}
    assert {"torch", "numpy", "yaml", "PIL"} <= found
    installed = packages_distributions()
    undeclared = {name for name in found if not {normalised(d) for d in installed.get(name, [name])} & declared}
    assert undeclared == set()


def test_opencv_is_the_one_that_ultralytics_requires() -> None:
    """Two distributions of OpenCV write the same files: whichever is installed last wins."""
    assert [normalised(name) for name in packages_distributions()["cv2"]] == ["opencv-python"]
