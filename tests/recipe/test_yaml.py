"""The text of a recipe: YAML that is refused, merge keys, and variables of the environment."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from tests.recipe.loading import LEAST, load, refusal


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a recipe must be a mapping"),
        ("- a\n", "this file is a list"),
        ("just words\n", "this file is a text"),
        ("7\n", "this file is a number"),
        ("conditions: [snow]\noutput: o\n", "dataset: this key is missing"),
        ("a: &a [*a]\n", "an anchor contains itself"),
        ("? [a, b]\n: 1\n", "unhashable key"),
        ("a: [" * 200, "nested too deeply"),
        ("x: " + "[" * 60 + "]" * 60, "nested too deeply"),
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
    assert "too many values" in refusal(tmp_path, "\n".join(lines)).message


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_recipe(tmp_path / "r.yaml")


def test_a_byte_order_mark_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbf" + LEAST.encode())
    assert load_recipe(tmp_path / "r.yaml").recipe.output == "out"


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


def test_environment_expands_in_text_and_whole_values_are_read_as_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOT_OF_DATA", "/data")
    monkeypatch.setenv("SEED", "42")
    monkeypatch.setenv("NAME", "[not, yaml]")
    recipe = load(
        tmp_path, "dataset: ${ROOT_OF_DATA}/d.yaml\noutput: '${NAME} ${SEED}'\nseed: ${SEED}\nconditions: [snow]"
    )
    assert (recipe.dataset, recipe.output, recipe.seed) == ("/data/d.yaml", "[not, yaml] 42", 42)


@pytest.mark.parametrize("key", ["prompt", "instruction", "negative_prompt"])
def test_a_prompt_is_not_taken_from_the_environment(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    condition = {"name": "a", "prompt": "x", key: "snow ${TOKEN}"}
    error = refusal(tmp_path, LEAST.replace("[snow]", json.dumps([condition])))
    assert "${TOKEN}" in error.message
    assert f"--set conditions.NAME.{key}=" in (error.hint or "")
    assert "s3cret" not in f"{error.message} {error.hint}"


def test_a_missing_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOPE", raising=False)
    assert "${NOPE}" in refusal(tmp_path, LEAST + "device: ${NOPE}\n").message


def test_a_dollar_that_is_no_variable_stays(tmp_path: Path) -> None:
    assert load(tmp_path, LEAST.replace("[snow]", "[{name: a, prompt: 'cost $5 {x} $HOME'}]")).conditions[0].prompt == (
        "cost $5 {x} $HOME"
    )


def test_a_set_changes_one_of_the_places_that_share_an_anchor(tmp_path: Path) -> None:
    conditions = "[{name: a, prompt: x, objects: &o {detail: 0.1}}, {name: b, prompt: x, objects: *o}]"
    a, b = load(tmp_path, LEAST.replace("[snow]", conditions), "conditions.b.objects.detail=0.9").conditions
    assert (a.objects.detail, b.objects.detail) == (0.1, 0.9)
