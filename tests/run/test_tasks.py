"""Tasks from the recipe to the label files: what is painted, what stays bit for bit, which rows go and come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffgen.commands.export import export
from diffgen.dataset.labels import parse_labels
from diffgen.recipe.load import load_recipe
from diffgen.run.store.images import read_present
from diffgen.types import Job
from tests.fakes import ROWS, put, tree
from tests.fakes_tasks import (
    BACKGROUND,
    FEATHER,
    INSERT,
    MAGENTA,
    REMOVE,
    Painter,
    again,
    inside,
    made,
    manifest,
    original,
    street,
    work,
)


@pytest.mark.parametrize("kind", ["detect", "segment", "obb", "pose"])
def test_remove_takes_the_object_and_its_row(tmp_path: Path, kind: str) -> None:
    summary, _, _ = work(tmp_path, REMOVE, kind=kind)
    assert (summary.planned, summary.accepted) == (2, 2), "the pictures without a person are not planned"
    pictures = made(tmp_path, REMOVE)
    assert list(pictures) == ["01", "03"]
    for name, (picture, label) in pictures.items():
        assert label == f"{ROWS[kind][0]}\n".encode()
        person = parse_labels(ROWS[kind][1].encode(), 2, (2, 3) if kind == "pose" else None)[0]
        source = original(tmp_path, name)
        far = ~inside(person.box, FEATHER + 1)
        assert np.array_equal(picture[far], source[far]), "what is not painted is the source's own, bit for bit"
        assert (picture[55:65, 115:125] != source[55:65, 115:125]).all()
    assert [row["dropped_rows"] for row in manifest(tmp_path)] == [[1], [1]]
    assert (tmp_path / "out/dataset/labels/train/01.txt").read_text() == "".join(f"{row}\n" for row in ROWS[kind])


def test_remove_without_classes_leaves_an_empty_label_file(tmp_path: Path) -> None:
    everything = {key: value for key, value in REMOVE.items() if key != "classes"}
    summary, _, _ = work(tmp_path, everything)
    assert (summary.planned, summary.accepted) == (4, 4)
    assert {label for _, label in made(tmp_path, everything).values()} == {b""}


def test_background_keeps_the_objects_and_their_labels(tmp_path: Path) -> None:
    street(tmp_path)
    put(tmp_path / "data/labels/train/00.txt", "")
    summary, _, _ = work(tmp_path, BACKGROUND)
    assert (summary.planned, summary.accepted) == (3, 3), "a picture without objects has nothing to keep"
    for name, (picture, label) in made(tmp_path, BACKGROUND).items():
        assert label == (tmp_path / f"data/labels/train/{name}.txt").read_bytes()
        source = original(tmp_path, name)
        objects = [shape.box for shape in parse_labels(label, 2)]
        kept = np.any([inside(box, 0) for box in objects], axis=0)
        near = np.any([inside(box, FEATHER + 1) for box in objects], axis=0)
        assert np.array_equal(picture[kept], source[kept])
        assert np.array_equal(picture[~near], 255 - source[~near]), "beyond the feather nothing of the source is left"
    assert not any("dropped_rows" in row or "added_rows" in row for row in manifest(tmp_path))


@pytest.mark.parametrize(("kind", "columns"), [("detect", 5), ("segment", 9), ("obb", 9)])
def test_insert_adds_a_row_in_the_file_s_own_form(tmp_path: Path, kind: str, columns: int) -> None:
    summary, _, _ = work(tmp_path, INSERT, kind=kind)
    assert summary.accepted == summary.planned >= 2
    for name, (picture, label) in made(tmp_path, INSERT).items():
        before = (tmp_path / f"data/labels/train/{name}.txt").read_bytes()
        assert label.startswith(before), "what was there stays, byte for byte"
        row = label[len(before) :].decode()
        assert row.endswith("\n")
        assert (row.split()[0], len(row.split())) == ("1", columns)
        assert all(len(number.split(".")[1]) == 6 for number in row.split()[1:])
        *others, new = parse_labels(label, 2)
        source, changed = original(tmp_path, name), inside(new.box, FEATHER + 1)
        assert np.array_equal(picture[~changed], source[~changed])
        assert (np.abs(picture[inside(new.box, -1)].astype(int) - MAGENTA).max(-1) < 40).all(), (
            "it is where the label is"
        )
        for other in others:
            assert not (inside(other.box, 0) & changed).any()
    rows = manifest(tmp_path)
    assert all(
        row["added_rows"] == [made(tmp_path, INSERT)[row["source"][-2:]][1].decode().splitlines()[-1]] for row in rows
    )
    assert all(row["facts"]["confirmed"]["iou"] > 0.5 for row in rows)


def test_insert_into_pictures_without_labels(tmp_path: Path) -> None:
    street(tmp_path, "segment")
    (tmp_path / "data/labels/train/00.txt").unlink()
    put(tmp_path / "data/labels/train/02.txt", "")
    work(tmp_path, INSERT, kind="segment")
    for name in ("00", "02"):
        _, label = made(tmp_path, INSERT)[name]
        assert len(label.split()) == 9, "an outline, as everywhere in this dataset"
    export(load_recipe(tmp_path / "out"))
    assert not (tmp_path / "out/dataset/labels/train/00.txt").exists(), "the source has no label file, as before"


def test_sources_of_another_size_than_the_model_s(tmp_path: Path) -> None:
    """The mask is made at the source's own size too, so that scaling there and back touches nothing outside."""
    summary, _, _ = work(tmp_path, REMOVE, resolution={"long_side": 72})
    assert summary.accepted == 2
    for name, (picture, _) in made(tmp_path, REMOVE).items():
        (person,) = parse_labels(ROWS["detect"][1].encode(), 2)
        far = ~inside(person.box, round(FEATHER * 160 / 72) + 1)
        assert np.array_equal(picture[far], original(tmp_path, name)[far])


