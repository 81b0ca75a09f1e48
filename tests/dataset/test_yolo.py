"""A data.yaml in every form, and the rules for paths and label files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.dataset.formats.yolo import label_path
from diffgen.errors import UsageError
from tests.dataset.reading import described, keys_of, put_photo, read, refusal
from tests.fakes import ROWS, make, make_dataset, photo, put, save, write_recipe


@pytest.mark.parametrize("kind", sorted(ROWS))
def test_every_kind_of_row(tmp_path: Path, kind: str) -> None:
    data = read(make_dataset(tmp_path, kind=kind))
    assert [s.problem for s in data.sources] == [None] * 6
    assert sum(n for s in data.sources for _, n in s.counts) == 9
    assert data.extra == ({"kpt_shape": [2, 3], "flip_idx": [1, 0]} if kind == "pose" else {})


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({"names": ["a", "b"]}, ("a", "b")),
        ({"names": {0: "a", 1: "b"}}, ("a", "b")),
        ({"names": {1: "b", 0: "a"}}, ("a", "b")),
        ({"names": {0: "a", 3: "d"}}, ("a", "unused1", "unused2", "d")),
        ({"names": {"0": "a", "1": "b"}}, ("a", "b")),
        ({"names": [1, 2]}, ("1", "2")),
        ({"names": None, "nc": 2}, ("class_0", "class_1")),
        ({"names": ["a", "b"], "nc": 2}, ("a", "b")),
        ({"names": ["a", "b"], "nc": "2"}, ("a", "b")),
    ],
)
def test_names(tmp_path: Path, keys: dict[str, Any], names: tuple[str, ...]) -> None:
    assert read(make_dataset(tmp_path, **keys)).names == names


@pytest.mark.parametrize(
    "keys",
    [
        {"names": None}, {"names": []}, {"names": {}}, {"names": "car"}, {"names": {"car": 0}}, {"names": {-1: "a"}},
        {"names": {10**6: "a"}}, {"names": None, "nc": 0}, {"names": None, "nc": 10**9},
        {"nc": 5}, {"nc": "many"}, {"nc": [2]}, {"nc": 10**400},
        {"kpt_shape": 17}, {"kpt_shape": [0, 3]}, {"kpt_shape": [2, 4]}, {"kpt_shape": ["a", 3]},
    ],
    ids=str,
)  # fmt: skip
def test_names_and_shapes_that_mean_nothing_are_refused(tmp_path: Path, keys: dict[str, Any]) -> None:
    refusal(make_dataset(tmp_path, **keys))


def test_half_a_character_in_a_class_name_is_refused(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", names=["car", "half \ud800"])
    error = refusal(data)
    assert str(data) in error.message
    assert r"'half \ud800' is not valid Unicode" in error.message


def test_other_keys_are_handed_on_and_ours_are_not(tmp_path: Path) -> None:
    data = read(make_dataset(tmp_path, channels=3, license="x", download="rm -rf /", minival="m", masks_dir="m", nc=2))
    assert data.extra == {"channels": 3, "license": "x"}


def test_path_absolute(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    path = described(tmp_path / "elsewhere", path=str(tmp_path / "data"), train="images/train", val="images/val")
    assert len(read(path).sources) == 6


def test_path_relative_to_the_file(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    path = described(tmp_path / "yamls", path="../data", train="images/train", val="images/val")
    assert len(read(path).sources) == 6


def test_path_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset(tmp_path / "work/street")
    monkeypatch.chdir(tmp_path / "work")
    path = described(tmp_path / "yamls", path="street", train="images/train", val="images/val")
    assert len(read(path).sources) == 6


def test_path_relative_to_the_datasets_folder_of_ultralytics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset(tmp_path / "datasets/street")
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "config"))
    put(tmp_path / "config/settings.json", json.dumps({"datasets_dir": str(tmp_path / "datasets")}))
    path = described(tmp_path / "yamls", path="street", train="images/train", val="images/val")
    assert len(read(path).sources) == 6


def test_two_different_folders_that_could_be_meant_are_refused_naming_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path / "work/street")
    make_dataset(tmp_path / "yamls/street")
    monkeypatch.chdir(tmp_path / "work")
    error = refusal(described(tmp_path / "yamls", path="street", train="images/train", val="images/val"))
    assert str(tmp_path / "work/street") in error.message
    assert str(tmp_path / "yamls/street") in error.message


def test_a_folder_without_the_splits_cannot_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`path: .` is written often, and the working directory is always there."""
    data = make_dataset(tmp_path / "data", path=".")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(read(data).sources) == 6


