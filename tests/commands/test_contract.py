"""What shells, Makefiles and CI rely on: exit codes, JSON on stdout, talk on stderr, nothing written elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import MODEL, FakeEditor, make, make_dataset, put, tree, write_recipe

# With GATE, a file descriptor, the fourth batch is held until that says something or is closed: by then one is committed.
DRIVER = """
import functools, os, sys
from tests.fakes import FakeEditor, fake_worker
from diffgen import cli; from diffgen.run import loop as run
class Gated(FakeEditor):
    def begin(self, batch):
        if "GATE" in os.environ and len(self.batches) == 4:
            os.read(int(os.environ["GATE"]), 1)
run.run = functools.partial(run.run, make_worker=lambda: fake_worker(Gated(seconds=0.1)))
sys.exit(cli.main(sys.argv[1:]))
"""


def test_0_when_done(cli: Callable[..., Any], recipe: Path) -> None:
    answer = cli("run", recipe, "--json", editor=FakeEditor())
    assert answer.code == 0
    facts = json.loads(answer.out)
    assert (facts["accepted"], facts["planned"], facts["exit_code"], facts["stopped"]) == (8, 8, 0, None)


def test_0_with_a_failed_image_while_require_holds(cli: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    broken = tmp_path / "data/images/train/01.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    answer = cli("run", recipe, "--set", "require.accepted=0.5", editor=FakeEditor())
    assert answer.code == 0
    assert "failed" in answer.out


def test_1_when_nothing_could_be_made(cli: Callable[..., Any], tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(1, 1))
    image = tmp_path / "data/images/train/00.jpg"
    image.write_bytes(image.read_bytes()[:-400])
    answer = cli("run", write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"), editor=FakeEditor())
    assert answer.code == 1


def test_2_for_the_recipe_and_for_the_command_line(cli: Callable[..., Any], recipe: Path) -> None:
    wrong = cli("run", recipe, "--set", "strenght=1")
    assert wrong.code == 2
    assert "strenght" in wrong.err
    assert "hint:" in wrong.err
    assert wrong.out == ""
    assert cli("run").code == 2
    assert cli("walk").code == 2
    assert cli("run", recipe, "--no-such-option").code == 2


def test_3_below_require_and_again_when_exported(cli: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    answer = cli("run", recipe, "--set", "require.accepted=1", "--set", "checks.contrast=1", editor=FakeEditor())
    assert answer.code == 3
    assert "below the required share" in answer.out
    assert cli("export", tmp_path / "out").code == 3
    assert cli("export", tmp_path / "out", "--set", "checks.contrast=null").code == 0


def test_1_when_nothing_is_there_to_train_with(cli: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    sets = ("--set", "include_sources=none", "--set", "checks.contrast=1")
    answer = cli("run", recipe, *sets, editor=FakeEditor())
    for said in (answer, cli("export", tmp_path / "out")):
        assert said.code == 1
        assert "dataset   empty in train: no image was accepted and no source image is included" in said.out
        assert "yolo train" not in said.out
        assert "nothing could be made" not in said.out
    real = cli("export", tmp_path / "out", "--set", "include_sources=copy")  # as good as without diffgen
    assert real.code == 1
    assert "no image was accepted" in real.out
    assert "yolo train" not in real.out
    back = cli("export", tmp_path / "out", "--set", "checks.contrast=null")
    assert back.code == 0
    assert "yolo train" in back.out


def test_4_when_the_minutes_are_over_and_0_after(cli: Callable[..., Any], recipe: Path) -> None:
    assert cli("run", recipe, "--max-minutes", 0, editor=FakeEditor()).code == 4
    assert cli("run", recipe, editor=FakeEditor()).code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_finishes_what_is_in_hand_and_says_how_to_go_on(number: int, code: int, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(12, 1))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", batch_size=2)
    child, gate = start(recipe)
    wait_for_a_commit(tmp_path / "out", child)
    child.send_signal(number)
    before = wait_until_it_ends(child)
    os.close(gate)
    out, err = child.communicate(timeout=240)
    assert child.returncode == code, before + err
    assert "run the same command again" in before + err
    facts = json.loads(out)
    assert 0 < facts["accepted"] < 24
    assert facts["pending"] == 24 - facts["accepted"]
    summary, editor = make(recipe)
    assert summary.accepted == 24
    assert len(editor.made) == facts["pending"]


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(12, 1))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", batch_size=2)
    child, gate = start(recipe)
    wait_for_a_commit(tmp_path / "out", child)
    child.send_signal(signal.SIGINT)
    wait_until_it_ends(child)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=240)  # though the gate is shut
    os.close(gate)
    assert child.returncode == 130
    assert make(recipe)[0].accepted == 24


def start(recipe: Path) -> tuple[subprocess.Popen[str], int]:
    """(a run that is held at its fourth batch, what lets it go on when closed)."""
    root = Path(__file__).resolve().parents[2]
    theirs, gate = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", DRIVER, "run", str(recipe), "--json"],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root), "GATE": str(theirs)}, pass_fds=(theirs,), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    return child, gate


def wait_for_a_commit(out: Path, child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    records = out / "records-0.jsonl"
    while not (records.exists() and b'"commit"' in records.read_bytes()):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_until_it_ends(child: subprocess.Popen[str]) -> str:
    """Read what it says until it has taken notice of a signal."""
    said = ""
    assert child.stderr is not None
    while "finishing the batch on the device" not in said:
        line = child.stderr.readline()
        assert line, said
        said += line
    return said


@pytest.mark.parametrize("command", ["plan", "status", "export", "clean", "conditions", "models"])
def test_json_is_all_that_stdout_holds(command: str, cli: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    arguments = [tmp_path / "out"] if command in ("plan", "status", "export", "clean") else []
    answer = cli(command, *arguments, "--json")
    assert answer.code == 0, answer.err
    json.loads(answer.out)


def test_an_error_is_json_too_when_asked_for(cli: Callable[..., Any], tmp_path: Path) -> None:
    answer = cli("plan", tmp_path / "none.yaml", "--json")
    assert answer.code == 2
    assert set(json.loads(answer.out)) == {"error", "hint", "exit_code"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["walk"], 2, "No such command 'walk'"),
        (["plan"], 2, "Missing argument 'RECIPE'"),
        (["run", "r.yaml", "--limit", "0"], 2, "Invalid value for '--limit'"),
        (["plan", "r.yaml", "--no-such-option"], 2, "--no-such-option"),
        (["status", "o" * 300], 1, "File name too long"),
    ],
)
def test_so_is_one_of_the_command_line_and_of_a_path(
    arguments: list[str], code: int, words: str, cli: Callable[..., Any], recipe: Path
) -> None:
    answer = cli(*(recipe if part == "r.yaml" else part for part in arguments), "--json")
    facts = json.loads(answer.out)
    assert answer.code == facts["exit_code"] == code
    assert words in facts["error"]
    assert facts["hint"]
    assert words in answer.err


def test_talk_goes_to_stderr_and_quiet_says_nothing(cli: Callable[..., Any], recipe: Path) -> None:
    loud = cli("run", recipe, editor=FakeEditor())
    assert "images to make" in loud.err
    assert "images to make" not in loud.out
    assert "8 of 8 images accepted" in loud.out
    quiet = cli("run", recipe, "--set", "variants=2", "--quiet", editor=FakeEditor())
    assert (quiet.out, quiet.err) == ("", "")


def test_schema_is_a_schema_that_the_shipped_recipes_meet(cli: Callable[..., Any]) -> None:
    schema = json.loads(cli("schema").out)
    assert {"output", "conditions"} <= set(schema["required"])
    assert schema["anyOf"] == [{"required": ["dataset"]}, {"required": ["text2img"]}]
    assert "night" in json.dumps(schema["$defs"]["ConditionName"])


def test_no_command_writes_outside_the_run_folder(cli: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    cli("run", recipe, editor=FakeEditor())
    for command in ("plan", "status", "export", "clean"):
        cli(command, tmp_path / "out")
    cli("clean", tmp_path / "out", "--yes")
    cli("conditions", "night")
    cli("doctor-not-a-command")
    after = tree(tmp_path)
    assert {path: digest for path, digest in after.items() if not path.startswith("out/")} == before


def test_a_dataset_below_a_folder_that_is_not_utf8(tmp_path: Path, cli: Callable[..., Any]) -> None:
    root = tmp_path / "caf\udce9"
    try:
        data = make_dataset(root / "data")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    recipe = put(
        tmp_path / "r.yaml", json.dumps({"dataset": "d", "output": "o", "model": MODEL, "conditions": ["fog"]})
    )
    answer = cli("plan", recipe, "--set", "editor=instruct", "--set", f"dataset={json.dumps(str(data))}")
    assert answer.code == 0, answer.err


def test_json_before_the_name_counts_too(cli: Callable[..., Any]) -> None:
    assert json.loads(cli("models", "--json", "pocket").out)["name"] == "pocket"


def test_a_home_that_is_not_there_is_a_missing_file(tmp_path: Path, cli: Callable[..., Any]) -> None:
    data = make_dataset(tmp_path / "data")
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", detector="~nosuchuser/x.pt")
    answer = cli("plan", recipe)
    assert answer.code == 2
    assert "there is no file" in answer.err
