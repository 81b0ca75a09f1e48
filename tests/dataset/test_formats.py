"""COCO and Pascal VOC alike: names, runs, and formats that there are none of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from tests.dataset.annotations import BOX, OBJECT, coco, voc
from tests.fakes import MODEL, make, photo, put, recipe_fields, save, tree


def test_a_name_that_leads_out_of_its_folder_stays_in_its_split(tmp_path: Path) -> None:
    save(tmp_path / "data/outside.png", photo(4))
    image = {"id": 7, "file_name": "../outside.png", "width": 64, "height": 48}
    spec = coco(tmp_path / "data", [BOX], images=[image])
    fields = recipe_fields(Path("unused"), tmp_path / "out", conditions=["night"])
    recipe = put(tmp_path / "data/r.yaml", json.dumps({**fields, "dataset": spec.model_dump(exclude_none=True)}))
    before = set(tree(tmp_path))
    make(recipe)
    assert sorted(path.name for path in (tmp_path / "out/dataset/images/train/up_").iterdir()) == [
        "outside.png",
        "outside__night-0.jpg",
    ]
    assert {path for path in set(tree(tmp_path)) - before if not path.startswith("out/")} == set()


@pytest.mark.parametrize("form", ["coco", "voc"])
def test_a_run_writes_the_labels_and_its_folder_is_a_recipe_again(form: str, tmp_path: Path) -> None:
    spec = coco(tmp_path, [BOX]) if form == "coco" else voc(tmp_path, OBJECT.format("car", 1, 1, 32, 24))
    fields = recipe_fields(Path("unused"), tmp_path / "out", conditions=["night"], model=MODEL)
    recipe = put(tmp_path / "r.yaml", json.dumps({**fields, "dataset": spec.model_dump(exclude_none=True)}))
    summary, _ = make(recipe)
    assert summary.accepted == 1
    made = tmp_path / "out/dataset/labels/train/a__night-0.txt"
    assert made.read_text() == (tmp_path / "out/dataset/labels/train/a.txt").read_text() != ""
    before = tree(tmp_path / "out/dataset")
    again, editor = make(tmp_path / "out")
    assert (again.accepted, editor.made) == (1, [])
    assert tree(tmp_path / "out/dataset") == before


def test_an_unknown_format_is_an_error_that_names_the_known(tmp_path: Path) -> None:
    recipe = put(tmp_path / "r.yaml", "dataset: {format: kitti}\noutput: out\nconditions: [night]\n")
    with pytest.raises(UsageError, match=r"r\.yaml:1: dataset") as caught:
        load_recipe(recipe)
    assert "coco" in caught.value.message
