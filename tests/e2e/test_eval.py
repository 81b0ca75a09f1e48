"""`diffgen eval` and `stress` as users call them, with Ultralytics itself: a few steps of a tiny network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diffgen.checks.detectors.ultralytics import process_state_restored
from diffgen.commands.stress.stress import StressRequest, stress
from diffgen.recipe.load import load_recipe
from tests.checks.test_ultralytics import saved
from tests.commands.eval.fakes_eval import a_run, a_test
from tests.fakes import FakeEditor, fake_worker, make_dataset, write_recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "settings"))
    return saved(tmp_path / "tiny.pt", "yolo26n.yaml")


def call(*arguments: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "diffgen", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT.parent)


@pytest.mark.timeout(600)
def test_two_arms_of_one_seed(tmp_path: Path, weights: Path) -> None:
    run = a_run(tmp_path)
    test = a_test(tmp_path / "night", count=3)
    options = ["--model", weights, "--test", f"night={test}", "--seeds", 1, "--arms", "real,checked", "--device", "cpu"]
    options += ["--train-args", "epochs=1 imgsz=64 batch=6 workers=0"]
    planned = call("eval", run, *options, "--plan", "--json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["trainings"] == 2
    assert json.loads(planned.stdout)["steps"] == 2
    stopped = call("eval", run, *options, "--max-minutes", 0)
    assert stopped.returncode == 4, stopped.stderr
    done = call("eval", run, *options, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["left"], facts["seeds_done"], facts["verdict"]) == (0, 1, "not shown")
    assert call("eval", run, *options, "--require", "shown").returncode == 2, "one seed can never show anything"
    arms = facts["tests"]["night"]["arms"]
    assert set(arms) == {"zero-shot", "real", "checked"}
    assert arms["real"]["ultralytics_ap50"] is not None
    for place in (tmp_path / "out-eval/trainings").iterdir():
        job = json.loads((place / "job.json").read_text())
        assert (place / "last.pt").is_file() == ("data" in job), "the weights as given are not trained"
    page = (tmp_path / "out-eval/report.html").read_text("utf-8")
    assert "1 seeds can show nothing" in page
    again = call("eval", run, *options)
    assert again.returncode == 0
    assert "trainings," not in again.stderr, "nothing is done again"
    assert "checked − real" in again.stdout


@pytest.mark.slow
def test_the_second_stage_is_trained_from_the_first(tmp_path: Path, weights: Path) -> None:
    run = a_run(tmp_path)
    options = ["--model", weights, "--test", f"night={a_test(tmp_path / 'night', count=3)}", "--seeds", 1]
    options += ["--arms", "real", "--schedule", "mix,pretrain-finetune", "--device", "cpu"]
    options += ["--train-args", "epochs=1 imgsz=64 batch=6 workers=0"]
    done = call("eval", run, *options, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["left"], facts["steps"]) == (0, 2)
    assert {stage: row["steps"] for stage, row in facts["stages"].items()} == {"made": 1, "real": 1}
    assert set(facts["tests"]["night"]["arms"]) == {"zero-shot", "real", "pretrain-finetune"}
    (first,) = (tmp_path / "out-eval/trainings").glob("*/stage-1.pt")
    trained = {path.stem: arguments_of(path) for path in (first, first.with_name("last.pt"))}
    assert trained["stage-1"]["model"] == str(weights)
    assert trained["last"]["model"] == str(first)
    assert [Path(one["data"]).parent.name.rsplit("-", 1)[0] for one in trained.values()] == ["stage-made", "stage-real"]
    same = {key for key in trained["last"] if key not in ("model", "data", "project", "save_dir", "name")}
    assert {key: trained["last"][key] for key in same} == {key: trained["stage-1"][key] for key in same}


def arguments_of(checkpoint: Path) -> dict[str, str]:
    import torch

    return dict(torch.load(checkpoint, map_location="cpu", weights_only=False)["train_args"])


@pytest.mark.timeout(300)
def test_a_detector_looks_at_what_stress_made(tmp_path: Path, weights: Path) -> None:
    with process_state_restored():
        from ultralytics import YOLO

        known = YOLO(weights)
        known.model.names = {i: {0: "person", 2: "car"}.get(i, f"other {i}") for i in range(80)}
        known.save(weights)
    make_dataset(tmp_path / "data", counts=(2, 3), size=(160, 120))
    recipe = write_recipe(tmp_path / "r.yaml", tmp_path / "data/data.yaml", tmp_path / "out", conditions=["night"])
    request = StressRequest(load_recipe(recipe), weights, severities=(0.5, 1.0), size=64)
    facts = stress(request, make_worker=lambda: fake_worker(FakeEditor()))
    assert [cell["severity"] for cell in facts["cells"]] == [0.5, 1.0, 0.0]
    assert set(facts["classes"].values()) == {"car", "person"}, "by their names"
    assert (tmp_path / "out-stress/report.html").is_file()
