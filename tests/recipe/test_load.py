"""Loading a recipe: defaults, where it lies and where its output goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from diffgen.recipe.presets import presets
from tests.fakes import make_dataset, put, write_recipe
from tests.recipe.loading import LEAST, load


def test_the_least_recipe_takes_every_default(tmp_path: Path) -> None:
    recipe = load(tmp_path, LEAST)
    assert (recipe.model, recipe.variants, recipe.assign, recipe.select.splits) == ("pocket", 1, "all", ["train"])
    assert recipe.conditions[0].prompt == presets()["snow"]["prompt"]


@pytest.mark.parametrize(("name", "words"), [("no.yaml", "no such recipe or run folder"), (".", "not a run folder")])
def test_a_recipe_that_is_not_there(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_recipe(tmp_path / name)


def test_a_dataset_in_its_place_is_told_from_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a dataset, not a recipe") as caught:
        load_recipe(make_dataset(tmp_path / "data"))
    assert "diffgen init" in str(caught.value.hint)


def test_output_on_the_command_line_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    loaded = load_recipe(put(tmp_path / "r.yaml", LEAST), (), Path("mine"))
    assert loaded.output == (tmp_path / "here/mine").resolve()


def test_the_output_of_the_recipe_is_relative_to_the_recipe(tmp_path: Path) -> None:
    assert load_recipe(put(tmp_path / "a/r.yaml", LEAST)).output == (tmp_path / "a/out").resolve()


def test_checks_of_a_condition_leave_the_others_as_the_recipe_has_them(tmp_path: Path) -> None:
    fields = {
        "conditions": [{"night": {"checks": {"structure": 0.1}}}],
        "checks": {"registration": None, "contrast": 0.1},
    }
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out", **fields)
    for path in (recipe, put(tmp_path / "copy.yaml", load_recipe(recipe).to_yaml(tmp_path))):
        loaded = load_recipe(path).recipe
        found = loaded.checks_for(loaded.conditions[0])
        assert (found.structure, found.registration, found.contrast) == (0.1, None, 0.1)
