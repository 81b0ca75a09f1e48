"""The exported dataset: what lies where, that labels are equal byte for byte, and that it is made anew when it must be."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from diffgen.formats.yolo import label_path
from diffgen.recipe import load_recipe
from diffgen.run import export
from tests.fakes import ROWS, make, make_dataset, photo, put, save, tree, write_recipe

Made = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Make a dataset with these keys, run a recipe over it: the exported folder."""

    def call(data: Path | None = None, *, keypoints: Any = None, dataset: dict[str, Any] | None = None, **fields: Any) -> Path:  # fmt: skip
        path = data or make_dataset(tmp_path / "data", **(dataset or {}))
        recipe = write_recipe(tmp_path / "recipe.yaml", path, tmp_path / "out", **fields)
        summary, _ = make(recipe, keypoints=keypoints)
        assert summary.failed == {}
        return tmp_path / "out" / "dataset"

    return call


def manifest(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text("utf-8").splitlines()]


def images(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder / "images").as_posix() for path in (folder / "images").rglob("*.*"))


def test_the_tree(made: Made) -> None:
    folder = made(dataset={"counts": (2, 1)})
    assert sorted(tree(folder)) == sorted(
        [
            "data.yaml",
            "manifest.jsonl",
            *(f"images/train/{n}.jpg" for n in ("00", "00__fog-0", "00__night-0", "01", "01__fog-0", "01__night-0")),
            *(f"labels/train/{n}.txt" for n in ("00", "00__fog-0", "00__night-0", "01", "01__fog-0", "01__night-0")),
            "images/val/00.jpg",
            "labels/val/00.txt",
        ]
    )


@pytest.mark.parametrize("kind", sorted(ROWS))
def test_labels_are_equal_byte_for_byte_where_the_trainer_looks(made: Made, tmp_path: Path, kind: str) -> None:
    odd = b"\xef\xbb\xbf" + "".join(f"{row}  \r\n" for row in ROWS[kind]).encode() + b"\n\n"
    data = make_dataset(tmp_path / "data", kind=kind)
    (tmp_path / "data/labels/train/00.txt").write_bytes(odd)
    folder = made(data, keypoints=(2, 3) if kind == "pose" else None)
    rows = manifest(folder)[1:]
    assert len(rows) == 6 + 8
    for row in rows:
        split, _, name = row["source"].partition("/")
        own = (tmp_path / "data/labels" / split / f"{name}.txt").read_bytes()
        assert Path(label_path(str(folder / row["image"]))).read_bytes() == own
        with Image.open(folder / row["image"]) as image:
            assert image.size == (64, 48)
    assert sum(Path(label_path(str(folder / row["image"]))).read_bytes() == odd for row in rows) == 3


