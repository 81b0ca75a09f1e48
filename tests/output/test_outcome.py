"""What becomes of the images of a plan, judged again without making one."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffgen.commands.export import export
from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from tests.fakes import (
    make,
    tree,
)
from tests.fakes_tasks import (
    REMOVE,
    made,
    work,
)
from tests.run.disturbed import no_worker


def test_a_threshold_changed_makes_none_and_changes_the_dataset(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    everything = tree(tmp_path / "out/dataset")
    strict = export(load_recipe(tmp_path / "out", ["conditions.fog.checks.contrast=1"]))
    assert (strict.accepted, strict.rejected) == (4, {"degenerate": 4})
    assert not [name for name in tree(tmp_path / "out/dataset") if "fog" in name]
    assert run(load_recipe(tmp_path / "out"), make_worker=no_worker).accepted == 4, "what export was told is kept"
    back = export(load_recipe(tmp_path / "out", ["conditions.fog.checks=null"]))
    assert back.accepted == 8
    assert tree(tmp_path / "out/dataset") == everything


@pytest.mark.parametrize("change", ["conditions.night.strength=0.5", "seed=3", "variants=2"])
def test_export_refuses_other_images_and_leaves_the_folder(change: str, recipe: Path, tmp_path: Path) -> None:
    make(recipe, limit=2)
    before = tree(tmp_path / "out")
    with pytest.raises(UsageError, match="export makes no image"):
        export(load_recipe(tmp_path / "out", [change]))
    assert tree(tmp_path / "out") == before
    assert export(load_recipe(tmp_path / "out", ["select.max=1"])).planned == 2, "fewer of the same images are fine"


def test_an_unfinished_run_is_exported_with_other_checks(recipe: Path, tmp_path: Path) -> None:
    make(recipe, max_minutes=0)
    assert export(load_recipe(tmp_path / "out", ["checks.contrast=null"])).pending == 8


def test_export_judges_again_without_making_an_image(tmp_path: Path) -> None:
    _, _, recipe = work(tmp_path, REMOVE)
    before = tree(tmp_path / "out/dataset")
    assert export(load_recipe(recipe, ["checks.contrast=1"])).accepted == 0
    assert made(tmp_path, REMOVE) == {}
    assert export(load_recipe(recipe)).accepted == 2
    assert tree(tmp_path / "out/dataset") == before
