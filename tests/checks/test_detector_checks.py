"""What a detector says of a run's images, from the recipe to the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffgen.checks.detections import Detection, judged_recall
from diffgen.checks.second_look import SecondLook
from diffgen.commands.status import status
from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from diffgen.run.store.images import read_present
from diffgen.run.summary import summary_text
from tests.fakes import FakeEditor, fake_worker, make, make_dataset, put, write_recipe


def looks(night: float, by_day: float = 0.9, by_night: float | None = None) -> Any:
    """A detector that finds one object with a score `by_day`, and another, or none, in a picture darker than `night`."""

    def detect(images: Sequence[np.ndarray]) -> list[list[Detection]]:
        scores = [by_day if image.mean() >= night else by_night for image in images]
        return [[] if score is None else [Detection(0, score, (0.1, 0.1, 0.6, 0.6))] for score in scores]

    return detect


def detected(root: Path, night: float, *scores: float, **checks: Any) -> Any:
    data = make_dataset(root / "data", counts=(3, 1))
    for path in (root / "data/labels/train").iterdir():
        put(path, "0 0.9 0.9 0.1 0.1\n1 0.35 0.35 0.5 0.5\n")
    recipe = write_recipe(root / "r.yaml", data, root / "out", conditions=["night"], checks=checks)
    worker = fake_worker(FakeEditor(), second_look=SecondLook(looks(night, *scores)))
    return run(load_recipe(recipe), make_worker=lambda: worker)


def test_nothing_found_in_the_source_is_nothing_to_lose(tmp_path: Path) -> None:
    summary = detected(tmp_path, night=1000)
    assert summary.accepted == 3


def test_what_it_finds_in_the_brightened_copy_counts(tmp_path: Path) -> None:
    summary = detected(tmp_path, night=90)  # sources are brighter, edits darker
    records = read_present(tmp_path / "out", "jpg").values()
    assert [record.facts["found"] for record in records] == [[False]] * 3
    assert [record.facts["found_matched"] for record in records] == [[True]] * 3
    assert [record.facts["found_rows"] for record in records] == [[1]] * 3
    assert summary.accepted == 3


def test_half_the_confidence_is_found_again_but_is_no_object(tmp_path: Path) -> None:
    detected(tmp_path / "a", 90, 0.3, 0.13)
    records = read_present(tmp_path / "a/out", "jpg").values()
    assert [record.facts["found"] for record in records] == [[True]] * 3
    detected(tmp_path / "b", 90, 0.24, 0.9)
    records = read_present(tmp_path / "b/out", "jpg").values()
    assert [record.facts["found"] for record in records] == [[]] * 3


def test_images_made_before_the_detector_was_named_are_counted(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(3, 1))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=["night"])
    assert make(recipe)[0].unjudged == 0
    put(tmp_path / "clerk.pt", "weights")
    later = status(load_recipe(recipe, ["detector=clerk.pt"]))
    assert (later.accepted, later.unjudged) == (3, 3)
    assert "unjudged  3 made before" in summary_text(later)


def test_thresholds_of_detection() -> None:
    facts = {"found": [True, False, False], "found_matched": [False, True, False], "found_px": [20.0, 50.0, 200.0]}
    assert judged_recall(facts) == pytest.approx(2 / 3)
    assert judged_recall(facts, "large") == 0
    assert judged_recall({}) is None


def test_what_did_not_happen_is_rejected(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(3, 1))
    recipe = write_recipe(
        tmp_path / "r.yaml", data, tmp_path / "out", conditions=["night", "snow"], checks={"effect": 0.1}
    )
    summary, _ = make(recipe)
    assert summary.conditions["night"]["accepted"] == 3
    assert summary.rejected == {"weak-effect": 3}, "it only darkens, and that is no snow"


def test_a_detector_that_is_not_there_is_one_error_before_any_work(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(2, 1))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", detector="yolo11n.pt")
    with pytest.raises(UsageError, match=r"detector: there is no file .*yolo11n\.pt"):
        make(recipe)
    assert not (tmp_path / "out").exists()


def test_a_detector_that_breaks_fails_its_image_only(tmp_path: Path) -> None:
    def detect(images: Any) -> list[list[Detection]]:
        raise RuntimeError("CUDA error: unspecified launch failure")

    data = make_dataset(tmp_path / "data", counts=(2, 1))
    worker = fake_worker(FakeEditor(), second_look=SecondLook(detect))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=["night"])
    summary = run(load_recipe(recipe), make_worker=lambda: worker)
    assert summary.failed == {"transient": 2}
    assert "measuring" in summary.errors[0]
