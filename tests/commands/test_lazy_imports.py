"""Commands with nothing to make load neither torch nor what comes with it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import make, make_dataset, write_recipe

HEAVY = {"torch", "torchvision", "diffusers", "transformers", "ultralytics", "ray", "cv2"}


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