def test_one_folder_reached_in_two_ways_is_not_ambiguous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_dataset(tmp_path / "street")
    monkeypatch.chdir(tmp_path)
    assert len(read(described(tmp_path, path="street", train="images/train", val="images/val")).sources) == 6


def test_an_export_that_points_one_folder_too_high(tmp_path: Path) -> None:
    """Roboflow writes `train: ../train/images` beside train/."""
    save(tmp_path / "train/images/a.jpg", photo(1))
    put(tmp_path / "train/labels/a.txt", "0 0.5 0.5 0.2 0.2\n")
    save(tmp_path / "valid/images/b.jpg", photo(2))
    data = read(described(tmp_path, train="../train/images", val="../valid/images"))
    assert keys_of(data) == ["train/a", "val/b"]
    assert data.sources[0].counts == ((0, 1),)


@pytest.mark.parametrize("form", ["list of folders", "txt list", "txt list with ./", "list of txt"])
def test_every_form_of_a_split(tmp_path: Path, form: str) -> None:
    for i, folder in enumerate(("a", "b")):
        put_photo(tmp_path, f"{folder}/{i}.jpg", seed=i)
    absolute = "".join(f"{tmp_path}/images/{name}\n" for name in ("a/0.jpg", "b/1.jpg"))
    put(tmp_path / "all.txt", absolute)
    put(tmp_path / "dots.txt", "./images/a/0.jpg\n\n./images/b/1.jpg\n./notes.md\n")
    put(tmp_path / "first.txt", f"{tmp_path}/images/a/0.jpg\n")
    put(tmp_path / "second.txt", f"{tmp_path}/images/b/1.jpg\n")
    train: Any = {
        "list of folders": ["images/a", "images/b"], "txt list": "all.txt", "txt list with ./": "dots.txt",
        "list of txt": ["first.txt", "second.txt"],
    }[form]  # fmt: skip
    data = read(described(tmp_path, train=train, val="images/a"))
    train_sources = data.split("train")
    assert [Path(s.path).name for s in train_sources] == ["0.jpg", "1.jpg"]
    assert [s.counts for s in train_sources] == [((0, 1),)] * 2


def test_a_split_that_is_named_but_not_there_is_refused(tmp_path: Path) -> None:
    assert "images/nowhere" in refusal(make_dataset(tmp_path, val="images/nowhere")).message


@pytest.mark.parametrize("test", ["../test/images", "images/empty", "test-dev2017.txt"])
def test_a_test_split_that_is_not_there_is_left_out(test: str, tmp_path: Path) -> None:
    (tmp_path / "images/empty").mkdir(parents=True)
    data = read(make_dataset(tmp_path, test=test))
    assert data.splits == ["train", "val"]
    assert "test:" in data.notes["test"][0]


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images/empty").mkdir(parents=True)
    assert "no images" in refusal(make_dataset(tmp_path, val="images/empty")).message


@pytest.mark.parametrize("keys", [{"train": 7}, {"train": [7]}, {"train": None, "val": None}, {"path": 3}], ids=str)
def test_splits_of_a_wrong_kind_are_refused(tmp_path: Path, keys: dict[str, Any]) -> None:
    refusal(make_dataset(tmp_path, **keys))


@pytest.mark.parametrize(
    "text", ["", "- a", "a: [", "\x00", "a: " + "[" * 500, "!!python/object:x {}"], ids=lambda t: repr(t[:9])
)
def test_what_is_no_data_yaml_is_refused(tmp_path: Path, text: str) -> None:
    refusal(put(tmp_path / "data.yaml", text))


def test_a_folder_or_nothing_in_place_of_the_data_yaml_is_refused(tmp_path: Path) -> None:
    assert "dataset file not found" in refusal(tmp_path / "data.yaml").message
    assert "is a folder" in refusal(tmp_path).message


def test_the_other_name_of_val(tmp_path: Path) -> None:
    assert read(make_dataset(tmp_path, val=None, validation="images/val")).splits == ["train", "val"]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("/d/images/train/a.jpg", "/d/labels/train/a.txt"),
        ("/d/images/x/images/a.jpg", "/d/images/x/labels/a.txt"),
        ("/images/a.jpg", "/labels/a.txt"),
        ("/d/pictures/a.jpg", "/d/pictures/a.txt"),
        ("/d/my_images/a.b.png", "/d/my_images/a.b.txt"),
    ],
)
def test_label_path_is_the_rule_of_ultralytics(image: str, label: str) -> None:
    assert label_path(image) == label


