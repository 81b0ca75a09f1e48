"""What a worker makes of its batches: sources that fail, devices without room, editors with bugs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffgen.checks.structure import luminance
from diffgen.dataset.bars import Bars
from diffgen.editing.editor import EditBatch
from diffgen.errors import DiffgenError, NotFinite
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from diffgen.run.session import Session
from diffgen.run.store import images as run_images
from diffgen.run.store.state import read_state
from diffgen.types import Job
from tests.fakes import FakeEditor, make, make_dataset, photo, put, read_records, save, tree, write_recipe
from tests.run.disturbed import changing, no_worker


def truncated(path: Path) -> None:
    """A picture whose header is whole."""
    path.write_bytes(path.read_bytes()[:-400])


def test_a_picture_that_does_not_decode_is_a_failed_record_and_the_rest_goes_on(recipe: Path, tmp_path: Path) -> None:
    truncated(tmp_path / "data/images/train/01.jpg")
    summary, editor = make(recipe)
    assert (summary.accepted, summary.failed, summary.exit_code) == (6, {"source": 2}, 0)
    assert any("train/01: cannot decode the image" in error for error in summary.errors)
    assert sorted(len(batch) for batch in editor.batches) == [1, 1, 3, 3], "its row is kept as a blank"
    assert run(load_recipe(recipe), make_worker=no_worker).failed == {"source": 2}, "a failure of a source is final"
    assert (tmp_path / "out/dataset/images/train/01.jpg").is_file(), "the source itself is carried over"
    save(tmp_path / "data/images/train/01.jpg", photo(60))
    assert make(recipe)[0].made_now == 2, "a repaired file is a new job"


def test_the_neighbours_of_a_bad_picture_are_judged_and_labelled_as_ever(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    good = read_records(tmp_path / "out")
    truncated(tmp_path / "data/images/train/01.jpg")
    shutil.rmtree(tmp_path / "out")
    make(recipe)
    bad = read_records(tmp_path / "out")
    common = set(good) & set(bad)
    assert len(common) == 6
    assert all(bad[job_id].facts["structure"] for job_id in common)


CHANGES = [
    ("picture", lambda data: save(data / "images/train/01.jpg", photo(61))),
    ("label", lambda data: put(data / "labels/train/01.txt", "1 0.5 0.5 0.1 0.1\n")),
    ("label gone", lambda data: (data / "labels/train/01.txt").unlink()),
]


@pytest.mark.parametrize("change", [c[1] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_a_source_changed_during_the_run_is_made_by_the_next(recipe: Path, tmp_path: Path, change: Any) -> None:
    summary, _ = changing(recipe, lambda: change(tmp_path / "data"))
    records = read_records(tmp_path / "out").values()
    assert sorted(record.kind or "made" for record in records) == ["made"] * 6 + ["transient"] * 2
    assert (summary.accepted, summary.pending) == (6, 2)
    assert not list((tmp_path / "out/dataset/images/train").glob("01__*")), "no image under a label that is not its own"
    again, _ = make(recipe)
    assert (again.made_now, again.accepted) == (2, 8)


def test_a_source_gone_during_the_run_is_left_out(recipe: Path, tmp_path: Path) -> None:
    summary, _ = changing(recipe, (tmp_path / "data/images/train/01.jpg").unlink)
    assert (summary.planned, summary.accepted) == (6, 6)
    assert not list((tmp_path / "out/dataset").rglob("01*.jpg")) or all(
        "val" in str(path) for path in (tmp_path / "out/dataset").rglob("01*.jpg")
    )


@pytest.mark.parametrize("room", [1, 2])
def test_a_batch_that_does_not_fit_is_halved_and_every_image_is_made(recipe: Path, room: int, caplog: Any) -> None:
    summary, editor = make(recipe, FakeEditor(room=room))
    assert summary.accepted == 8
    tried = [len(batch) for batch in editor.batches]
    assert sum(size > room for size in tried) <= 2, "what did not fit is remembered"
    assert f"at most {room} from now on" in caplog.messages[-1]
    assert len(caplog.messages) <= 2


def test_an_image_alone_that_does_not_fit_is_tried_again_by_the_next_run(recipe: Path) -> None:
    summary, _ = make(recipe, FakeEditor(room=0))
    assert (summary.accepted, summary.failed, summary.exit_code) == (0, {"transient": 8}, 1)
    again, _ = make(recipe)
    assert (again.accepted, again.failed, again.exit_code) == (8, {}, 0)


def test_a_bug_in_an_editor_is_a_crash_with_what_was_made_kept(recipe: Path, tmp_path: Path) -> None:
    class Broken(FakeEditor):
        def begin(self, batch: EditBatch) -> None:
            if len(batch.jobs) < 3:
                raise IndexError("a bug")

    with pytest.raises(IndexError):
        make(recipe, Broken())
    assert len(read_records(tmp_path / "out")) == 6
    assert make(recipe)[0].made_now == 2


def test_an_editor_that_returns_another_size_is_a_bug(recipe: Path) -> None:
    class Cropping(FakeEditor):
        def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
            return super().pixels(image, job, mask, company)[:-8]

    with pytest.raises(ValueError, match="expected an image of shape"):
        make(recipe, Cropping())


def test_facts_are_recorded_and_decisions_are_not(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    rows = [json.loads(line) for line in (tmp_path / "out/records-0.jsonl").read_text().splitlines()]
    records = [row for row in rows if "id" in row]
    assert {key for row in records for key in row} == {"id", "status", "facts", "sha256", "seconds", "environment"}
    assert all(row["facts"]["strength"] in (0.6, 0.7) for row in records)
    assert set(read_state(tmp_path / "out")["environments"]) == {row["environment"] for row in records}


class Failing(FakeEditor):
    """The device breaks at some calls."""

    def __init__(self, calls: Sequence[int]) -> None:
        super().__init__()
        self.calls = calls

    def begin(self, batch: EditBatch) -> None:
        if len(self.batches) in self.calls:
            raise RuntimeError("device-side assert")


def test_a_device_that_fails_once_costs_one_batch_which_the_next_run_makes_with_the_same_bytes(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d")
    make(write_recipe(tmp_path / "w.yaml", data, tmp_path / "whole"))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out")
    summary, _ = make(recipe, Failing([2]))
    assert summary.failed["transient"] in (1, 3)  # whichever batch came second to the device
    again, _ = make(recipe)
    assert again.accepted == 8
    assert tree(tmp_path / "out/dataset") == tree(tmp_path / "whole/dataset")


def test_a_device_that_keeps_failing_ends_the_run_with_one_error(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d", counts=(20, 1)), tmp_path / "out")
    editor = Failing(range(2, 99))
    with pytest.raises(DiffgenError, match="device-side assert"):
        make(recipe, editor)
    assert len(editor.batches) <= 7  # one that went well, three that did not, and those already in hand
    assert make(recipe)[0].accepted == 40


class Overflowing(FakeEditor):
    """Its numbers overflow for the pictures at these places of each batch."""

    def __init__(self, places: Sequence[int]) -> None:
        super().__init__()
        self.places = places

    def edit(self, batch: EditBatch) -> list[Any]:
        made: list[Any] = super().edit(batch)
        return [NotFinite("not finite (NaN) in float16") if i in self.places else one for i, one in enumerate(made)]


def test_a_picture_whose_numbers_overflow_is_a_failure_that_says_so(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out")
    summary, _ = make(recipe, Overflowing([1]))
    assert summary.failed["transient"] >= 2
    failed = [record for record in read_records(tmp_path / "out").values() if record.status == "failed"]
    assert all("(NaN) in float16" in str(record.error) for record in failed)
    assert make(recipe)[0].accepted == 8  # tried again, for instance with another number type


def test_a_model_whose_numbers_always_overflow_ends_the_run_with_the_cause(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d", counts=(20, 1)), tmp_path / "out")
    editor = Overflowing(range(99))
    with pytest.raises(DiffgenError, match=r"all of the first \d+ images: .*\(NaN\) in float16") as caught:
        make(recipe, editor)
    assert "change `dtype:`" in str(caught.value.hint)
    assert len(editor.batches) <= 6


def test_a_picture_larger_than_the_format_takes_is_its_own_failure_alone(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d", counts=(2, 1))
    save(
        tmp_path / "d/images/train/wide.png",
        np.zeros((12, 16400, 3), np.uint8) + np.arange(16400, dtype=np.uint8)[None, :, None],
    )
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=["night"], image={"format": "webp"})
    summary, _ = make(recipe)
    assert (summary.accepted, summary.failed) == (2, {"source": 1})


@pytest.mark.parametrize("mode", ["fit", "tile"])
def test_one_source_that_the_device_fails_at_does_not_end_the_run(mode: str, tmp_path: Path) -> None:
    @dataclass
    class Failing(FakeEditor):
        def begin(self, batch: EditBatch) -> None:
            if batch.jobs[0].source == bad:
                raise RuntimeError("device-side assert")

    data = make_dataset(tmp_path / "data", counts=(6, 1), size=(200, 150))
    recipe = write_recipe(
        tmp_path / "r.yaml", data, tmp_path / "out", batch_size=1, conditions=["night"],
        resolution={"mode": mode, "long_side": 64},
    )  # fmt: skip
    editor = FakeEditor()
    bad = ""
    make(recipe, editor, limit=1)
    bad = Session.open(load_recipe(recipe)).plan.items[2].job.source
    summary, _ = make(recipe, Failing())
    assert summary.accepted == 5
    assert summary.failed == {"transient": 1}


def test_a_small_change_is_held_against_what_the_autoencoder_does_alone(tmp_path: Path) -> None:
    """Once a source, however many conditions it has; a large change needs no such measure."""

    class Coarse(FakeEditor):
        trips = 0

        def round_trip(self, image: np.ndarray) -> np.ndarray:
            self.trips += 1
            return image // 16 * 16 + 8

        def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
            return self.round_trip(image) - 2.0 if job.settings.condition != "dark" else image * 0.5

    data = make_dataset(tmp_path / "data", counts=(2, 1))
    names = ["mine", "yours", "dark"]
    conditions = [{"name": name, "prompt": name, "strength": 1} for name in names]
    editor = Coarse()
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=conditions)
    summary, _ = make(recipe, editor)
    assert {name: summary.conditions[name]["accepted"] for name in names} == {"mine": 0, "yours": 0, "dark": 2}
    assert summary.rejected == {"unchanged": 4}
    assert editor.trips == 4 + 2, "one of each edit, and one to measure each source"
    assert make(recipe, sets=["checks.change=null"])[0].accepted == 6


def test_bars_stay_as_they_are_and_are_not_measured(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(1, 1), size=(64, 48))
    path = tmp_path / "data/images/train/00.jpg"
    inner = np.clip(photo(3, (64, 32)), 90, 255)
    bars = Bars(top=10, bottom=6)
    whole = np.pad(inner, ((10, 6), (0, 0), (0, 0)))
    path.unlink()
    save(path.with_suffix(".png"), whole)
    fields = {"conditions": ["night"], "image": {"format": "png"}}
    summary, _ = make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", **fields))
    assert summary.planned == 1
    (image,) = (tmp_path / "out/images").glob("*/*.png")
    made = np.asarray(Image.open(image))
    assert (made[:10] == 0).all()
    assert (made[-6:] == 0).all()
    (record,) = run_images.read_records(tmp_path / "out", "png").values()
    before, after = (record.facts[key][0] for key in ("before", "after"))
    assert before == pytest.approx(luminance(inner).mean(), abs=0.01), "the bars are not in the mean"
    assert after == pytest.approx(luminance(bars.inner(made)).mean(), abs=0.01)
