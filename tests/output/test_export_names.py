"""Names and places as users have them: long, in any script, linked, moved."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from diffgen.dataset.formats.yolo import label_path
from tests.dataset.annotations import BOX, coco
from tests.fakes import ROWS, make, make_dataset, photo, put, recipe_fields, save, tree, write_recipe


def names_of(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir()}


@pytest.mark.parametrize(
    "stem",
    [
        pytest.param("雪の道 – ночь", id="scripts and spaces"),
        pytest.param("a.b.c", id="dots"),
        pytest.param("x" * 250, id="as long as can be"),
        pytest.param("漢" * 83, id="long in bytes"),
        pytest.param("$(rm -rf) #1 & 'q' {objects}", id="shell and braces"),
    ],
)
def test_an_odd_name_is_edited_exported_and_labelled(stem: str, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(1, 1))
    save(tmp_path / f"data/images/train/{stem}.jpg", photo(9))
    put(tmp_path / f"data/labels/train/{stem}.txt", f"{ROWS['detect'][0]}\n")
    summary, _ = make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=["heavy-snow"]))
    assert summary.accepted == 2
    images = tmp_path / "out/dataset/images/train"
    assert stem in names_of(images)
    assert len(names_of(images)) == 4
    for image in images.iterdir():
        assert Path(label_path(str(image))).is_file()


def test_two_long_names_that_differ_at_the_end_stay_two(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(1, 1))
    for i in range(2):
        save(tmp_path / f"data/images/train/{'y' * 249}{i}.jpg", photo(i + 7))
    summary, _ = make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=["night"]))
    assert summary.accepted == 3
    assert len(names_of(tmp_path / "out/dataset/images/train")) == 6


def test_linked_images_labels_and_folders_are_followed(tmp_path: Path) -> None:
    store = make_dataset(tmp_path / "store", counts=(2, 1)).parent
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "labels").mkdir()
    (data / "images/train").symlink_to(store / "images/train")
    (data / "labels/train").symlink_to(store / "labels/train")
    (data / "images/val").mkdir()
    (data / "images/val/v.jpg").symlink_to(store / "images/val/00.jpg")
    (store / "images/train/loop").symlink_to(store / "images")
    put(data / "data.yaml", "train: images/train\nval: images/val\nnames: [car, person]\n")
    summary, _ = make(write_recipe(tmp_path / "r.yaml", data / "data.yaml", tmp_path / "out"))
    assert summary.sources == {"train": 2, "val": 1}
    assert summary.accepted == 4
    assert not (tmp_path / "out/dataset/images/train/00.jpg").is_symlink()


def test_a_moved_run_folder_goes_on_where_it_was(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"))
    before = tree(tmp_path / "out/dataset")
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    summary, editor = make(tmp_path / "elsewhere")
    assert (summary.accepted, editor.made) == (8, [])
    assert tree(tmp_path / "elsewhere/dataset") == before


def test_dataset_and_run_folder_moved_together(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "a/data")
    text = write_recipe(tmp_path / "a/r.yaml", data, tmp_path / "a/out").read_text()
    put(tmp_path / "a/r.yaml", text.replace(str(tmp_path / "a/"), "./").replace(str(tmp_path / "a"), "."))
    make(tmp_path / "a/r.yaml")
    shutil.move(tmp_path / "a", tmp_path / "b")
    summary, editor = make(tmp_path / "b/out")
    assert (summary.accepted, editor.made) == (8, [])


def test_the_manifest_is_readable_whatever_the_name(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(1, 1))
    save(tmp_path / 'data/images/train/"\n".png', photo(3))
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=["night"]))
    rows = [json.loads(line) for line in (tmp_path / "out/dataset/manifest.jsonl").read_text().splitlines()]
    assert {row["source"] for row in rows[1:]} == {"train/00", 'train/"\n"', "val/00"}


def test_a_name_that_is_not_utf_8_is_edited_under_another(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d", counts=(1, 1))
    shutil.copyfile(tmp_path / "d/images/train/00.jpg", os.fsencode(tmp_path / "d/images/train") + b"/\xff.jpg")
    summary, _ = make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=["night"]))
    assert summary.accepted == 2


@pytest.mark.parametrize(
    "names",
    [
        ("00.jpg", "00__night-0.jpg/x.jpg"),
        ("foo.jpg", "foo.txt/x.jpg"),
        ("foo.txt/x.jpg", "foo.jpg"),
        ("a/b.jpg", "A.JPG/b.jpg", "a.jpg"),
        ("00.jpg", "00__night-0.txt/x.jpg", "00__night-0.txt/00__night-0.jpg"),
    ],
)
def test_no_folder_of_a_name_is_the_file_of_another(names: tuple[str, ...], tmp_path: Path) -> None:
    images = [{"id": i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(names)]
    spec = coco(tmp_path, [{**BOX, "image_id": i} for i in range(len(names))], images=images)
    for i, name in enumerate(names):
        save(tmp_path / "images" / name, photo(i + 20))
    fields = recipe_fields(tmp_path, tmp_path / "out", conditions=["night"])
    fields |= {"dataset": spec.model_dump(exclude_none=True)}
    summary, _ = make(put(tmp_path / "r.yaml", yaml.safe_dump(fields)), classes=3)
    assert (summary.planned, summary.accepted) == (len(names), len(names))
    made = [path for path in (tmp_path / "out/dataset/images/train").rglob("*") if path.is_file()]
    assert len(made) == 2 * len(names)
    for image in made:
        assert Path(label_path(str(image))).read_text() == "1 0.200000 0.200000 0.200000 0.200000\n"
