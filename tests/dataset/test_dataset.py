"""The sources of a dataset: their keys, their sizes, and what is wrong with single files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.dataset.reading import described, keys_of, put_photo, read
from tests.fakes import ROWS, make_dataset, photo, put, save


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


def test_a_picture_listed_twice_is_one_source(tmp_path: Path) -> None:
    put_photo(tmp_path, "a/0.jpg")
    put(tmp_path / "twice.txt", "./images/a/0.jpg\n./images/a/0.jpg\n")
    assert len(read(described(tmp_path, train=["twice.txt", "images/a"], val="images/a")).split("train")) == 1


def test_nested_folders_keep_their_names_and_hidden_ones_are_left_out(tmp_path: Path) -> None:
    for i, name in enumerate(("train/day/1.jpg", "train/night/1.jpg", "train/.thumbs/1.jpg", "train/.hidden.jpg")):
        put_photo(tmp_path, name, seed=i)
    data = read(described(tmp_path, train="images/train", val="images/train/day"))
    assert keys_of(data) == ["train/day/1", "train/night/1", "val/1"]


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
