"""What a run shows where it is watched: a terminal of 80 columns, a pipe, a machine, and another shell."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffgen.run.store.store import RunStore
from tests.commands.test_contract import DRIVER, start, wait_for_a_commit
from tests.fakes import make, make_dataset, write_recipe

ROOT = Path(__file__).resolve().parents[2]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(arguments: list[str], columns: int) -> tuple[int, str, str]:
    """(exit code, stdout, what a terminal of so many columns got on stderr)."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR", "CI")}
    child = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, stdin=theirs,
        env={**environment, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux' word for: the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    out, _ = child.communicate(timeout=60)
    return child.returncode, out.decode(), seen.decode()


@pytest.mark.parametrize("columns", [80, 60])
def test_a_bar_that_fits_its_terminal(columns: int, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(8, 1))
    name = "a-condition-with-a-name-of-some-length"
    recipe = write_recipe(
        tmp_path / "r.yaml", data, tmp_path / "out", conditions=[{"name": name, "prompt": "dark"}], batch_size=2
    )
    code, out, seen = on_a_terminal(["run", str(recipe)], columns)
    assert code == 0, seen
    assert "8 of 8 images accepted" in out
    assert "━" not in out, "stdout is data"
    drawn = [line for line in re.split(r"[\r\n]+", ESCAPES.sub("", seen)) if "━" in line]
    assert drawn
    assert max(map(len, drawn)) <= columns
    assert re.search(r"a-condition- ━+ 8/8 100% accepted, \d+\.\d\d images/s", drawn[-1]), drawn[-1]
    assert any(re.search(r"[246]/8 .*, \d+ s left", line) for line in drawn)
    assert ESCAPES.sub("", seen).endswith("\n"), "the shell's prompt begins on a line of its own"
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l"), "the cursor is shown again"
    assert "8 of 8 images to make" in seen


def test_plain_lines_in_a_pipe(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(2, 1))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, "run", recipe], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "\x1b" not in done.stderr
    assert re.search(r"^4/4 images, 100% accepted, \d+\.\d\d images/s, fog$", done.stderr, re.MULTILINE)


def test_json_lines_on_stderr_and_the_summary_on_stdout(cli: Callable[..., Any], recipe: Path) -> None:
    from tests.fakes import FakeEditor

    answer = cli("run", recipe, "--json", editor=FakeEditor())
    assert json.loads(answer.out)["accepted"] == 8
    *_, line = [json.loads(line) for line in answer.err.splitlines() if line.startswith("{")]
    assert line["progress"]["made"] == line["progress"]["total"] == line["progress"]["accepted"] == 8


def test_status_from_another_shell_says_that_it_runs_and_how_fast(cli: Callable[..., Any], tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(12, 1))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", batch_size=2)
    child, gate = start(recipe)
    wait_for_a_commit(tmp_path / "out", child)
    facts = json.loads(cli("status", tmp_path / "out", "--json").out)
    said = cli("status", tmp_path / "out").out
    child.kill()
    child.communicate()
    os.close(gate)
    assert facts["running"]
    assert 0 < facts["images_per_second"] < 50, "two images in 0.1 s, and when those before were counted"
    assert re.search(r"running   \d+ still to make, \d+\.\d\d images/s, \d+ (s|min) left", said)
    assert "yolo train" not in said, "there is no dataset yet"
    after = json.loads(cli("status", tmp_path / "out", "--json").out)
    assert not after["running"]
    assert "the same 'diffgen run' again" in cli("status", tmp_path / "out").out


def test_a_folder_that_nobody_locked_is_not_running(cli: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    (tmp_path / "out/lock").unlink()  # copied from elsewhere, say
    assert not json.loads(cli("status", tmp_path / "out", "--json").out)["running"]


def test_asking_for_the_status_never_keeps_a_run_from_beginning(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(recipe)
    with open(tmp_path / "out/lock") as held:  # as `status` does, which lets go while the run waits
        fcntl.flock(held, fcntl.LOCK_SH)
        clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=lambda _: fcntl.flock(held, fcntl.LOCK_UN))
        monkeypatch.setattr("diffgen.run.store.store.time", clock)
        RunStore(tmp_path / "out", "jpg").close()
