"""`diffgen doctor` and `models pull`, which look at torch and at models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import MODEL, make_dataset, put, write_recipe

pytestmark = pytest.mark.editors


def test_doctor_says_what_a_run_would_use(cli: Callable[..., Any]) -> None:
    answer = cli("doctor", "--json")
    facts = json.loads(answer.out)
    assert answer.code == (1 if facts["problems"] else 0)
    assert facts["device_reason"]
    assert facts["packages"]["torch"]
    assert facts["model"]["name"] == "pocket"
    assert facts["model"]["on_disk"]


def test_doctor_names_every_problem_of_a_recipe(tmp_path: Path, cli: Callable[..., Any]) -> None:
    recipe = write_recipe(
        tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out", model=MODEL, device="cuda:7"
    )
    answer = cli("doctor", recipe)
    assert answer.code == 1
    problems = [line for line in answer.out.splitlines() if line.startswith("problem")]
    assert len(problems) == 2
    assert "cuda:7" in problems[0]
    assert "not on this machine" in problems[1]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"detector": "none.pt"}, "detector: there is no file"),
        ({"dataset": "none.yaml"}, "none.yaml: dataset file not found"),
        ({"loras": [{"file": "none.safetensors"}]}, "none.safetensors"),
        ({"output": "theirs"}, "holds files that diffgen did not make"),
    ],
)
def test_doctor_names_what_is_missing_beside_the_model(
    fields: dict[str, Any], words: str, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    make_dataset(tmp_path / "d")
    put(tmp_path / "theirs/notes.txt", "mine")
    recipe = {"dataset": "d/data.yaml", "output": "out", "conditions": ["snow"]}
    assert cli("doctor", put(tmp_path / "r.yaml", json.dumps(recipe))).code == 0
    answer = cli("doctor", put(tmp_path / "r.yaml", json.dumps(recipe | fields)), "--json")
    assert answer.code == 1
    (problem,) = json.loads(answer.out)["problems"]
    assert words in problem


def test_doctor_names_the_networks_that_are_not_here(tmp_path: Path, cli: Callable[..., Any]) -> None:
    controls = [{"kind": "depth", "model": "someone/net", "estimator": "someone/depth"}]
    recipe = write_recipe(
        tmp_path / "r.yaml",
        make_dataset(tmp_path / "d"),
        tmp_path / "out",
        editor=None,
        model="sd15",
        controls=controls,
        clip="someone/clip",
    )
    out = cli("doctor", recipe).out
    assert "ControlNet 'someone/net' is not on this machine; diffgen models pull someone/net" in out
    assert "depth estimator 'someone/depth' is not on this machine" in out
    assert "CLIP model 'someone/clip' is not on this machine" in out
    assert "(controlnet, 20 steps)" in out


def test_pull_offline_is_one_error_with_the_command(cli: Callable[..., Any]) -> None:
    answer = cli("models", "pull", "sd-turbo")
    assert answer.code == 1
    assert "diffgen models pull sd-turbo" in answer.err


def test_pull_of_the_embedded_model_has_nothing_to_do(cli: Callable[..., Any]) -> None:
    assert cli("models", "pull", "pocket").code == 0
