"""A stream that is closed, full, or read by nobody ends no run and changes no exit code. Real processes and shells."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffgen.commands.status import status
from diffgen.recipe.load import load_recipe
from tests.commands.test_contract import wait_for_a_commit
from tests.fakes import make, make_dataset, tree, write_recipe

ROOT = Path(__file__).resolve().parents[2]
DRIVER = """
import functools, sys
from tests.fakes import FakeEditor, fake_worker
from diffgen.run import loop
loop.run = functools.partial(loop.run, make_worker=lambda: fake_worker(FakeEditor(seconds=0.05)))
from diffgen import __main__
__main__.run()
"""


def shell(line: str, recipe: Path, *, command: str = "run") -> subprocess.CompletedProcess[str]:
    """A line of bash in which DIFFGEN is a whole command."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DRIVER": DRIVER}
    diffgen = f'{sys.executable} -c "$DRIVER" {command} {recipe}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("DIFFGEN", diffgen)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "DIFFGEN 2>&-", "DIFFGEN >&-", "DIFFGEN >&- 2>&- <&-", "DIFFGEN 2>/dev/full", "DIFFGEN >/dev/full",
        "DIFFGEN --json >/dev/full 2>&1", "DIFFGEN 2> >(true)", "DIFFGEN > >(true)", "DIFFGEN --json > >(true) 2>&1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("code", [0, 3])
def test_a_run_goes_on_and_its_exit_code_is_the_work_s(line: str, code: int, recipe: Path, tmp_path: Path) -> None:
    if code:
        recipe.write_text(recipe.read_text() + "require: {accepted: 1}\n")
        image = tmp_path / "data/images/train/01.jpg"
        image.write_bytes(image.read_bytes()[:-400])
    done = shell(line, recipe)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert status(load_recipe(recipe)).pending == 0
    if "full" in line and "2>" not in line:
        assert "error: standard output: No space left on device; 'diffgen status" in done.stderr
    written = tree(tmp_path / "out")
    assert make(recipe)[0].made_now == 0
    assert tree(tmp_path / "out") == written, "nothing that was printed went into a file of the run"


@pytest.mark.parametrize("line", ["DIFFGEN | head -n 1", "DIFFGEN --json | head -c 5", "DIFFGEN | true"])
def test_a_reader_that_has_seen_enough_is_no_error(line: str, recipe: Path) -> None:
    done = shell(line, recipe, command="plan")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["plan", "status"])
def test_a_full_disk_under_what_only_prints_is_one_error(command: str, recipe: Path) -> None:
    make(recipe)
    done = shell("DIFFGEN > /dev/full", recipe, command=command)
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output: No space left on device\nhint: ")


def test_a_log_that_dies_in_the_middle_ends_nothing(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d", counts=(12, 1)), tmp_path / "out")
    child = subprocess.Popen(
        [sys.executable, "-c", DRIVER, "run", str(recipe), "--json"], cwd=ROOT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stderr
    assert child.stdout
    child.stderr.readline()
    child.stderr.close()
    facts = json.loads(child.stdout.read())
    assert child.wait(60) == 0
    assert facts["accepted"] == 24
    assert (tmp_path / "out/dataset/data.yaml").is_file()


def test_nohup_survives_the_terminal(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path / "r.yaml", make_dataset(tmp_path / "d", counts=(12, 1)), tmp_path / "out", batch_size=2
    )
    child = subprocess.Popen(
        ["nohup", sys.executable, "-c", DRIVER, "run", str(recipe)], cwd=ROOT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for_a_commit(tmp_path / "out", child)
    child.send_signal(signal.SIGHUP)
    time.sleep(0.1)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert status(load_recipe(recipe)).accepted == 24
