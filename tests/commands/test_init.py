"""`diffgen init` finds the dataset at hand, and what it writes is a recipe that plans."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.cli import main
from diffgen.commands.init import _quoted, write_starter
from diffgen.commands.layouts import datasets
from diffgen.dataset.dataset import read_dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.recipe.load import load_recipe
from diffgen.run.session import Session
from tests.fakes import MODEL, make_dataset, photo, put, save

FILES = ["diffgen-github.yml", "diffgen-gitlab.yml", "diffgen.mk", "diffgen.yaml"]


def coco(root: Path) -> None:
    for split in ("train", "val"):
        save(root / f"images/{split}2017/a.png", photo(1))
        rows: dict[str, Any] = {"images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}]}
        rows |= {
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
            "categories": [{"id": 1, "name": "car"}],
        }
        put(root / f"annotations/instances_{split}2017.json", json.dumps(rows))


def voc(root: Path) -> None:
    save(root / "JPEGImages/a.png", photo(1))
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    size = "<size><width>64</width><height>48</height></size>"
    put(root / "Annotations/a.xml", f"<annotation>{size}<object><name>car</name>{box}</object></annotation>")


@pytest.mark.parametrize("name", ["data", "on", "a, b: {c} #d 'e' \"f\""])
@pytest.mark.parametrize("make", [make_dataset, coco, voc], ids=["yolo", "coco", "voc"])
def test_the_recipe_plans_the_dataset_at_hand(
    make: Callable[[Path], Any], name: str, tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "project" / name)
    monkeypatch.chdir(tmp_path / "project")
    answer = cli("init")
    assert answer.code == 0, answer.err
    assert sorted(path.name for path in (tmp_path / "project").iterdir() if path.is_file()) == FILES
    recipe = tmp_path / "project/diffgen.yaml"
    sets = ["--set", f"model={json.dumps(MODEL)}", "--set", "editor=instruct", "--set", "select.share=1"]
    if make is voc:
        save(tmp_path / "project" / name / "val/a.png", photo(2))
        val = {"images": f"{name}/val", "annotations": f"{name}/Annotations"}
        sets += ["--set", f"dataset.val={json.dumps(val)}"]
    plan = cli("plan", recipe, "--json", *sets)
    assert plan.code == 0, plan.err
    facts = json.loads(plan.out)
    assert facts["images"] == 4 * facts["sources"]["train"]


def roboflow(root: Path) -> None:
    coco(root)
    for name, split in (("train", "train"), ("valid", "val")):
        (root / name).mkdir()
        (root / f"images/{split}2017/a.png").rename(root / name / "a.png")
        (root / f"annotations/instances_{split}2017.json").rename(root / name / "_annotations.coco.json")


def voc_lists(*lists: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        voc(root)
        for i, name in enumerate(lists):
            save(root / f"JPEGImages/{name}.png", photo(i))
            put(root / f"Annotations/{name}.xml", (root / "Annotations/a.xml").read_text())
            put(root / f"ImageSets/Main/{name}.txt", f"{name}\n")
        put(root / "ImageSets/Main/test.txt", "")

    return make


def voc_folders(root: Path) -> None:
    voc(root)
    for i, name in enumerate(("train", "val")):
        save(root / f"images/{name}/{'ab'[i]}.png", photo(i))
    (root / "JPEGImages/a.png").unlink()
    (root / "JPEGImages").rmdir()


@pytest.mark.parametrize(
    ("make", "splits", "held_out"),
    [
        pytest.param(roboflow, {"train": 1, "val": 1}, None, id="Roboflow's COCO"),
        pytest.param(voc_lists("train", "val", "trainval"), {"train": 1, "val": 1}, None, id="VOC with lists"),
        pytest.param(voc_lists("trainval"), {"train": 1}, 0.1, id="VOC with one list"),
        pytest.param(voc_folders, {"train": 1, "val": 1}, None, id="VOC with folders"),
        pytest.param(lambda root: make_dataset(root, names=None, nc=2), {"train": 4, "val": 2}, None, id="nc alone"),
    ],
)
def test_the_splits_of_the_dataset_are_kept(
    make: Callable[[Path], Any], splits: dict[str, int], held_out: float | None, tmp_path: Path
) -> None:
    make(tmp_path)
    assert main(["init", str(tmp_path), "-o", str(tmp_path / "diffgen.yaml")]) == 0
    loaded = load_recipe(tmp_path / "diffgen.yaml")
    assert loaded.recipe.val_from_train == held_out
    with FileCache(tmp_path / "cache") as cache:
        assert loaded.recipe.dataset is not None
        dataset = read_dataset(loaded.recipe.dataset, tmp_path, cache)
    assert dict(Counter(source.split for source in dataset.sources)) == splits


def test_without_val_the_recipe_takes_it_from_train(tmp_path: Path) -> None:
    make_dataset(tmp_path, counts=(4, 0))
    assert main(["init", str(tmp_path), "-o", str(tmp_path / "diffgen.yaml")]) == 0
    assert load_recipe(tmp_path / "diffgen.yaml").recipe.val_from_train == 0.1


def test_nothing_is_overwritten(tmp_path: Path, cli: Callable[..., Any]) -> None:
    make_dataset(tmp_path)
    put(tmp_path / "diffgen.mk", "mine")
    answer = cli("init", tmp_path, "-o", tmp_path / "diffgen.yaml")
    assert answer.code == 2
    assert "hint:" in answer.err
    assert (tmp_path / "diffgen.mk").read_text() == "mine"
    assert not (tmp_path / "diffgen.yaml").exists()


def test_no_dataset_is_one_error(tmp_path: Path, cli: Callable[..., Any]) -> None:
    put(tmp_path / "notes.yaml", "train: yes please\n")
    put(tmp_path / "broken.yaml", "{")
    answer = cli("init", tmp_path)
    assert answer.code == 2
    assert "found no dataset" in answer.err


def test_paths_are_as_seen_from_where_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Any]
) -> None:
    make_dataset(tmp_path / "data/street")
    monkeypatch.chdir(tmp_path)
    answer = cli("init", "data/street", "-o", "configs/street.yaml")
    assert answer.out.splitlines()[-1] == "next: diffgen plan configs/street.yaml"
    assert sorted(path.name for path in (tmp_path / "configs").iterdir()) == [
        "street-github.yml",
        "street-gitlab.yml",
        "street.mk",
        "street.yaml",
    ]
    written = yaml.safe_load((tmp_path / "configs/street.yaml").read_text())
    assert (written["dataset"], written["output"]) == ("../data/street/data.yaml", "../runs/street")
    for end in (".mk", "-github.yml", "-gitlab.yml"):
        text = (tmp_path / f"configs/street{end}").read_text()
        assert "\tdiffgen run configs/street.yaml" in text or "  diffgen run configs/street.yaml" in text
        assert "runs/street/dataset" in text
    assert cli("plan", "configs/street.yaml").code == 0
    assert cli("init", "data/street/data.yaml", "-o", "other.yaml").code == 0


def annotated(root: Path, name: str, folder: str) -> None:
    """COCO as other tools lay it out."""
    for i, image in enumerate("ab"):
        save(root / folder / f"{image}.png", photo(i))
    rows: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{image}.png", "width": 64, "height": 48} for i, image in enumerate("ab")],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in range(2)],
    }
    put(root / name, json.dumps({**rows, "categories": [{"id": 1, "name": "car"}]}))


def beside(root: Path, *folders: str) -> None:
    """VOC files beside their images."""
    voc(root / "x")
    for i, folder in enumerate(folders):
        for j in range(2):
            save(root / folder / f"{j}.png", photo(2 * i + j))
            put(root / folder / f"{j}.xml", (root / "x/Annotations/a.xml").read_text())
    shutil.rmtree(root / "x")


@pytest.mark.parametrize(
    ("make", "splits"),
    [
        pytest.param(lambda r: annotated(r, "annotations/instances_default.json", "images/default"), {"train"}, id="CVAT's COCO"),
        pytest.param(lambda r: annotated(r, "instances.json", "images"), {"train"}, id="one file"),
        pytest.param(lambda r: annotated(r, "result.json", "images"), {"train"}, id="Label Studio's COCO"),
        pytest.param(lambda r: beside(r, "train", "valid"), {"train", "val"}, id="Roboflow's VOC"),
        pytest.param(lambda r: beside(r, "pictures"), {"train"}, id="LabelImg's VOC"),
    ],
)  # fmt: skip
def test_layouts_of_other_tools_are_found(
    make: Callable[[Path], Any], splits: set[str], tmp_path: Path, cli: Callable[..., Any]
) -> None:
    make(tmp_path)
    answer = cli("init", tmp_path, "-o", tmp_path / "r.yaml")
    assert answer.code == 0, answer.err
    plan = cli("plan", tmp_path / "r.yaml", "--json", "--set", "select.share=1")
    assert plan.code == 0, plan.err
    found = load_recipe(tmp_path / "r.yaml").recipe.dataset
    assert {split for split in ("train", "val") if getattr(found, split)} == splits


LABEL = "0 0.5 0.5 0.2 0.2\n"
UNUSABLE = [
    ("Label Studio", {"images/a.jpg": "", "labels/a.txt": LABEL, "classes.txt": "car\ntraffic light\n", "notes.json": "{}"},
     "with {train: images, names: [car, traffic light]}"),
    ("LabelImg", {"a.jpg": "", "a.txt": LABEL, "classes.txt": "car\n"}, "with {train: ., names: [car]}"),
    ("darknet", {"obj.data": "classes=1", "obj.names": "car\n", "train.txt": "x", "obj_train_data/a.jpg": "", "obj_train_data/a.txt": LABEL},
     "with {train: obj_train_data, names: [car]}"),
    ("folders", {"train/images/a.jpg": "", "train/labels/a.txt": LABEL, "val/images/a.jpg": "", "val/labels/a.txt": LABEL},
     "with {train: train/images, val: val/images, names: […]}"),
    ("KITTI", {"training/image_2/a.png": "", "training/label_2/a.txt": "Car 0 0"}, "KITTI"),
    ("BDD", {"a.jpg": "", "det.json": '[{"name": "a.jpg", "labels": [{"box2d": {}}]}]'}, "BDD"),
    ("LabelMe", {"a.jpg": "", "a.json": '{"shapes": [], "imagePath": "a.jpg"}'}, "LabelMe"),
    ("pictures alone", {"a.jpg": ""}, "there are images but no labels"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "hint"), [row[1:] for row in UNUSABLE], ids=[row[0] for row in UNUSABLE])
def test_what_lacks_is_said(files: dict[str, str], hint: str, tmp_path: Path, cli: Callable[..., Any]) -> None:
    for name, text in files.items():
        put(tmp_path / name, text)
    answer = cli("init", tmp_path, "-o", tmp_path / "r.yaml")
    assert answer.code == 2
    assert "found no dataset" in answer.err
    assert hint in answer.err.splitlines()[1]
    assert not (tmp_path / "r.yaml").exists()


def test_of_two_datasets_one_must_be_named(tmp_path: Path, cli: Callable[..., Any]) -> None:
    for name in ("a", "b"):
        make_dataset(tmp_path / name)
    answer = cli("init", tmp_path, "-o", tmp_path / "r.yaml")
    assert answer.code == 2
    assert f"found 2 datasets: yolo: {tmp_path}/a/data.yaml; yolo: {tmp_path}/b/data.yaml" in answer.err
    write_starter(tmp_path, tmp_path / "r.yaml", lambda lines: len(lines) - 1)
    assert yaml.safe_load((tmp_path / "r.yaml").read_text())["dataset"] == "b/data.yaml"
    assert cli("init", tmp_path / "a", "-o", tmp_path / "s.yaml").code == 0


@pytest.mark.parametrize("name", ["caf\udce9", "a\x7fb", "a\x85b", "tab\tand\nline", "plain"])
def test_odd_folder_names_are_read_back_from_the_recipe(name: str) -> None:
    assert yaml.safe_load(_quoted(name)) == name
    _quoted(name).encode()


def test_it_says_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    coco(tmp_path / "data")
    assert main(["init", "data"]) == 0
    assert capsys.readouterr().err.startswith("found coco: data/")
    make_dataset(tmp_path / "two")
    shutil.copy(tmp_path / "data/annotations/instances_train2017.json", tmp_path / "two")
    assert main(["init", "two", "-o", "both.yaml"]) == 0
    assert capsys.readouterr().err == "found yolo: two/data.yaml (its labels in the format coco are not used)\n"


def test_a_condition_of_the_template_is_one_that_its_model_makes(tmp_path: Path) -> None:
    (written, *_) = write_starter(make_dataset(tmp_path / "data"), tmp_path / "r.yaml")
    text = (
        written.read_text()
        .replace("  # - name: first-snow            #", "  - name: first-snow  #")
        .replace("  #   prompt", "    prompt")
    )
    assert "\n  - name: first-snow" in text
    written.write_text(text)
    plan = Session.open(load_recipe(written)).plan
    assert "first-snow" in {item.job.settings.condition for item in plan.items}


def test_of_coco_files_those_beside_the_one_named_are_its_splits(tmp_path: Path) -> None:
    coco(tmp_path)
    files = sorted(tmp_path.rglob("*.json"))
    found = [{name: s["annotations"] for name, s in one.splits.items()} for one in datasets(files[0])]
    assert found == [{name: s["annotations"] for name, s in one.splits.items()} for one in datasets(tmp_path)]
