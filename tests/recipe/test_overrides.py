"""`--set`: a value of the recipe from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from tests.fakes import make_dataset, write_recipe
from tests.recipe.loading import FORMS, load, refusal

# (name, --set, where to look, expected)
SETS: list[tuple[str, str, Any, Any]] = [
    ("a number", "variants=3", lambda r: r.variants, 3),
    ("a list", "select.classes=[car, person]", lambda r: r.select.classes, ["car", "person"]),
    ("null", "checks.structure=null", lambda r: r.checks.structure, None),
    ("nested into nothing", "require.accepted=0.8", lambda r: r.require.accepted, 0.8),
    ("a whole mapping", "select={share: 0.5}", lambda r: r.select.share, 0.5),
    ("text with an equals sign", "output=a=b", lambda r: r.output, "a=b"),
    ("a preset by its name", "conditions.snow.strength=0.1", lambda r: r.conditions[0].strength, 0.1),
    ("an adjusted preset", "conditions.night.steps=3", lambda r: r.conditions[1].steps, 3),
    ("an own condition", "conditions.mine.strength=0.2", lambda r: r.conditions[2].strength, 0.2),
    ("an empty preset", "conditions.fog.strength=0.2", lambda r: r.conditions[3].strength, 0.2),
    ("a key by its old name", "checks.happened=0.3", lambda r: r.checks.effect, 0.3),
    ("checks of a condition", "conditions.snow.checks.structure=0.4", lambda r: r.conditions[0].checks.structure, 0.4),
]


@pytest.mark.parametrize(("item", "where", "expected"), [s[1:] for s in SETS], ids=[s[0] for s in SETS])
def test_set(tmp_path: Path, item: str, where: Any, expected: Any) -> None:
    assert where(load(tmp_path, FORMS, item)) == expected


@pytest.mark.parametrize("key", ["happened", "effect"])
def test_either_name_of_a_key_overrides_either(tmp_path: Path, key: str) -> None:
    checks = "checks: {{{}: 0.2}}\n"
    for written in ("happened", "effect"):
        assert load(tmp_path, FORMS + checks.format(written)).checks.effect == 0.2
        assert load(tmp_path, FORMS + checks.format(written), f"checks.{key}=null").checks.effect is None


def test_later_sets_win_and_the_rest_stays(tmp_path: Path) -> None:
    recipe = load(tmp_path, FORMS, "conditions.snow.strength=0.1", "conditions.snow.strength=0.2", "seed=4")
    assert recipe.conditions[0].strength == 0.2
    assert recipe.conditions[1].strength == 0.5
    assert recipe.seed == 4


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("variants", "not of the form key=value"),
        ("=2", "not of the form key=value"),
        ("variants=0", "variants"),
        ("varients=2", "Did you mean 'variants'"),
        ("conditions.nigth.strength=1", "no condition 'nigth'. Did you mean 'night'"),
        ("conditions.night=1", "name a field"),
        ("night.strength=1", "'night' is a condition"),
        ("structure=1", "Did you mean 'checks.structure'"),
        ("restore=1", "Did you mean 'objects.restore'"),
        ("accepted=1", "Did you mean 'require.accepted'"),
        ("strength=1", "Did you mean 'conditions.NAME.strength'"),
        ("night=1", "'night' is a condition"),
        ("seed.x=1", "'seed' is a value"),
        ("seed=[1", "not valid YAML"),
        ("variants=${NOPE}", "variable NOPE is not set"),
    ],
)
def test_a_wrong_set_is_an_error(tmp_path: Path, item: str, words: str) -> None:
    assert words in refusal(tmp_path, FORMS + "seed: 3\n", item).message


def test_a_condition_with_dots_in_its_name_can_be_set(tmp_path: Path) -> None:
    fields = {"conditions": [{"name": "v1.5", "prompt": "x"}, "night"]}
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out", **fields)
    assert load_recipe(recipe, ["conditions.v1.5.strength=0.1"]).recipe.conditions[0].strength == 0.1


def test_the_device_of_the_command_line_is_not_kept(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "data"), tmp_path / "out")
    loaded = load_recipe(path, device="cuda:7")
    assert loaded.recipe.device == "cuda:7"
    assert yaml.safe_load(loaded.to_yaml(tmp_path / "out"))["device"] == "auto"
    assert yaml.safe_load(load_recipe(path, ["device=cpu"]).to_yaml(tmp_path / "out"))["device"] == "cpu"


def test_a_fault_of_an_override_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "data"), tmp_path / "out")
    with pytest.raises(
        UsageError, match=r"^--set checks.strukture=1: checks.strukture: unknown key. Did you mean 'structure'"
    ):
        load_recipe(path, ["checks.strukture=1"])
    path.write_text(path.read_text() + "nonsense: 1\n")
    with pytest.raises(UsageError, match=r"r.yaml:\d+: nonsense"):
        load_recipe(path, ["variants=2"])
