"""What a second review found: attempts, tiles, detectors and lost objects at their edges."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from diffgen import forked as forks
from diffgen.checks import judge, measure
from diffgen.detect import Box
from diffgen.recipe import Checks, load_recipe
from diffgen.run import prepare, run, status
from diffgen.starter import _quoted
from diffgen.types import Job, Record
from tests.fakes import MODEL, Asked, FakeEditor, fake_worker, make, make_dataset, photo, put, write_recipe
from tests.plan.test_attempts import Melting

DROP = Checks(on_object_lost="drop_label")


@pytest.mark.parametrize(
    ("structure", "sides", "whole"),
    [([-0.1, 0.0, 0.05, 0.1], [90, 80, 70, 5], 0.0), ([0.1], [5], -0.1), ([None], [50], -0.1)],
)
def test_dropping_labels_saves_no_picture_that_is_lost_as_a_whole(
    structure: list[float | None], sides: list[float], whole: float
) -> None:
    facts = {**measure(photo(1), photo(1), []), "structure": structure, "sides_px": sides, "structure_image": whole}
    assert judge(Record("x", "made", facts), Checks()).reason == "structure"
    assert judge(Record("x", "made", facts), DROP).reason == "structure"


def test_a_signal_at_the_end_of_a_round_is_not_forgotten(tmp_path: Path) -> None:
    @dataclass
    class Interrupted(Melting):
        def begin(self, asked: Asked) -> None:
            if len(self.batches) == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
            return np.random.default_rng(job.seed).integers(0, 255, image.shape)

    data = make_dataset(tmp_path / "data", counts=(6, 1))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", attempts=3, conditions=["night"])
    summary, _ = make(recipe, Interrupted())
    assert (summary.stopped, summary.exit_code, summary.pending) == ("SIGTERM", 143, 6)
    assert not (tmp_path / "out/dataset").exists()


@pytest.mark.parametrize("mode", ["fit", "tile"])
def test_one_source_that_the_device_fails_at_does_not_end_the_run(mode: str, tmp_path: Path) -> None:
    @dataclass
    class Failing(FakeEditor):
        def begin(self, asked: Asked) -> None:
            if asked.jobs[0].source == bad:
                raise RuntimeError("device-side assert")

    data = make_dataset(tmp_path / "data", counts=(6, 1), size=(200, 150))
    recipe = write_recipe(
        tmp_path / "r.yaml", data, tmp_path / "out", batch_size=1, conditions=["night"],
        resolution={"mode": mode, "long_side": 64},
    )  # fmt: skip
    editor = FakeEditor()
    bad = ""
    make(recipe, editor, limit=1)
    bad = prepare(load_recipe(recipe)).plan.items[2].job.source
    summary, _ = make(recipe, Failing())
    assert summary.accepted == 5
    assert summary.failed == {"transient": 1}


def test_a_detector_that_breaks_fails_its_image_only(tmp_path: Path) -> None:
    def detect(images: Any) -> list[list[Box]]:
        raise RuntimeError("CUDA error: unspecified launch failure")

    data = make_dataset(tmp_path / "data", counts=(2, 1))
    worker = fake_worker(FakeEditor())
    worker._detector = detect
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=["night"])
    summary = run(load_recipe(recipe), make_worker=lambda: worker)
    assert summary.failed == {"transient": 2}
    assert "measuring" in summary.errors[0]


@pytest.mark.parametrize("name", ["caf\udce9", "a\x7fb", "a\x85b", "tab\tand\nline", "plain"])
def test_odd_folder_names_are_read_back_from_the_recipe(name: str) -> None:
    assert yaml.safe_load(_quoted(name)) == name
    _quoted(name).encode()


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


def test_plan_counts_the_attempts_that_are_due(tmp_path: Path, cli: Callable[..., Any]) -> None:
    data = make_dataset(tmp_path / "data", counts=(8, 1))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", attempts=1, conditions=["night"])
    make(recipe, Melting())
    facts = json.loads(cli("plan", recipe, "--json", "--set", "attempts=3").out)
    waiting = status(load_recipe(recipe, ["attempts=3"])).pending
    assert facts["to_make"] == waiting > 0


def test_nothing_to_restore_is_not_restored(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(3, 1))
    for path in (tmp_path / "data/labels/train").iterdir():
        path.unlink()
    checks = {"on_object_lost": "restore", "structure": 0.999}
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", attempts=2, conditions=["night"], checks=checks)
    make(recipe, Melting())
    strengths = {row["facts"]["strength"] for row in records(tmp_path / "out")}
    assert strengths == {0.7, 0.525}


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "records.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if '"commit"' not in line]


def test_where_nothing_happened_less_strength_is_not_tried(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(3, 1))
    checks = {"happened": 1.9}
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", attempts=3, conditions=["night"], checks=checks)
    summary, editor = make(recipe)
    assert summary.rejected == {"unchanged": 3}
    assert len(editor.made) == 3


def test_no_more_processes_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refused)
    assert list(forks.forked(lambda i: i, range(10))) == []


def test_json_before_the_name_counts_too(cli: Callable[..., Any]) -> None:
    assert json.loads(cli("models", "--json", "pocket").out)["name"] == "pocket"


def test_a_home_that_is_not_there_is_a_missing_file(tmp_path: Path, cli: Callable[..., Any]) -> None:
    data = make_dataset(tmp_path / "data")
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", detector="~nosuchuser/x.pt")
    answer = cli("plan", recipe)
    assert answer.code == 2
    assert "there is no file" in answer.err
