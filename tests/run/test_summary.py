"""What a run says at its end, and `status` after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.commands.export import export
from diffgen.commands.status import status
from diffgen.recipe.load import load_recipe
from diffgen.run.summary import Summary, summary_text
from tests.fakes import make, make_dataset, put, write_recipe


def test_the_text_of_a_summary(recipe: Path, tmp_path: Path) -> None:
    image = tmp_path / "data/images/train/01.jpg"
    image.write_bytes(image.read_bytes()[:-400])
    put(tmp_path / "data/labels/val/00.txt", "9 0.5 0.5 0.1 0.1\n")
    make(recipe, sets=["conditions.fog.checks={contrast: 1}", "require.accepted=0.9"])
    text = summary_text(status(load_recipe(tmp_path / "out")))
    assert text.splitlines()[:3] == [
        f"3 of 8 images accepted (38%)  {tmp_path}/out",
        "  night          3/4",
        "  fog            0/4",
    ]
    assert "rejected  degenerate 3" in text
    assert "failed    source 2" in text
    assert "train/01: cannot decode the image" in text
    assert "unedited  1 class-id, copied unchanged\n          val/00: row 1: class id 9" in text
    assert "below the required share of 90% (require.accepted)" in text
    assert "yolo train" not in text
    make(recipe, sets=["conditions.fog.checks={contrast: 1}"])
    command = f"train     yolo train data={tmp_path}/out/dataset/data.yaml model=yolo26n.pt"
    assert summary_text(status(load_recipe(tmp_path / "out"))).splitlines()[-1] == command


def test_an_export_of_a_part_says_why_it_is_not_enough(recipe: Path, tmp_path: Path) -> None:
    make(recipe, sets=["require.accepted=0.7"], limit=1)
    (tmp_path / "out/run.json").write_text(
        (tmp_path / "out/run.json").read_text().replace('"limit": 1', '"limit": null')
    )
    summary = export(load_recipe(tmp_path / "out"))
    assert (summary.accepted, summary.pending, summary.export_code) == (2, 6, 3)
    text = summary_text(summary)
    assert text.startswith("2 of 8 images accepted (25%), 6 not made yet  ")
    assert "below the required share of 70% so far" in text
    assert "yolo train" not in text


def test_train_without_an_object_is_not_one_to_train_on(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    for label in (tmp_path / "data/labels/train").iterdir():
        label.write_text("")
    summary, _ = make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"))
    assert (summary.accepted, summary.exit_code) == (8, 1)
    assert "no picture of train has a labelled object" in summary_text(summary)
    assert "yolo train" not in summary_text(summary)


def test_status_does_not_offer_a_dataset_that_is_not_of_these_images(recipe: Path, tmp_path: Path) -> None:
    def last() -> str:
        return summary_text(status(load_recipe(tmp_path / "out"))).splitlines()[-1]

    make(recipe, export=False)
    assert last().startswith("dataset   none yet")
    make(recipe)
    assert last().startswith("train ")
    make(recipe, sets=["conditions=[night, fog, snow]"], export=False)
    assert last().startswith("dataset   older than the images")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("detect", "train data"),
        ("segment", "segment train data"),
        ("pose", "pose train data"),
        ("obb", "obb train data"),
    ],
)
def test_it_trains_what_the_labels_are_for(kind: str, words: str, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", kind=kind)
    keypoints = (2, 3) if kind == "pose" else None
    summary, _ = make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"), keypoints=keypoints)
    assert f"yolo {words}=" in summary_text(summary)


def test_an_unfinished_run_says_how_to_go_on_and_does_not_offer_training(recipe: Path, tmp_path: Path) -> None:
    summary, _ = make(recipe, max_minutes=0)
    text = summary_text(summary)
    assert "pending   8; run the same 'diffgen run' again to make them" in text
    assert "yolo train" not in text
    assert yaml.safe_load((tmp_path / "out/recipe.yaml").read_text())["output"] == "."


def summary(**fields: Any) -> Summary:
    given = {
        "output": "o", "planned": 10, "accepted": 8, "rejected": {"structure": 2}, "failed": {}, "pending": 0,
        "conditions": {}, "sources": {}, "not_edited": {},
    }  # fmt: skip
    return Summary(**{**given, **fields})


CODES = [
    ("done", {}, 0),
    ("done, with failures, require holds", {"failed": {"source": 1}, "rejected": {"structure": 1}, "require": 0.8}, 0),
    ("at the required share", {"require": 0.8}, 0),
    ("below require", {"require": 0.81}, 3),
    ("all rejected, none required", {"accepted": 0, "rejected": {"structure": 10}}, 1),
    ("all rejected, some required", {"accepted": 0, "rejected": {"structure": 10}, "require": 0.1}, 3),
    ("all failed", {"accepted": 0, "rejected": {}, "failed": {"transient": 10}}, 1),
    ("nothing planned", {"planned": 0, "accepted": 0, "rejected": {}}, 1),
    ("out of time", {"stopped": "max-minutes"}, 4),
    ("out of time comes before require", {"stopped": "max-minutes", "require": 1.0}, 4),
    ("changed during the run, so to be run again", {"pending": 2, "rejected": {}, "require": 1.0}, 4),
    ("interrupted", {"stopped": "SIGINT"}, 130),
    ("terminated", {"stopped": "SIGTERM", "accepted": 0, "rejected": {}}, 143),
]


@pytest.mark.parametrize(("fields", "code"), [c[1:] for c in CODES], ids=[c[0] for c in CODES])
def test_exit_codes(fields: dict[str, Any], code: int) -> None:
    assert summary(**fields).exit_code == code
    assert summary(**fields).to_dict()["exit_code"] == code


def test_a_limited_dataset_says_so(recipe: Path, tmp_path: Path) -> None:
    summary, _ = make(recipe, limit=1)
    for told in (summary, status(load_recipe(recipe))):
        assert told.to_dict()["limit"] == 1
        assert "limited   --limit 1: the dataset holds at most 1 sources" in summary_text(told)
    assert "limited   " not in summary_text(make(recipe)[0])


def test_a_run_says_what_it_undoes(recipe: Path, tmp_path: Path) -> None:
    said: list[str] = []
    make(recipe, notify=said.append)
    make(recipe, notify=said.append)
    assert not any("since the last run" in line for line in said)
    export(load_recipe(tmp_path / "out", ["checks.contrast=1"]))
    make(recipe, notify=said.append)
    assert said[-1] == "changed since the last run or export: checks; this recipe now applies"
