"""What `plan` says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffgen.commands.plan_summary import plan_facts, plan_text
from diffgen.commands.status import status
from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from tests.fakes import FakeEditor, make, make_dataset, photo, put, save, tree, write_recipe
from tests.fakes_attempts import Melting


def test_a_plan_in_numbers(recipe: Path, tmp_path: Path) -> None:
    facts = plan_facts(load_recipe(recipe))
    assert facts["sources"] == {"train": 4, "val": 2}
    assert facts["conditions"] == {"night": {"train": 4}, "fog": {"train": 4}}
    assert (facts["edited_sources"], facts["images"], facts["jobs"], facts["to_make"]) == (4, 8, 8, 8)
    assert facts["not_edited"] == {}
    assert facts["output"] == str(tmp_path / "out")
    assert facts["minutes"] is None
    assert facts["disk_mb"] >= 0


def test_a_plan_writes_nothing(recipe: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    plan_facts(load_recipe(recipe))
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_folder_that_a_run_refuses_is_refused_and_left_alone(recipe: Path, tmp_path: Path) -> None:
    put(tmp_path / "theirs/notes.txt", "mine")
    for place, words in (("theirs", "did not make"), ("theirs/notes.txt", "is not a folder")):
        with pytest.raises(UsageError, match=words):
            plan_facts(load_recipe(recipe, output=tmp_path / place))
    assert set(tree(tmp_path / "theirs")) == {"notes.txt"}


def test_what_is_made_is_not_to_be_made_and_tells_the_time(recipe: Path) -> None:
    make(recipe, FakeEditor(seconds=0.002), limit=1)  # seconds are kept to the millisecond
    facts = plan_facts(load_recipe(recipe))
    assert (facts["images"], facts["to_make"]) == (8, 6)
    assert facts["minutes"] is not None
    make(recipe)
    assert plan_facts(load_recipe(recipe))["to_make"] == 0


def test_a_failure_that_is_final_is_not_to_be_made(recipe: Path, tmp_path: Path) -> None:
    image = tmp_path / "data/images/train/01.jpg"
    image.write_bytes(image.read_bytes()[:-400])
    make(recipe)
    assert plan_facts(load_recipe(recipe))["to_make"] == 0


def test_an_image_that_somebody_deleted_is_to_be_made(recipe: Path, tmp_path: Path) -> None:
    _, editor = make(recipe)
    (tmp_path / f"out/images/{editor.made[0][:2]}/{editor.made[0]}.jpg").unlink()
    assert plan_facts(load_recipe(recipe))["to_make"] == 1
    assert status(load_recipe(tmp_path / "out")).pending == 1


def test_a_limit_is_planned_with(recipe: Path) -> None:
    assert plan_facts(load_recipe(recipe), 2)["images"] == 4


def test_what_cannot_be_edited_is_counted_by_reason_and_named(recipe: Path, tmp_path: Path) -> None:
    put(tmp_path / "data/labels/train/00.txt", "9 0.5 0.5 0.1 0.1\n")
    put(tmp_path / "data/labels/val/00.txt", "0 3 0.5 0.1 0.1\n")
    facts = plan_facts(load_recipe(recipe))
    assert {word: found["count"] for word, found in facts["not_edited"].items()} == {"class-id": 1, "range": 1}
    text = plan_text(facts)
    assert "unedited  1 class-id, copied unchanged" in text
    assert "train/00: row 1: class id 9" in text


def test_what_is_not_there_is_no_source_and_left_out(recipe: Path, tmp_path: Path) -> None:
    image = tmp_path / "data/images/train/00.jpg"
    image.unlink()
    image.symlink_to("nowhere.jpg")
    facts = plan_facts(load_recipe(recipe))
    assert facts["sources"] == {"train": 3, "val": 2}
    assert facts["labels"]["none"] == 0
    assert "unedited  1 missing, left out\n          train/00: No such file or directory" in plan_text(facts)
    summary, _ = make(recipe)
    assert (summary.sources, summary.not_edited) == ({"train": 3, "val": 2}, {"missing": 1})


def test_images_of_one_label_file_and_a_key_that_is_not_followed_are_named(recipe: Path, tmp_path: Path) -> None:
    save(tmp_path / "data/images/train/00.png", photo(9))
    data = tmp_path / "data/data.yaml"
    put(data, data.read_text() + "download: https://example.com/a.zip\n")
    facts = plan_facts(load_recipe(recipe))
    assert {word: found["count"] for word, found in facts["notes"].items()} == {"download": 1, "one label": 1}
    text = plan_text(facts)
    assert "1 images that share their label file with another image" in text
    assert "labels/train/00.txt is also the label file of" in text
    assert "1 key left out: diffgen downloads no dataset" in text


def test_many_of_one_reason_name_five_and_count_the_rest(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(8, 1))
    for i in range(7):
        put(tmp_path / f"data/labels/train/{i:02}.txt", "9 0.5 0.5 0.1 0.1\n")
    text = plan_text(plan_facts(load_recipe(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out")), look=False))
    assert text.count("train/0") == 5
    assert "… and 2 more" in text


def test_small_boxes_are_warned_of_with_what_to_do(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", size=(320, 240))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out")
    small = plan_facts(load_recipe(recipe))  # 64 pixels wide in all: a box of 0.4 × 48 has 19, of 0.3 × 64 has 19
    assert small["small_boxes"] == {"least_px": 16, "small": 0, "boxes": 6, "tiled": False}
    put(tmp_path / "data/labels/train/00.txt", "0 0.5 0.5 0.1 0.1\n")
    found = plan_facts(load_recipe(recipe))
    assert found["small_boxes"]["small"] == 1
    assert "1 of 6 will be under 16 px" in plan_text(found)
    assert "long_side" in plan_text(found)
    assert plan_facts(load_recipe(recipe, ["resolution.long_side=320"]))["small_boxes"]["small"] == 0
    put(tmp_path / "data/labels/train/00.txt", "0 0.5 0.5 0.01 0.01\n")  # small in the picture itself
    tiles = plan_text(plan_facts(load_recipe(recipe, ["resolution.mode=tile"])))
    assert "1 of 6 will be under 16 px" in tiles
    assert "as small in the pictures themselves; objects: " in tiles
    assert "mode: tile" not in tiles


def test_the_text_of_a_plan(recipe: Path, tmp_path: Path) -> None:
    lines = plan_text(plan_facts(load_recipe(recipe))).splitlines()
    assert lines[0] == f"dataset   {tmp_path}/data/data.yaml: 4 train, 2 val; 4 to edit"
    assert lines[3] == "images    8 planned, 8 still to make"
    assert lines[-1].startswith("cost      about ")


def test_plan_counts_the_attempts_that_are_due(tmp_path: Path, cli: Callable[..., Any]) -> None:
    data = make_dataset(tmp_path / "data", counts=(8, 1))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", attempts=1, conditions=["night"])
    make(recipe, Melting())
    facts = json.loads(cli("plan", recipe, "--json", "--set", "attempts=3").out)
    waiting = status(load_recipe(recipe, ["attempts=3"])).pending
    assert facts["to_make"] == waiting > 0