def test_images_in_the_own_name_of_a_folder_is_found_by_the_last_one(tmp_path: Path) -> None:
    root = tmp_path / "images/street"
    put_photo(root, "train/a.jpg")
    put_photo(root, "val/b.jpg", seed=1)
    data = read(described(root, train="images/train", val="images/val"))
    assert data.sources[0].label == str(root / "labels/train/a.txt")
    assert data.sources[0].counts == ((0, 1),)


def test_a_missing_label_is_a_background(tmp_path: Path) -> None:
    path = make_dataset(tmp_path)
    (tmp_path / "labels/train/00.txt").unlink()
    first = read(path).sources[0]
    assert (first.label, first.counts, first.problem) == (None, (), None)


def test_an_empty_label_is_a_background_with_a_label_file(tmp_path: Path) -> None:
    path = make_dataset(tmp_path)
    put(tmp_path / "labels/train/00.txt", "")
    first = read(path).sources[0]
    assert (first.label is not None, first.counts, first.problem) == (True, (), None)


def test_a_list_that_climbs_out_of_its_folder_keeps_every_picture_in_its_split(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d", counts=(2, 1))
    save(tmp_path / "other/q.jpg", photo(8))
    put(tmp_path / "d/lists/train.txt", "./../images/train/00.jpg\n./../../other/q.jpg\n./../images/train/01.jpg\n")
    put(data, yaml.safe_dump({"train": "lists/train.txt", "val": "images/val", "names": ["car", "person"]}))
    summary, _ = make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=["night"]))
    assert summary.accepted == 3
    images = [p for p in (tmp_path / "out/dataset/images").rglob("*") if p.is_file()]
    assert len([p for p in images if "train" in p.parts]) == 6
    assert len(images) == 7


@pytest.mark.parametrize("linked", ["images/train", "images/train/sub", "images", "images/train/00.jpg"])
@pytest.mark.parametrize("labels", ["beside", "at the target", "both"])
def test_linked_images_have_their_labels_at_either_end(linked: str, labels: str, tmp_path: Path) -> None:
    """Ultralytics 8.4 resolves the path of a split, and looks at the target only."""
    data, link = make_dataset(tmp_path / "d", counts=(2, 2)), tmp_path / "d" / linked
    if linked.endswith("sub"):
        for name in ("00", "01"):
            put_photo(tmp_path / "d", f"train/sub/{name}.jpg", "1 0.5 0.5 0.1 0.1\n", seed=int(name) + 7)
    target = tmp_path / "pool" / linked
    target.parent.mkdir(parents=True)
    link.rename(target)
    link.symlink_to(os.path.relpath(target, link.parent))
    kept = label_folder(link)
    if labels != "beside":
        there = label_folder(target)
        there.parent.mkdir(parents=True, exist_ok=True)
        if kept.is_dir():
            shutil.copytree(kept, there)
            shutil.rmtree(kept) if labels != "both" else None
        else:
            shutil.copy(kept, there)
            kept.unlink() if labels != "both" else None
    sources = read(data).sources
    assert len(sources) == 4 + 2 * linked.endswith("sub")
    assert all(source.counts for source in sources)


def label_folder(images: Path) -> Path:
    """The labels of a folder of images, or the label of an image."""
    place = Path(str(images).replace("/images", "/labels", 1))
    return place.with_suffix(".txt") if place.suffix else place


@pytest.mark.parametrize(
    "line",
    ["images/train/00.jpg", ".\\images\\train\\00.jpg", "images\\train\\00.jpg", "../lists/../images/train/00.jpg"],
)
def test_a_list_is_read_from_its_own_folder_or_the_dataset_s(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    make_dataset(tmp_path, counts=(1, 1))
    put(tmp_path / "lists/train.txt", f"{line}\n")
    data = read(described(tmp_path, train="lists/train.txt", val="images\\val"))
    assert [source.counts for source in data.sources] == [((0, 1),)] * 2


def test_a_list_of_which_nothing_is_there_is_refused_with_the_path_that_was_tried(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    put(tmp_path / "train.txt", "gone/00.jpg\ngone/01.jpg\n")
    error = refusal_of(described(tmp_path, train="train.txt", val="images/val"))
    assert "none of its 2 images exists; the first would be" in error
    assert str(Path.cwd() / "gone/00.jpg") in error


def refusal_of(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read(path)
    assert caught.value.hint
    return caught.value.message


def test_odd_keys_of_a_data_yaml_are_handed_on(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d")
    put(data, data.read_text() + "1: x\ncolors: {0: red, car: blue}\n2026-01-01: day\n")
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"))
    written = yaml.safe_load((tmp_path / "out/dataset/data.yaml").read_text())
    assert written["colors"] == {0: "red", "car": "blue"}
