"""The wheel works by itself: installed elsewhere, without the project and without any package of an extra, it runs the quickstart.

Only diffgen comes from the wheel. Its dependencies are those of this environment: a fresh one with torch is 6 GB, too much for
every build. That none of our extras is needed is shown by hiding their packages instead.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from diffgen import __version__
from tests.fakes import make_dataset

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "tests/pocket/data/pagoda.jpg"

# Runs the script `diffgen` that the wheel installed. Hidden are the project, which is installed as editable here, and the
# packages of the extras; setuptools is among them and not hidden, as torch may import it.
DRIVER = """
import runpy, sys
from importlib.machinery import PathFinder
from importlib.metadata import distribution
from pathlib import Path

installed, root, *arguments = sys.argv[1:]
sys.path[:] = [place for place in sys.path if place and Path(place) != Path(root)]
extras = [line.partition(";")[0] for line in distribution("diffgen").requires if "extra ==" in line]
names = {"".join(c if c.isalnum() or c in "-_" else " " for c in line).split()[0] for line in extras}
assert {"pytest", "hypothesis", "ruff", "mypy", "selenium", "import-linter"} <= names, names
hidden = {name.replace("-", "_").lower() for name in names - {"diffgen", "setuptools"}} | {"importlinter", "tests", "scripts"}

class Rest(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0].lower() in hidden else super().find_spec(name, path, target)

sys.meta_path[:] = [Rest if f is PathFinder else f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
import diffgen
assert Path(diffgen.__file__).parent.parent == Path(installed), diffgen.__file__
sys.argv = ["diffgen", *arguments]
runpy.run_path(str(Path(installed, "bin/diffgen")), run_name="__main__")
"""


def pip(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds, and nothing else."""
    root = tmp_path_factory.mktemp("wheel")
    tree = root / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, tree / name)
    shutil.copytree(ROOT / "diffgen", tree / "diffgen", ignore=shutil.ignore_patterns("__pycache__"))
    pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(root), str(tree))
    (wheel,) = root.glob("*.whl")
    assert wheel.stat().st_size < 40e6
    pip(
        "install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target", str(root / "installed"), str(wheel)
    )
    return root / "installed"


@pytest.fixture
def diffgen(installed: Path, tmp_path: Path) -> Callable[..., str]:
    """The command line of the wheel, from a folder that is not the project's: what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}

    def call(*arguments: object) -> str:
        command = [sys.executable, "-c", DRIVER, str(installed), str(ROOT), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_it_says_what_it_is_and_what_it_knows(diffgen: Callable[..., str]) -> None:
    assert __version__ in diffgen("--version")
    assert "Usage: diffgen" in diffgen("--help")
    assert "conditions" in json.loads(diffgen("schema"))["properties"]
    assert "night" in diffgen("conditions")


def test_it_runs_the_quickstart(diffgen: Callable[..., str], tmp_path: Path) -> None:
    """As the README has it: a recipe for the dataset at hand, and a run of it. Two small photographs, the model of the wheel."""
    make_dataset(tmp_path / "street", counts=(1, 1))
    photograph = Image.open(PICTURE).convert("RGB").resize((192, 128))
    photograph.save(tmp_path / "street/images/train/00.jpg")
    photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "street/images/val/00.jpg")
    (recipe, *_) = json.loads(diffgen("init", "street", "--json"))["written"]
    sets = ("--set", "conditions=[night]", "--set", "select.share=1", "--set", "output=out")
    facts = json.loads(diffgen("run", recipe, *sets, "--json"))
    assert (facts["planned"], facts["accepted"]) == (1, 1)
    (out,) = {path.parent.parent for path in tmp_path.rglob("dataset/data.yaml")}
    data = yaml.safe_load((out / "dataset/data.yaml").read_text("utf-8"))
    assert list(data["names"].values()) == ["car", "person"]
    images = sorted((out / "dataset" / data["train"]).iterdir())
    assert [path.name for path in images] == ["00.jpg", "00__night-0.jpg"]
    assert (out / "report.html").is_file()
    light = [sum(Image.open(path).convert("L").histogram()[:80]) for path in images]
    assert light[1] > light[0], "a night has more dark pixels"
