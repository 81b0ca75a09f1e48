"""Imports point down, and heavy packages are imported inside functions only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import make, make_dataset, write_recipe

PACKAGE = Path(__file__).resolve().parents[2] / "diffgen"

# From the top down. A module imports modules of lower layers only; neighbours do not import each other, but the files of
# one folder may.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"overview", "preview", "trajectory", "reproduce", "doctor", "starter"},
    {"run", "sweeps"},
    {"report"},
    {"tally"},
    {"sheet"},
    {"executors", "export", "leakage"},
    {"worker", "plan", "guides"},
    {"controls", "placement", "imagined", "annotators", "relight"},
    {"sources", "store", "editors"},
    {"recipe", "models", "checks", "detect", "clip", "formats", "progress", "detail", "review"},
    {"tasks", "annotate"},
    {"facts", "loras", "weights", "blend", "memory", "faults", "overrides"},
    {"labels", "geometry", "cache", "forked", "yamltree", "hub", "vocabulary"},
    {"types", "errors"},
    {"__init__"},
]
HEAVY = {"torch", "torchvision", "diffusers", "transformers", "ultralytics", "ray", "cv2"}


def layer(module: str) -> int:
    (found,) = [i for i, names in enumerate(LAYERS) if module in names]
    return found


def room(path: Path) -> str:
    """The name a file counts under: its own, or its folder's."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def imports(path: Path, top_level: bool) -> set[str]:
    """Modules that a file imports; those inside functions and under TYPE_CHECKING only when not `top_level`."""
    tree = ast.parse(path.read_text("utf-8"))
    found: set[str] = set()
    skip = (ast.FunctionDef, ast.If, ast.AsyncFunctionDef) if top_level else ()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                found.add(child.module or "")
                found.update(f"{child.module}.{alias.name}" for alias in child.names)
            elif not isinstance(child, skip):
                walk(child)

    walk(tree)
    return found


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path: Path) -> None:
    own = room(path)
    for name in imports(path, top_level=False):
        parts = name.split(".")
        if parts[0] != "diffgen" or len(parts) < 2:
            continue
        target = parts[1]
        known = (PACKAGE / f"{target}.py").exists() or (PACKAGE / target / "__init__.py").exists()
        if known and target != own:
            assert layer(target) > layer(own), f"{own} imports {target}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_heavy_packages_are_imported_inside_functions(path: Path) -> None:
    assert not {name.partition(".")[0] for name in imports(path, top_level=True)} & HEAVY


def test_every_module_has_a_layer() -> None:
    assert {room(path) for path in SOURCES} == {name for names in LAYERS for name in names}


@pytest.mark.parametrize(
    "command", ["--help", "plan", "status", "export", "clean", "run", "preview", "conditions", "models", "schema"]
)
def test_no_command_but_a_run_with_work_loads_torch(command: str, tmp_path: Path) -> None:
    """On a finished run: `run` has nothing to do."""
    data = make_dataset(tmp_path / "data", counts=(1, 1))
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"))
    arguments = (
        [command, str(tmp_path / "out")]
        if command in ("plan", "status", "export", "clean", "run", "preview")
        else [command]
    )
    script = f"import sys; from diffgen.cli import main; code = main({arguments!r}); print(sorted(sys.modules), file=sys.stderr); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(ast.literal_eval(done.stderr.strip().splitlines()[-1]))
    assert not loaded & HEAVY
    assert "numpy" not in loaded or command != "--help"
