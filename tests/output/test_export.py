"""The exported dataset: what lies where, that labels are equal byte for byte, and that it is made anew when it must be."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from diffgen.commands.export import export
from diffgen.dataset.formats.yolo import label_path
from diffgen.recipe.load import load_recipe
from tests.dataset.annotations import BOX, coco
from tests.fakes import ROWS, make, make_dataset, manifest, photo, put, recipe_fields, save, tree, write_recipe
from tests.output.conftest import Made


def images(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder / "images").as_posix() for path in (folder / "images").rglob("*.*"))


def test_the_tree(made: Made) -> None:
    folder = made(dataset={"counts": (2, 1)})
    assert sorted(tree(folder)) == sorted(
        [
            "croissant.json",
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


def test_equal_stems_and_folders_called_images(made: Made, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for i, name in enumerate(("train/images/a.jpg", "train/b/images/c.jpg")):
        save(root / name, photo(i))
        put(root / name.replace("images", "labels").replace(".jpg", ".txt"), f"{ROWS['detect'][0]}\n")
    for i, name in enumerate(("pics/a.jpg", "pics/a.png", "pics/A.jpeg")):
        save(root / name, photo(10 + i))
    save(root / "val/a.jpg", photo(20))
    data = put(root / "data.yaml", yaml.safe_dump({"names": ["car"], "train": ["train", "pics"], "val": "val"}))
    folder = made(data, conditions=["fog"])
    for row in manifest(folder)[1:]:
        assert "images" not in row["image"].split("/")[1:]
        assert Path(label_path(str(folder / row["image"]))) == folder / row["image"].replace("images/", "labels/", 1).rsplit(".", 1)[0].__add__(".txt")  # fmt: skip
    stems = [re.sub(r"\.\w+$", "", name).casefold() for name in images(folder)]
    assert len(stems) == len(set(stems)) == 2 * 5 + 1


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


def test_a_listed_picture_that_is_not_there_is_left_out(made: Made, tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    put(tmp_path / "data/list.txt", "./images/train/00.jpg\n./images/train/gone.jpg\n")
    data = put(
        tmp_path / "data/l.yaml", yaml.safe_dump({"names": ["a", "b"], "train": "list.txt", "val": "images/val"})
    )
    assert [name for name in images(made(data, conditions=["fog"])) if "gone" in name] == []


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
    for victim in ("data.yaml", "manifest.jsonl", "croissant.json"):
        (folder / victim).unlink()
        export(load_recipe(tmp_path / "out"))
        assert tree(folder) == before


def test_a_picture_whose_annotation_cannot_be_read_is_in_no_split(tmp_path: Path) -> None:
    spec = coco(tmp_path, [{**BOX, "bbox": [1, 1, 0, 0]}, {**BOX, "image_id": 8}], images=[
        {"id": 7, "file_name": "a.png", "width": 64, "height": 48}, {"id": 8, "file_name": "c.png", "width": 64, "height": 48},
        {"id": 9, "file_name": "d.png", "width": 48, "height": 64},
    ])  # fmt: skip
    for i, name in enumerate("cd"):
        save(tmp_path / f"images/{name}.png", photo(i + 3))
    fields = recipe_fields(tmp_path, tmp_path / "out") | {"dataset": spec.model_dump(exclude_none=True)}
    summary, _ = make(put(tmp_path / "r.yaml", yaml.safe_dump(fields)), classes=3)
    assert summary.not_edited == {"annotation": 1, "size": 1}
    assert images(tmp_path / "out/dataset") == [
        "train/c.png",
        "train/c__fog-0.jpg",
        "train/c__night-0.jpg",
        "val/b.png",
    ]


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


def test_links_are_made_again_when_the_dataset_has_moved(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d")
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", include_sources="link"))
    shutil.move(tmp_path / "d", tmp_path / "e")
    make(write_recipe(tmp_path / "r.yaml", tmp_path / "e/data.yaml", tmp_path / "out", include_sources="link"))
    links = [p for p in (tmp_path / "out/dataset/images/train").iterdir() if p.is_symlink()]
    assert len(links) == 4
    assert all(link.exists() for link in links)


def test_a_file_missing_in_the_dataset_is_put_back(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out")
    make(recipe)
    before = tree(tmp_path / "out/dataset")
    shutil.rmtree(tmp_path / "out/dataset/labels/train")
    make(recipe)
    assert tree(tmp_path / "out/dataset") == before


def test_an_image_without_bytes_is_made_again(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out")
    make(recipe)
    before = tree(tmp_path / "out/dataset")
    victim = next((tmp_path / "out/images").rglob("*.jpg"))
    victim.unlink()
    victim.write_bytes(b"")
    summary, _ = make(recipe)
    assert summary.made_now == 1
    assert tree(tmp_path / "out/dataset") == before


def test_a_dataset_folder_that_is_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out")
    put(tmp_path / "elsewhere/mine.txt", "mine")
    (tmp_path / "out").mkdir()
    put(tmp_path / "out/run.json", '{"format": 1, "environments": {}}')
    (tmp_path / "out/dataset").symlink_to(tmp_path / "elsewhere")
    for sets in ([], ["variants=2"]):
        assert make(recipe, sets=sets)[0].exit_code == 0
    assert (tmp_path / "elsewhere/mine.txt").exists()
    assert not (tmp_path / "out/dataset").is_symlink()