def test_what_the_detector_still_finds_is_rejected(tmp_path: Path) -> None:
    summary, _, recipe = work(tmp_path, REMOVE, Painter(lazy=True))
    assert summary.rejected == {"still-there": 2}
    assert made(tmp_path, REMOVE) == {}
    assert again(recipe, Painter()).rejected == {"still-there": 2}, "derived from what was recorded"


def test_what_the_detector_does_not_find_is_not_labelled(tmp_path: Path) -> None:
    summary, _, _ = work(tmp_path, INSERT, Painter(lazy=True))
    assert list(summary.rejected) == ["not-confirmed"]
    assert summary.accepted == 0


def test_an_object_hidden_by_one_that_stays_cannot_be_removed(tmp_path: Path) -> None:
    street(tmp_path)
    put(tmp_path / "data/labels/train/01.txt", f"0 0.75 0.6 0.3 0.4\n{ROWS['detect'][1]}\n")
    summary, _, _ = work(tmp_path, REMOVE)
    assert (summary.accepted, summary.rejected) == (1, {"still-there": 1})


def test_a_rejected_task_is_tried_with_another_seed_at_the_same_strength(tmp_path: Path) -> None:
    summary, editor, _ = work(tmp_path, REMOVE, Painter(lazy=True), attempts=3)
    records = read_present(tmp_path / "out", "png").values()
    assert len(set(editor.made)) == len(records) == 6
    assert {record.facts["strength"] for record in records} == {1.0}
    assert summary.rejected == {"still-there": 2}


def test_a_model_that_fails_is_seen_though_the_source_hides_most_of_it(tmp_path: Path) -> None:
    class Black(Painter):
        def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
            return np.zeros_like(image)

    summary, _, _ = work(tmp_path, REMOVE, Black())
    assert summary.rejected == {"degenerate": 2}


@pytest.mark.parametrize("condition", [REMOVE, BACKGROUND, INSERT], ids=lambda c: c["task"])
def test_a_run_that_was_cut_short_ends_in_the_same_bytes(tmp_path: Path, condition: dict[str, Any]) -> None:
    work(tmp_path, condition, name="whole", batch_size=1)
    with pytest.raises(ArithmeticError):
        work(tmp_path, condition, Painter(most=1), name="cut", batch_size=1)
    summary, editor, _ = work(tmp_path, condition, name="cut", batch_size=1)
    assert 0 < len(editor.made) <= summary.planned
    assert tree(tmp_path / "whole/dataset") == tree(tmp_path / "cut/dataset")


def test_the_run_folder_remembers_the_task(tmp_path: Path) -> None:
    work(tmp_path, REMOVE)
    kept = load_recipe(tmp_path / "out").recipe.conditions[0]
    assert (kept.task, kept.classes, kept.strength) == ("remove", ["person"], 1.0)
    assert again(tmp_path / "out", Painter()).made_now == 0
