"""`verify` finds any flipped bit, and `--repair` makes exactly that again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffgen.commands.verify import verify
from diffgen.recipe.load import load_recipe
from diffgen.run.session import open_run
from tests.fakes import FakeEditor, make, tree
from tests.run.test_damage import cut, empty, flip, flip_unseen


def test_a_whole_folder_is_whole_and_untouched(recipe: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    make(recipe)
    before = tree(tmp_path / "out")
    answer = cli("verify", tmp_path / "out")
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == "everything is intact"
    facts = json.loads(cli("verify", tmp_path / "out", "--json").out)
    assert (facts["records"], facts["images"], facts["dataset"], facts["whole"]) == (8, 8, 14, True)
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("damage", [flip, flip_unseen, cut, empty, Path.unlink])
@pytest.mark.parametrize(
    "pattern",
    [
        "images/*/*.jpg", "dataset/images/train/00.jpg", "dataset/images/train/00__night-0.jpg",
        "dataset/labels/train/00__night-0.txt", "dataset/labels/val/00.txt", "dataset/data.yaml", "dataset/manifest.jsonl",
        "dataset/croissant.json",
    ],
)  # fmt: skip
def test_any_damage_is_found_and_repaired(
    pattern: str, damage: Callable[[Path], None], recipe: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    make(recipe)
    before = tree(tmp_path / "out/dataset") | tree(tmp_path / "out/images")
    path = sorted((tmp_path / "out").glob(pattern))[0]
    damage(path)
    answer = cli("verify", tmp_path / "out")
    assert answer.code == 1
    assert answer.out.splitlines()[-1] == f"to repair: diffgen verify {tmp_path}/out --repair"
    assert ("data.yaml" in answer.out) == (path.parent.name == "dataset"), "a file that nobody touched is not named"
    name = path.stem if pattern.startswith("images/") else path.name
    if not pattern.startswith("dataset/labels"):
        assert name in answer.out
    editor = FakeEditor()
    repaired = cli("verify", tmp_path / "out", "--repair", editor=editor)
    assert repaired.code == 0, repaired.err
    assert (path.stem in editor.made) == pattern.startswith("images/")
    after = tree(tmp_path / "out/dataset") | tree(tmp_path / "out/images")
    assert {name: sha for name, sha in after.items() if ".damaged" not in name} == before
    assert verify(load_recipe(tmp_path / "out")).whole


def test_damaged_records_are_found(recipe: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    make(recipe)
    flip(tmp_path / "out/records-0.jsonl", 30)
    assert json.loads(cli("verify", tmp_path / "out", "--json").out)["records_damaged"]
    assert cli("verify", tmp_path / "out", "--repair", editor=FakeEditor()).code == 0
    assert verify(load_recipe(tmp_path / "out")).whole


def test_what_is_no_run_folder_is_refused(tmp_path: Path, recipe: Path, cli: Callable[..., Any]) -> None:
    assert cli("verify", recipe).code == 2


@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_an_image_that_is_no_longer_planned_is_not_missed(
    damage: Callable[[Path], None], recipe: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    make(recipe)
    made = {path.stem for path in (tmp_path / "out/images").glob("*/*.jpg")}
    make(recipe, sets=["conditions=[night]"])
    planned = {entry.item.job.id for entry in open_run(tmp_path / "out").entries}
    (unplanned, *_) = sorted(made - planned)
    damage(tmp_path / f"out/images/{unplanned[:2]}/{unplanned}.jpg")
    editor = FakeEditor()
    assert cli("verify", tmp_path / "out", "--repair", editor=editor).code == 0
    assert editor.made == []
    assert cli("verify", tmp_path / "out").code == 0
