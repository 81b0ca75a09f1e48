"""A preview of several values of a field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffgen.commands.sweeps import Sweep, read_sweep
from diffgen.errors import UsageError
from diffgen.output.contact_sheet import GAP, LINE
from diffgen.recipe.load import load_recipe
from tests.fakes import FakeEditor, make
from tests.fakes_preview import TILE, look, verdicts


def test_swept_values_are_columns_and_each_condition_a_row(recipe: Path) -> None:
    found, editor = look(recipe, "strength=0.3,0.5", "objects.strength=0,0.2", number=1)
    assert [cell.settings for cell in found.images][:4] == [
        {"strength": 0.3, "objects.strength": 0},
        {"strength": 0.3, "objects.strength": 0.2},
        {"strength": 0.5, "objects.strength": 0},
        {"strength": 0.5, "objects.strength": 0.2},
    ]
    used = [(cell.item.job.settings.strength, cell.item.job.settings.object_strength) for cell in found.images]
    assert used == 2 * [(0.3, 0), (0.3, 0.2), (0.5, 0), (0.5, 0.2)]
    assert len(editor.made) == 8
    picture = Image.open(found.path)
    assert picture.width == 5 * TILE + 4 * GAP
    assert picture.height == 2 * (TILE * 48 // 64 + 3 * LINE + 3) + GAP


@pytest.mark.parametrize(
    ("sweep", "field", "value"),
    [
        ("guidance=3", "guidance", 3.0),
        ("steps=7", "steps", 7),
        ("detail=0.4", "detail", 0.4),
        ("objects.detail=0.9", "object_detail", 0.9),
        ("image_guidance=1.2", "image_guidance", 1.2),
        ("scheduler=euler", "scheduler", "euler"),
    ],
)
def test_any_field_of_a_condition_can_be_swept(recipe: Path, sweep: str, field: str, value: Any) -> None:
    found, _ = look(recipe, sweep, number=1, conditions=("night",))
    assert getattr(found.images[0].item.job.settings, field) == value


def test_a_prompt_is_swept_by_quoted_texts(recipe: Path) -> None:
    found, _ = look(recipe, 'instruction="dusk, no lamps","dawn"', number=1, conditions=("night",))
    assert [cell.item.job.prompt for cell in found.images] == ["dusk, no lamps", "dawn"]


def test_a_swept_threshold_makes_one_image_and_judges_it_twice(recipe: Path) -> None:
    found, editor = look(recipe, "checks.contrast=0,1", number=1, conditions=("night",))
    assert [verdict for _, _, verdict in verdicts(found)] == ["accepted", "degenerate"]
    assert len(set(editor.made)) == len(editor.made)
    assert len({cell.item.job.id for cell in found.images}) == 1


def test_the_recipes_own_value_in_a_sweep_is_made_in_the_runs_own_batch(recipe: Path) -> None:
    own = load_recipe(recipe).recipe.conditions[0].strength
    _, editor = look(recipe, f"strength=0.2,{own}", number=2, conditions=("night",))
    _, after = make(recipe)
    assert not {*editor.made} & {*after.made}
    alone = FakeEditor()
    make(recipe, alone, sets=["output=elsewhere"])
    assert [batch for batch in alone.batches if batch in editor.batches], "in the company that a run gives it"


def test_swept_images_are_extra_until_clean(cli: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    look(recipe, "strength=0.2,0.3", number=2, conditions=("night",))
    assert make(recipe)[0].planned == 8
    assert json.loads(cli("clean", tmp_path / "out", "--json").out)["images"] == 4


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("strength", "field=value"),
        ("strength=", "field=value"),
        ("=1", "field=value"),
        ("share=0.5", "decides which images are made"),
        ("strength=[", "--sweep"),
    ],
)
def test_a_sweep_that_is_none(text: str, word: str) -> None:
    with pytest.raises(UsageError, match=word.replace("--", "")):
        read_sweep(text)


def test_values_of_a_sweep_are_yaml() -> None:
    assert read_sweep("detail=0, 0.5,null") == Sweep("detail", (0, 0.5, None))


def test_a_field_that_is_swept_twice_is_refused(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--sweep strength: given twice"):
        look(recipe, "strength=0.3", "strength=0.4")
    assert not (tmp_path / "out").exists()
