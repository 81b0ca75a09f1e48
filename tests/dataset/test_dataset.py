"""A data.yaml in every form, the rules for paths and labels, and what is wrong with single files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from diffgen.cache import FileCache
from diffgen.errors import UsageError
from diffgen.formats.yolo import label_path
from diffgen.sources import Dataset, read_dataset
from tests.fakes import ROWS, make_dataset, photo, put, save


def read(path: Path) -> Dataset:
    with FileCache() as cache:
        return read_dataset(str(path), path.parent, cache)


def refusal(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read(path)
    assert caught.value.hint
    assert str(path) in caught.value.message
    return caught.value


def put_photo(root: Path, name: str, label: str | None = "0 0.5 0.5 0.2 0.2\n", seed: int = 0) -> Path:
    """images/<name> below root with its label."""
    path = save(root / "images" / name, photo(seed))
    if label is not None:
        put((root / "labels" / name).with_suffix(".txt"), label)
    return path


def described(root: Path, **keys: Any) -> Path:
    return put(root / "data.yaml", yaml.safe_dump({"names": ["car", "person"], **keys}, sort_keys=False))


def keys_of(data: Dataset) -> list[str]:
    return [source.key for source in data.sources]


def test_a_plain_dataset(dataset: Path) -> None:
    data = read(dataset)
    assert keys_of(data) == [*(f"train/{i:02}" for i in range(4)), "val/00", "val/01"]
    assert data.names == ("car", "person")
    assert data.splits == ["train", "val"]
    first, second = data.sources[:2]
    assert (first.width, first.height, first.problem) == (64, 48, None)
    assert first.counts == ((0, 1),)
    assert second.counts == ((0, 1), (1, 1))
    assert second.smallest == (19.2, 19.2)
    assert first.label == str(dataset.parent / "labels/train/00.txt")


@pytest.mark.parametrize("kind", sorted(ROWS))
def test_every_kind_of_row(tmp_path: Path, kind: str) -> None:
    data = read(make_dataset(tmp_path, kind=kind))
    assert [s.problem for s in data.sources] == [None] * 6
    assert sum(n for s in data.sources for _, n in s.counts) == 9
    assert data.extra == ({"kpt_shape": [2, 3], "flip_idx": [1, 0]} if kind == "pose" else {})


# --- names


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
    assert r"'half \ud800' holds half a character" in error.message


def test_other_keys_are_handed_on_and_ours_are_not(tmp_path: Path) -> None:
    data = read(make_dataset(tmp_path, channels=3, license="x", download="rm -rf /", minival="m", masks_dir="m", nc=2))
    assert data.extra == {"channels": 3, "license": "x"}


# --- where things lie


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


def test_a_picture_listed_twice_is_one_source(tmp_path: Path) -> None:
    put_photo(tmp_path, "a/0.jpg")
    put(tmp_path / "twice.txt", "./images/a/0.jpg\n./images/a/0.jpg\n")
    assert len(read(described(tmp_path, train=["twice.txt", "images/a"], val="images/a")).split("train")) == 1


def test_nested_folders_keep_their_names_and_hidden_ones_are_left_out(tmp_path: Path) -> None:
    for i, name in enumerate(("train/day/1.jpg", "train/night/1.jpg", "train/.thumbs/1.jpg", "train/.hidden.jpg")):
        put_photo(tmp_path, name, seed=i)
    data = read(described(tmp_path, train="images/train", val="images/train/day"))
    assert keys_of(data) == ["train/day/1", "train/night/1", "val/1"]


def test_a_split_that_is_named_but_not_there_is_refused(tmp_path: Path) -> None:
    assert "images/nowhere" in refusal(make_dataset(tmp_path, val="images/nowhere")).message


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
    assert "no such dataset file" in refusal(tmp_path / "data.yaml").message
    assert "is a folder" in refusal(tmp_path).message


def test_the_other_name_of_val(tmp_path: Path) -> None:
    assert read(make_dataset(tmp_path, val=None, validation="images/val")).splits == ["train", "val"]


# --- labels


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


def test_equal_stems_get_names_of_their_own(tmp_path: Path) -> None:
    for i, name in enumerate(("a.jpg", "a.png", "A.bmp", "b.jpg")):
        put_photo(tmp_path, f"train/{name}", seed=i)
    put_photo(tmp_path, "val/a.jpg", seed=9)
    names = [s.name for s in read(described(tmp_path, train="images/train", val="images/val")).split("train")]
    assert len({name.casefold() for name in names}) == 4
    assert names == ["A", "a-jpg", "a-png", "b"]


def test_folders_called_images_are_renamed_for_the_export(tmp_path: Path) -> None:
    save(tmp_path / "data/train/images/x/1.jpg", photo(1))
    save(tmp_path / "data/train/Labels/1.jpg", photo(2))
    data = read(described(tmp_path / "data", train="train", val="train"))
    assert [s.name for s in data.split("train")] == ["Labels_/1", "images_/x/1"]


# --- problems of single files

PROBLEMS = [
    ("class id", lambda r: put(r / "labels/train/00.txt", "5 0.5 0.5 0.2 0.2"), "class-id"),
    ("coordinates", lambda r: put(r / "labels/train/00.txt", "0 1.5 0.5 0.2 0.2"), "range"),
    ("mixed", lambda r: put(r / "labels/train/00.txt", f"{ROWS['detect'][0]}\n{ROWS['segment'][0]}"), "mixed"),
    ("columns", lambda r: put(r / "labels/train/00.txt", "0 0.5 0.5"), "columns"),
    ("words", lambda r: put(r / "labels/train/00.txt", "car 1 2 3 4"), "number"),
    ("bytes", lambda r: (r / "labels/train/00.txt").write_bytes(b"\xff\xff"), "encoding"),
    ("tiny", lambda r: save(r / "images/train/00.jpg", photo(1, (40, 9))), "tiny"),
    ("not an image", lambda r: put(r / "images/train/00.jpg", "hello"), "unreadable"),
    ("no bytes", lambda r: put(r / "images/train/00.jpg", ""), "unreadable"),
    ("a dead link", lambda r: ((r / "images/train/00.jpg").unlink(), (r / "images/train/00.jpg").symlink_to("no")), "missing"),
    ("another format", lambda r: shutil.move(r / "images/train/00.jpg", r / "images/train/00.avif"), "format"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "word"), [p[1:] for p in PROBLEMS], ids=[p[0] for p in PROBLEMS])
def test_a_bad_file_is_the_problem_of_its_source_alone(tmp_path: Path, spoil: Any, word: str) -> None:
    path = make_dataset(tmp_path)
    spoil(tmp_path)
    data = read(path)
    assert len(data.sources) == 6
    assert [(s.problem or "").partition(":")[0] for s in data.split("train")] == [word, "", "", ""]


def test_a_listed_picture_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    path = make_dataset(tmp_path)
    put(tmp_path / "list.txt", "./images/train/00.jpg\n./images/train/gone.jpg\n")
    data = read(described(tmp_path, train="list.txt", val="images/val"))
    assert path.is_file()
    problems = {s.name: s.problem for s in data.split("train")}
    assert problems["00"] is None
    assert str(problems["gone"]).startswith("missing")


def test_a_turned_picture_has_its_upright_size(tmp_path: Path) -> None:
    path = make_dataset(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "images/train/00.jpg", photo(1), exif=exif)
    first = read(path).sources[0]
    assert (first.width, first.height) == (48, 64)


# --- the cache of digests


def test_what_is_cached_is_what_is_read(dataset: Path) -> None:
    assert read(dataset).sources == read(dataset).sources


@pytest.mark.parametrize("name", ["images/train/00.jpg", "labels/train/00.txt"])
def test_a_changed_file_is_read_again(dataset: Path, name: str) -> None:
    before = read(dataset).sources
    path = dataset.parent / name
    if path.suffix == ".txt":
        path.write_text("1 0.5 0.5 0.2 0.2\n")
    else:
        save(path, photo(77))
    os.utime(path, ns=(1, 1))  # a coarse clock could give it the time that it had
    after = read(dataset).sources
    assert after[0].digest != before[0].digest
    assert after[1:] == before[1:]


def test_a_change_that_keeps_the_size_is_seen_by_its_time(dataset: Path) -> None:
    label = dataset.parent / "labels/train/00.txt"
    before = read(dataset).sources[0]
    label.write_text(label.read_text().replace("0 0.3", "1 0.3"))
    os.utime(label, ns=(1, 1))
    assert read(dataset).sources[0].digest != before.digest


def test_a_label_that_appears_is_seen(dataset: Path) -> None:
    label = dataset.parent / "labels/train/00.txt"
    text = label.read_text()
    label.unlink()
    bare = read(dataset).sources[0]
    label.write_text(text)
    assert read(dataset).sources[0].digest != bare.digest


@pytest.mark.parametrize("broken", ["a file in the way", "not a database"])
def test_a_cache_that_cannot_be_used_is_no_error(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    before = read(dataset).sources
    if broken == "a file in the way":
        monkeypatch.setenv("DIFFGEN_CACHE", str(put(tmp_path / "file", "x") / "below"))
    else:
        put(tmp_path / "cache/files.sqlite", "this is no database, but it is long enough to be read as one" * 50)
        monkeypatch.setenv("DIFFGEN_CACHE", str(tmp_path / "cache"))
    assert read(dataset).sources == before
