"""Runs without a dataset: from classes and templates to a dataset that a detector labelled. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.commands.export import export
from diffgen.commands.preview import preview
from diffgen.commands.reproduce import reproduce
from diffgen.commands.status import status
from diffgen.commands.sweeps import PreviewRequest
from diffgen.commands.trajectory import preview_trajectory
from diffgen.editing.editor import EditBatch
from diffgen.output.contact_sheet import run_sheet
from diffgen.recipe.load import load_recipe
from diffgen.run.session import Session, open_run
from tests.fakes import put, tree
from tests.fakes_text2img import Painter, make, manifest, worker, write


def test_a_rejected_picture_is_made_again_from_other_noise(tmp_path: Path) -> None:
    summary, painter = make(write(tmp_path, attempts=3), found=lambda images: [[] for _ in images])
    assert summary.rejected == {"unlabelled": 12}
    assert summary.accepted == 0
    assert (summary.empty, summary.exit_code) == (["train"], 1)
    assert len({job.seed for job in painter.jobs}) == 36
    assert {job.settings.strength for job in painter.jobs} == {1.0}


def test_from_a_recipe_to_a_dataset(tmp_path: Path) -> None:
    summary, painter = make(write(tmp_path, text2img={"width": 100, "height": 70}))
    out = tmp_path / "out"
    # Only cars are found, so what was to show a person is not taken.
    assert (summary.accepted, summary.rejected, summary.exit_code) == (6, {"unlabelled": 6}, 0)
    assert painter.sizes == {(72, 104, 3)}  # the model's multiple of 8, cut to what was asked for
    data = yaml.safe_load((out / "dataset/data.yaml").read_text())
    assert data == {"train": "images/train", "val": "images/train", "names": {0: "car", 1: "person"}}
    assert "val is the train split" in (out / "dataset/data.yaml").read_text()
    rows = manifest(out)
    assert len(rows) == 6
    assert sum(row["review"] for row in rows) == summary.to_review
    detector = Session.open(load_recipe(out)).model.observers.detector
    assert detector is not None
    identity = detector.identity
    assert identity.startswith("detector.pt@sha256:")
    for row in rows:
        name = row["image"].rpartition("/")[2].removesuffix(".png")
        label = (out / f"dataset/labels/train/{name}.txt").read_text().splitlines()
        assert label[0] == "0 0.700000 0.750000 0.400000 0.500000"
        assert row["confidences"] == [0.9, 0.5][: len(label)]
        assert (row["label_origin"], row["label_detector"]) == ("detector", identity)
        assert row["review"] == (len(label) == 2)
        assert not {"structure", "shift_px", "after", "found"} & row["facts"].keys()  # absent, not made up
        assert row["facts"]["contrast"] > 0.1
    assert 0 < summary.to_review < 6


def test_confidence_is_decided_again_without_the_device(tmp_path: Path) -> None:
    path = write(tmp_path)
    first, _ = make(path)
    out = tmp_path / "out"
    lines = lambda: sum(len(file.read_text().splitlines()) for file in (out / "dataset/labels").rglob("*.txt"))  # noqa: E731
    before = lines()
    more = export(load_recipe(out, ["checks.confidence=0.1"]))
    assert more.accepted > first.accepted
    assert lines() > before
    fewer = export(load_recipe(out, ["checks.confidence=0.6"]))
    assert fewer.to_review == 0
    assert lines() < before
    assert export(load_recipe(out, ["checks.review_below=1.0"])).to_review == first.accepted
    export(load_recipe(out, ["checks.confidence=0.35", "checks.review_below=0.6"]))
    assert lines() == before
    again, painter = make(path)
    assert again.made_now == 0
    assert not painter.jobs


def test_a_persons_decision_counts_and_ends_the_review(tmp_path: Path) -> None:
    first, _ = make(write(tmp_path))
    out = tmp_path / "out"
    weak = [row["job"] for row in manifest(out) if row["review"]]
    decisions = put(tmp_path / "review.yaml", f"{weak[0]}: reject\n{weak[1]}: keep\n")
    second = export(load_recipe(out), decisions)
    assert second.rejected["review"] == 1
    assert second.accepted == first.accepted - 1
    assert second.to_review == first.to_review - 2
    kept = next(row for row in manifest(out) if row["job"] == weak[1])
    assert kept["confidences"] == [0.9, 0.5]
    assert not kept["review"]


def test_an_interrupted_run_comes_out_the_same(tmp_path: Path) -> None:
    whole, broken = write(tmp_path / "a"), write(tmp_path / "b")
    make(whole)
    last = Session.open(load_recipe(broken)).plan.items[-1].job

    class Stops(Painter):
        def begin(self, batch: EditBatch) -> None:
            if last in batch.jobs:  # not "the third call": batches reach the device in any order
                raise KeyboardInterrupt
            super().begin(batch)

    with pytest.raises(KeyboardInterrupt):
        make(broken, Stops())
    assert len(tree(tmp_path / "b/out/images")) == 8
    summary, painter = make(broken)
    assert summary.made_now == len(painter.jobs) == 4
    one, two = (tree(tmp_path / name / "out") for name in "ab")
    for part in ("images/", "dataset/"):
        assert {k: v for k, v in one.items() if k.startswith(part)} == {
            k: v for k, v in two.items() if k.startswith(part)
        }


def test_a_share_of_it_becomes_val_where_that_is_asked_for(tmp_path: Path) -> None:
    summary, _ = make(write(tmp_path, text2img={"classes": ["car"], "images": 8}, val_from_train=0.3))
    data = yaml.safe_load((tmp_path / "out/dataset/data.yaml").read_text())
    assert data["val"] == "images/val"
    counts = {split: len(list((tmp_path / f"out/dataset/images/{split}").iterdir())) for split in ("train", "val")}
    assert counts["val"] >= 2
    assert counts["train"] > counts["val"]
    assert sum(counts.values()) == summary.accepted == 16


def test_every_command_knows_such_a_run(tmp_path: Path, cli: Any) -> None:
    path = write(tmp_path)
    answer = cli("plan", path)
    assert answer.code == 0
    assert "dataset   none: images come from text, labelled by detector.pt, so labels are less reliable" in answer.out
    assert "without label file" not in answer.out
    facts = json.loads(cli("plan", path, "--json").out)
    assert facts["images"] == 12
    assert facts["sources"] == {}
    assert facts["leakage"]["identical"]["count"] == 0
    seen = preview(load_recipe(path), PreviewRequest(2, (), ()), make_worker=lambda: worker(Painter()))
    assert seen.path is not None
    assert seen.path.is_file()
    assert seen.exit_code == 0
    summary, _ = make(path)
    out = tmp_path / "out"
    assert status(load_recipe(out)).to_dict()["to_review"] == summary.to_review
    assert f"review    {summary.to_review} with low-confidence labels" in cli("status", out).out
    assert json.loads(cli("clean", out, "--json").out)["images"] == 0
    row = manifest(out)[0]
    again = reproduce(load_recipe(out), row["job"][:8], make_worker=lambda: worker(Painter()))
    assert again.identical
    assert preview_trajectory(load_recipe(path), PreviewRequest(1), make_editor=Painter).is_file()
    assert run_sheet(open_run(out)).width > 400


def test_the_report_shows_what_was_found_and_what_to_review(tmp_path: Path) -> None:
    summary, _ = make(write(tmp_path))
    page = (tmp_path / "out/report.html").read_text()
    data = json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    assert len(data["weak"]) == summary.to_review
    assert set(map(str, data["weak"])) <= data["added"].keys()
    assert data["sources"]["file"] == [""] * 6
    assert f"<b>{summary.to_review}</b> to be reviewed" in page
    rows = sum(len(row["confidences"]) for row in manifest(tmp_path / "out"))
    assert f"<td>0 → {rows}</td>" in page  # of the accepted pictures, all of them cars
