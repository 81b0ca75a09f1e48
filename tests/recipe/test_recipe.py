"""The recipe file: what it accepts, what it says when it does not, overrides, environment, and its copy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.errors import UsageError
from diffgen.recipe import Recipe, load_recipe, presets, recipe_schema
from tests.fakes import put

LEAST = "dataset: d.yaml\noutput: out\nconditions: [snow]\n"


def load(tmp_path: Path, text: str, *sets: str, **options: Any) -> Recipe:
    return load_recipe(put(tmp_path / "r.yaml", text), sets, **options).recipe


def refusal(tmp_path: Path, text: str, *sets: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text, *sets)
    assert caught.value.hint, "an error says what to do"
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize("key", ["output", "dataset"])
def test_a_path_of_half_a_character_is_refused_and_one_of_raw_bytes_is_not(tmp_path: Path, key: str) -> None:
    text = LEAST.replace("out\n" if key == "output" else "d.yaml\n", '"{}"\n')
    assert "r.yaml:" in refusal(tmp_path, text.format(r"o\ud800")).message
    assert getattr(load(tmp_path, text.format(r"o\udcff")), key) == "o\udcff"
    assert "holds half" in refusal(tmp_path, LEAST, f'{key}="\\ud800"').message


@pytest.mark.parametrize("fault", [r'device="\udcff"', r'conditions=["\udcff"]', r'conditions=[{"\udcff": {}}]'])
def test_a_fault_with_a_byte_that_is_not_utf_8_is_told(tmp_path: Path, fault: str) -> None:
    assert "\udcff" in refusal(tmp_path, LEAST, fault).message


def test_the_least_recipe_takes_every_default(tmp_path: Path) -> None:
    recipe = load(tmp_path, LEAST)
    assert (recipe.model, recipe.variants, recipe.assign, recipe.select.splits) == ("pocket", 1, "all", ["train"])
    assert recipe.conditions[0].prompt == presets()["snow"]["prompt"]


# (name, what follows a good first three lines, line, words of the message in order)
REFUSED: list[tuple[str, str, int | None, str]] = [
    ("unknown key", "varients: 2", 4, r"varients: unknown key\. Did you mean 'variants'\?"),
    ("unknown key without a neighbour", "zzz: 2", 4, r"zzz: unknown key$"),
    ("unknown key of select", "select:\n  share: 1\n  clases: [car]", 6, r"select.clases: unknown key.*'classes'"),
    ("unknown key of checks", "checks: {structur: 1}", 4, r"checks.structur: unknown key.*'structure'"),
    ("out of range", "variants: 0", 4, r"variants: must be 1 or more, got 0$"),
    ("not a number", "variants: many", 4, r"variants: must be a whole number, got 'many'$"),
    ("not one of the words", "assign: some", 4, r"assign: .*'all' or 'one', got 'some'"),
    ("nan", "select: {share: .nan}", 4, r"select.share: .*finite"),
    ("a list where a mapping stands", "select: [a]", 4, r"select: "),
    ("batch size nought", "batch_size: 0", 4, r"batch_size"),
    ("negative seed", "seed: -1", 4, r"seed: .*got -1"),
    ("duplicate key", "seed: 1\nseed: 2", 5, r"the key 'seed' stands twice"),
    ("tab", "select:\n\tshare: 1", 5, r"not valid YAML"),
    ("unclosed quote", "device: 'cpu", None, r"not valid YAML"),
    ("restore, one attempt", "seed: 1\nchecks: {on_object_lost: restore}", 5, r"checks.on_object_lost: .* attempts: 2"),
    ("a tag", "device: !!python/object:os.system x", 4, r"cannot read this value"),
    ("half a character", 'device: "cpu\\ud800"', 4, r"'cpu\\ud800' holds half a character"),
    ("half a character in a key", '"\\ud800": 1', 4, r"holds half a character"),
    ("an impossible date", "device: 2026-99-99", 4, r"cannot read this value"),
]


@pytest.mark.parametrize(("more", "line", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_wrong_key_is_an_error_with_file_and_line(tmp_path: Path, more: str, line: int | None, words: str) -> None:
    error = refusal(tmp_path, LEAST + more + "\n")
    assert error.message.startswith(f"{tmp_path / 'r.yaml'}:{line if line else ''}")
    assert re.search(words, error.message), error.message


# (name, the conditions, line, words)
CONDITIONS_REFUSED = [
    ("no preset", "  - snwo", 4, "there is no preset 'snwo'. Did you mean 'snow'?"),
    ("unknown key of a preset", "  - snow\n  - night: {strenght: 0.5}", 5, "strenght: unknown key. Did you mean 'strength'?"),
    ("value of a preset", "  - night:\n      strength: 2", 5, "strength"),
    ("no prompt", "  - name: mine\n    strength: 0.5", 4, "prompt: this key is missing"),
    ("a name with a slash", "  - {name: a/b, prompt: x}", 4, "name"),
    ("the same name twice", "  - snow\n  - snow: {strength: 0.9}", 5, "conditions[1]: the name 'snow' stands twice"),
    ("restore without another try", "  - fog\n  - snow:\n      checks: {on_object_lost: restore}", 6, "write attempts: 2"),
    ("none", "  []", 3, "conditions"),
    ("a number", "  - 7", 4, "conditions"),
    ("settings that are text", "  - night: dark", 4, "must be a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("conditions", "line", "words"), [r[1:] for r in CONDITIONS_REFUSED], ids=[r[0] for r in CONDITIONS_REFUSED]
)
def test_a_wrong_condition_is_an_error_with_its_line(
    tmp_path: Path, conditions: str, line: int | None, words: str
) -> None:
    error = refusal(tmp_path, f"dataset: d.yaml\noutput: out\nconditions:\n{conditions}\n")
    assert words in error.message
    if line:
        assert f"r.yaml:{line}: " in error.message


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a recipe is a mapping"),
        ("- a\n", "this is a list"),
        ("just words\n", "this is a text"),
        ("7\n", "this is a number"),
        ("conditions: [snow]\noutput: o\n", "dataset: this key is missing"),
        ("a: &a [*a]\n", "an anchor holds itself"),
        ("? [a, b]\n: 1\n", "a key must be text"),
        ("a: [" * 200, "YAML|nested|unfolds"),
        ("x: " + "[" * 60 + "]" * 60, "unfolds to too many values"),
        ("%YAML 9\n---\na: 1", ""),
        ("a: b: c\n", "r.yaml:1: not valid YAML"),
        ("a: \x07\n", "not valid YAML"),
    ],
)
def test_what_is_no_recipe_at_all(tmp_path: Path, text: str, words: str) -> None:
    assert re.search(words, refusal(tmp_path, text).message)


def test_a_yaml_bomb_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    assert "unfolds to too many values" in refusal(tmp_path, "\n".join(lines)).message


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_recipe(tmp_path / "r.yaml")


def test_a_byte_order_mark_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbf" + LEAST.encode())
    assert load_recipe(tmp_path / "r.yaml").recipe.output == "out"


@pytest.mark.parametrize(("name", "words"), [("no.yaml", "cannot read the recipe"), (".", "not a run folder")])
def test_a_recipe_that_is_not_there(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_recipe(tmp_path / name)


def test_merge_keys_work_and_the_own_key_wins(tmp_path: Path) -> None:
    text = """