def test_a_background_has_no_label_file(made: Made, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    (tmp_path / "data/labels/train/00.txt").unlink()
    put(tmp_path / "data/labels/train/01.txt", "")
    folder = made(data)
    assert not list(folder.glob("labels/train/00*"))
    assert [p.read_bytes() for p in folder.glob("labels/train/01*")] == [b""] * 3


def test_sources_are_copied_byte_for_byte(made: Made, tmp_path: Path) -> None:
    folder = made()
    for split in ("train", "val"):
        for path in (tmp_path / "data/images" / split).iterdir():
            assert (folder / "images" / split / path.name).read_bytes() == path.read_bytes()


# --- data.yaml


def test_data_yaml_says_what_the_trainer_needs_and_no_more(made: Made) -> None:
    folder = made(dataset={"kind": "pose", "channels": 3, "download": "evil", "path": None, "nc": 2}, keypoints=(2, 3))
    assert yaml.safe_load((folder / "data.yaml").read_text("utf-8")) == {
        "train": "images/train",
        "val": "images/val",
        "names": {0: "car", 1: "person"},
        "kpt_shape": [2, 3],
        "flip_idx": [1, 0],
        "channels": 3,
    }


def test_gaps_in_names_are_filled(made: Made) -> None:
    folder = made(dataset={"names": {0: "car", 1: "Fußgänger", 3: "bus"}})
    data = yaml.safe_load((folder / "data.yaml").read_text("utf-8"))
    assert data["names"] == {0: "car", 1: "Fußgänger", 2: "unused2", 3: "bus"}


def test_the_test_split_is_carried_over(made: Made, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", test="images/val")
    folder = made(data)
    assert yaml.safe_load((folder / "data.yaml").read_text())["test"] == "images/test"
    assert images(folder)[:2] == ["test/00.jpg", "test/01.jpg"]


def test_a_val_source_never_yields_a_train_file(made: Made) -> None:
    folder = made(select={"splits": ["train", "val"]}, include_sources="none")
    for row in manifest(folder)[1:]:
        assert row["image"].split("/")[1] == row["source"].split("/")[0]
    assert [name for name in images(folder) if name.startswith("val/")] == [
        "val/00__fog-0.jpg", "val/00__night-0.jpg", "val/01__fog-0.jpg", "val/01__night-0.jpg",
    ]  # fmt: skip


# --- include_sources


def test_without_sources_only_the_edited_splits_lose_them(made: Made) -> None:
    folder = made(include_sources="none", dataset={"counts": (1, 1)})
    assert images(folder) == ["train/00__fog-0.jpg", "train/00__night-0.jpg", "val/00.jpg"]


def test_linked_sources_lead_to_the_originals_also_after_a_move_of_both(made: Made, tmp_path: Path) -> None:
    folder = made(include_sources="link")
    link = folder / "images/train/00.jpg"
    assert link.is_symlink()
    assert link.resolve() == tmp_path / "data/images/train/00.jpg"
    assert not os.readlink(link).startswith("/")
    assert not (folder / "images/val/00.jpg").is_symlink()
    assert not (folder / "labels/train/00.txt").is_symlink()
    os.replace(tmp_path / "out", tmp_path / "moved")
    assert (tmp_path / "moved/dataset/images/train/00.jpg").read_bytes()


def test_the_export_does_not_share_its_files_with_the_dataset(made: Made, tmp_path: Path) -> None:
    folder = made()
    for name in ("images/train/00.jpg", "labels/train/00.txt"):
        before = (tmp_path / "data" / name).read_bytes()
        (folder / name).write_bytes(b"changed")
        assert (tmp_path / "data" / name).read_bytes() == before


# --- names


def test_equal_stems_and_folders_called_images(made: Made, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for i, name in enumerate(("train/images/a.jpg", "train/b/images/c.jpg")):
        save(root / name, photo(i))
    for i, name in enumerate(("pics/a.jpg", "pics/a.png", "pics/A.jpeg")):
        save(root / name, photo(10 + i))
    data = put(root / "data.yaml", yaml.safe_dump({"names": ["car"], "train": ["train", "pics"], "val": "pics"}))
    folder = made(data, conditions=["fog"])
    for row in manifest(folder)[1:]:
        assert "images" not in row["image"].split("/")[1:]
        assert Path(label_path(str(folder / row["image"]))) == folder / row["image"].replace("images/", "labels/", 1).rsplit(".", 1)[0].__add__(".txt")  # fmt: skip
    stems = [re.sub(r"\.\w+$", "", name).casefold() for name in images(folder)]
    assert len(stems) == len(set(stems)) == 2 * 5 + 3


def test_a_made_name_that_a_source_has_already_gets_another(made: Made, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(1, 1))
    save(tmp_path / "data/images/train/00__fog-0.jpg", photo(5))
    put(tmp_path / "data/labels/train/00__fog-0.txt", "1 0.5 0.5 0.1 0.1\n")
    folder = made(data, conditions=["fog"])
    assert images(folder)[:4] == [
        "train/00.jpg", "train/00__fog-0-2.jpg", "train/00__fog-0.jpg", "train/00__fog-0__fog-0.jpg",
    ]  # fmt: skip
    assert (folder / "labels/train/00__fog-0-2.txt").read_bytes() == (folder / "labels/train/00.txt").read_bytes()


def test_names_that_differ_by_case_alone_do_not_meet(made: Made, tmp_path: Path) -> None:
    """On the disks of macOS and Windows they are one file."""
    data = make_dataset(tmp_path / "data", counts=(0, 1), train="images/train")
    for i, name in enumerate(("STREET.jpg", "street__FOG-0.jpg")):
        save(tmp_path / "data/images/train" / name, photo(i))
    folder = made(data, conditions=["fog"])
    names = [name.casefold() for name in images(folder)]
    assert len(names) == len(set(names)) == 5


# --- manifest


def test_the_manifest_names_every_image_and_how_it_was_made(made: Made) -> None:
    folder = made()
    head, *rows = manifest(folder)
    assert head["images"] == len(rows) == 14
    assert [row["image"] for row in rows if "job" not in row] == [
        *(f"images/train/{i:02}.jpg" for i in range(4)), "images/val/00.jpg", "images/val/01.jpg",
    ]  # fmt: skip
    night = next(row for row in rows if row["image"] == "images/train/01__night-0.jpg")
    assert (night["source"], night["condition"], night["variant"]) == ("train/01", "night", 0)
    assert night["prompt"].startswith("make it night")
    assert len(night["facts"]["structure"]) == 2


def test_nothing_derived_holds_a_time_a_host_or_a_path(made: Made, tmp_path: Path) -> None:
    folder = made()
    text = (folder / "manifest.jsonl").read_text() + (folder / "data.yaml").read_text()
    for word in (str(tmp_path), "/tmp", socket.gethostname(), "seconds", "environment", "2026-", "fake-device"):
        assert word not in text


def test_an_unedited_source_says_why(made: Made, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    put(tmp_path / "data/labels/train/00.txt", "9 0.5 0.5 0.1 0.1\n")
    folder = made(data)
    (row,) = [row for row in manifest(folder)[1:] if row["source"] == "train/00"]
    assert row["not_edited"].startswith("class-id: row 1")
    assert (folder / "labels/train/00.txt").read_text() == "9 0.5 0.5 0.1 0.1\n"


def test_a_listed_picture_that_is_not_there_is_left_out(made: Made, tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    put(tmp_path / "data/list.txt", "./images/train/00.jpg\n./images/train/gone.jpg\n")
    data = put(
        tmp_path / "data/l.yaml", yaml.safe_dump({"names": ["a", "b"], "train": "list.txt", "val": "images/val"})
    )
    assert [name for name in images(made(data, conditions=["fog"])) if "gone" in name] == []


# --- made anew or left alone


def inodes(folder: Path) -> dict[str, int]:
    return {p.relative_to(folder).as_posix(): p.stat().st_ino for p in folder.rglob("*") if p.is_file()}


def test_the_same_export_is_left_alone(made: Made, tmp_path: Path) -> None:
    folder = made()
    before = inodes(folder)
    made(tmp_path / "data/data.yaml")
    export(load_recipe(tmp_path / "out"))
    assert inodes(folder) == before


def test_an_export_in_another_folder_has_the_same_bytes(made: Made, tmp_path: Path) -> None:
    folder = made()
    make(write_recipe(tmp_path / "r2.yaml", tmp_path / "data/data.yaml", tmp_path / "deep/er/out2"))
    assert tree(folder) == tree(tmp_path / "deep/er/out2/dataset")


def test_stale_caches_do_not_survive_a_new_export(made: Made, tmp_path: Path) -> None:
    folder = made()
    put(folder / "labels/train.cache", "old")
    put(folder / "images/train/00.npy", "old")
    make(tmp_path / "recipe.yaml", sets=["conditions=[night]"])
    assert not [name for name in tree(folder) if "cache" in name or "npy" in name]
    assert not [name for name in tree(folder) if "fog" in name]


def test_a_deleted_dataset_or_file_is_made_again(made: Made, tmp_path: Path) -> None:
    folder = made()
    before = tree(folder)
    for victim in ("data.yaml", "manifest.jsonl"):
        (folder / victim).unlink()
        export(load_recipe(tmp_path / "out"))
        assert tree(folder) == before


@pytest.mark.parametrize("leftover", [".dataset.new", ".dataset.old"])
def test_a_leftover_of_a_cut_short_export_is_cleared_away(made: Made, tmp_path: Path, leftover: str) -> None:
    folder = made()
    before = tree(folder)
    put(tmp_path / "out" / leftover / "images/x.jpg", "half")
    (folder / "data.yaml").unlink()
    export(load_recipe(tmp_path / "out"))
    assert tree(folder) == before
    assert not (tmp_path / "out" / leftover).exists()


@pytest.mark.parametrize("fmt", ["png", "webp"])
def test_other_formats(made: Made, fmt: str) -> None:
    folder = made(image={"format": fmt}, conditions=["fog"])
    assert f"train/00__fog-0.{fmt}" in images(folder)
    assert "train/00.jpg" in images(folder)
