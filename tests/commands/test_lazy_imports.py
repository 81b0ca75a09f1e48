"""Commands with nothing to make load neither torch nor what comes with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.fakes import make, make_dataset, write_recipe

# One process for all: what a command loads is there after it, and the first that loads something heavy is named.
SCRIPT = """
import json, sys
from diffgen.cli import main
HEAVY = {"torch", "torchvision", "diffusers", "transformers", "ultralytics", "ray", "cv2"}
for command in json.loads(sys.argv[1]):
    assert main(command) == 0, command
    loaded = (HEAVY | {"numpy", "pydantic"} if command == ["--help"] else HEAVY) & set(sys.modules)
    assert not loaded, (command, loaded)
"""


def test_no_command_but_a_run_with_work_loads_torch(tmp_path: Path) -> None:
    """On a finished run: `run` has nothing to do. `--help`, the first, does not even load numpy."""
    data = make_dataset(tmp_path / "data", counts=(1, 1))
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"))
    plain = [["--help"], ["conditions"], ["models"], ["schema"]]
    on_a_run = [[name, str(tmp_path / "out")] for name in ("plan", "status", "export", "clean", "run", "preview")]
    command = [sys.executable, "-c", SCRIPT, json.dumps(plain + on_a_run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