dataset: d.yaml
output: out
conditions:
  - &base {name: a, prompt: x, strength: 0.3}
  - {<<: *base, name: b}
"""
    a, b = load(tmp_path, text).conditions
    assert (a.name, b.name, b.strength) == ("a", "b", 0.3)


# --- overrides

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
    ("checks of a condition", "conditions.snow.checks.structure=0.4", lambda r: r.conditions[0].checks.structure, 0.4),
]
FORMS = "dataset: d\noutput: o\nconditions: [snow, {night: {strength: 0.5}}, {name: mine, prompt: x}, {fog: }]\n"


@pytest.mark.parametrize(("item", "where", "expected"), [s[1:] for s in SETS], ids=[s[0] for s in SETS])
def test_set(tmp_path: Path, item: str, where: Any, expected: Any) -> None:
    assert where(load(tmp_path, FORMS, item)) == expected


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
        ("seed.x=1", "'seed' holds no keys"),
        ("seed=[1", "not valid YAML"),
        ("variants=${NOPE}", "no NOPE"),
    ],
)
def test_a_wrong_set_is_an_error(tmp_path: Path, item: str, words: str) -> None:
    assert words in refusal(tmp_path, FORMS + "seed: 3\n", item).message


# --- environment


def test_environment_expands_in_text_and_whole_values_are_read_as_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOT_OF_DATA", "/data")
    monkeypatch.setenv("SEED", "42")
    monkeypatch.setenv("PROMPT", "[not, yaml]")
    text = "dataset: ${ROOT_OF_DATA}/d.yaml\noutput: out\nseed: ${SEED}\nconditions: [{name: a, prompt: '${PROMPT} ${SEED}'}]"
    recipe = load(tmp_path, text)
    assert (recipe.dataset, recipe.seed) == ("/data/d.yaml", 42)
    assert recipe.conditions[0].prompt == "[not, yaml] 42"


def test_a_missing_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOPE", raising=False)
    assert "${NOPE}" in refusal(tmp_path, LEAST + "device: ${NOPE}\n").message


def test_a_dollar_that_is_no_variable_stays(tmp_path: Path) -> None:
    assert load(tmp_path, LEAST.replace("[snow]", "[{name: a, prompt: 'cost $5 {x} $HOME'}]")).conditions[0].prompt == (
        "cost $5 {x} $HOME"
    )


# --- the copy in the run folder


def copied(path: Path, folder: Path, *sets: str) -> tuple[Recipe, dict[str, Any], Path]:
    """(the recipe read back from its copy, the copy's text as data, the dataset that it means)."""
    text = load_recipe(path, sets).to_yaml(folder)
    put(folder / "recipe.yaml", text)
    again = load_recipe(folder)
    return again.recipe, yaml.safe_load(text), (again.base / again.recipe.dataset).resolve()


def test_the_copy_means_the_same_dataset_and_output(tmp_path: Path) -> None:
    path = put(tmp_path / "a/b/r.yaml", LEAST.replace("d.yaml", "../data/d.yaml"))
    recipe, data, dataset = copied(path, tmp_path / "runs/x")
    assert dataset == (tmp_path / "a/data/d.yaml").resolve()
    assert data["output"] == "."
    assert load_recipe(tmp_path / "runs/x").output == (tmp_path / "runs/x").resolve()
    before = load_recipe(path).recipe
    assert recipe.model_dump(exclude={"dataset", "output"}) == before.model_dump(exclude={"dataset", "output"})


def test_the_copy_keeps_environment_variables_unexpanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TOKEN", "s3cret")
    monkeypatch.setenv("SEED", "5")
    text = (
        "dataset: ${DATA}/d.yaml\noutput: out\nseed: ${SEED}\nconditions: [{night: {prompt: 'x ${TOKEN}'}}, "
        "{name: own, prompt: 'y ${TOKEN}'}]\n"
    )
    recipe, data, dataset = copied(put(tmp_path / "r.yaml", text), tmp_path / "out")
    assert data["dataset"] == "${DATA}/d.yaml"
    assert data["seed"] == "${SEED}"
    assert [c["prompt"] for c in data["conditions"]] == ["x ${TOKEN}", "y ${TOKEN}"]
    assert "s3cret" not in (tmp_path / "out/recipe.yaml").read_text()
    assert recipe.seed == 5
    assert dataset == (tmp_path / "data/d.yaml").resolve()


def test_a_relative_path_through_the_environment_is_rebased_and_stays_unexpanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHICH", "street")
    _, data, dataset = copied(
        put(tmp_path / "r.yaml", LEAST.replace("d.yaml", "sets/${WHICH}/d.yaml")), tmp_path / "runs/out"
    )
    assert "${WHICH}" in data["dataset"]
    assert dataset == (tmp_path / "sets/street/d.yaml").resolve()


def test_the_copy_holds_what_was_set(tmp_path: Path) -> None:
    recipe, _, _ = copied(put(tmp_path / "r.yaml", LEAST), tmp_path / "out", "conditions.snow.strength=0.2", "seed=9")
    assert (recipe.conditions[0].strength, recipe.seed) == (0.2, 9)


def test_the_copy_means_the_same_model(tmp_path: Path) -> None:
    (tmp_path / "models/mine").mkdir(parents=True)
    for model, key in (("models/mine", None), ({"folder": "models/mine"}, "folder"), ("sd-turbo", None)):
        text = LEAST + yaml.safe_dump({"model": model})
        recipe, _, _ = copied(put(tmp_path / "r.yaml", text), tmp_path / "runs/out")
        place = recipe.model[key] if key else recipe.model  # type: ignore[index]
        if model == "sd-turbo":
            assert place == "sd-turbo"
        else:
            assert (tmp_path / "runs/out" / place).resolve() == (tmp_path / "models/mine").resolve()


def test_a_copy_of_the_copy_is_the_copy(tmp_path: Path) -> None:
    path = put(tmp_path / "r.yaml", FORMS)
    first = load_recipe(path).to_yaml(tmp_path / "out")
    put(tmp_path / "out/recipe.yaml", first)
    assert load_recipe(tmp_path / "out").to_yaml(tmp_path / "out") == first


def test_output_on_the_command_line_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    loaded = load_recipe(put(tmp_path / "r.yaml", LEAST), (), Path("mine"))
    assert loaded.output == (tmp_path / "here/mine").resolve()


def test_the_output_of_the_recipe_is_relative_to_the_recipe(tmp_path: Path) -> None:
    assert load_recipe(put(tmp_path / "a/r.yaml", LEAST)).output == (tmp_path / "a/out").resolve()


# --- presets and schema


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
