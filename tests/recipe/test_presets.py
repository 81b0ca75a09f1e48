"""Conditions: the presets, their forms in a recipe, and the schema that describes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffgen.recipe.presets import presets
from diffgen.recipe.schema import Recipe, recipe_schema
from tests.recipe.loading import LEAST, load


def test_the_forms_of_a_condition(tmp_path: Path) -> None:
    text = """
dataset: d.yaml
output: out
conditions:
  - snow
  - night: {strength: 0.25, share: 0.3}
  - fog:
  - {name: salted, prompt: "grey slush"}
"""
    snow, night, fog, salted = load(tmp_path, text).conditions
    assert snow.strength == presets()["snow"]["strength"]
    assert (night.name, night.strength, night.share) == ("night", 0.25, 0.3)
    assert night.prompt == presets()["night"]["prompt"]
    assert fog.prompt == presets()["fog"]["prompt"]
    assert (salted.name, salted.prompt, salted.instruction) == ("salted", "grey slush", None)


def test_a_preset_may_be_given_another_name(tmp_path: Path) -> None:
    text = LEAST.replace("[snow]", "[snow, {snow: {name: more-snow, strength: 0.9}}]")
    assert [c.name for c in load(tmp_path, text).conditions] == ["snow", "more-snow"]


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_is_a_condition_for_both_kinds_of_editor(tmp_path: Path, name: str) -> None:
    (condition,) = load(tmp_path, LEAST.replace("snow", name)).conditions
    assert condition.name == name
    assert "{objects}" in condition.prompt
    assert condition.instruction
    assert condition.negative_prompt
    assert 0 < condition.strength <= 1
    assert len(condition.prompt.split()) < 40, "a long prompt is cut by the text encoder"


def test_the_schema_describes_every_key_and_every_preset() -> None:
    schema = recipe_schema()
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["required"] == ["output", "conditions"]
    assert schema["anyOf"] == [{"required": ["dataset"]}, {"required": ["text2img"]}]
    assert schema["$defs"]["ConditionName"]["enum"] == list(presets())
    described = [
        schema["$defs"][name]["properties"] for name in ("Select", "TextToImage", "Checks", "Condition", "Require")
    ]
    undescribed = [key for group in described for key, value in group.items() if "description" not in value]
    assert undescribed == []
