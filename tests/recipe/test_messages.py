"""What is wrong in a recipe is said with its file and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.recipe.loading import LEAST, load, refusal


@pytest.mark.parametrize("key", ["output", "dataset"])
def test_a_path_of_half_a_character_is_refused_and_one_of_raw_bytes_is_not(tmp_path: Path, key: str) -> None:
    text = LEAST.replace("out\n" if key == "output" else "d.yaml\n", '"{}"\n')
    assert "r.yaml:" in refusal(tmp_path, text.format(r"o\ud800")).message
    assert getattr(load(tmp_path, text.format(r"o\udcff")), key) == "o\udcff"
    assert "is not valid Unicode" in refusal(tmp_path, LEAST, f'{key}="\\ud800"').message


@pytest.mark.parametrize("fault", [r'device="\udcff"', r'conditions=["\udcff"]', r'conditions=[{"\udcff": {}}]'])
def test_a_fault_with_a_byte_that_is_not_utf_8_is_told(tmp_path: Path, fault: str) -> None:
    assert "\udcff" in refusal(tmp_path, LEAST, fault).message


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
    ("duplicate key", "seed: 1\nseed: 2", 5, r"duplicate key 'seed'$"),
    ("tab", "select:\n\tshare: 1", 5, r"not valid YAML"),
    ("unclosed quote", "device: 'cpu", None, r"not valid YAML"),
    ("restore, one attempt", "seed: 1\nchecks: {on_object_lost: restore}", 5, r"checks.on_object_lost: .* attempts: 2"),
    ("a tag", "device: !!python/object:os.system x", 4, r"could not determine a constructor for the tag"),
    ("half a character", 'device: "cpu\\ud800"', 4, r"'cpu\\ud800' is not valid Unicode"),
    ("half a character in a key", '"\\ud800": 1', 4, r"is not valid Unicode"),
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
    ("the same name twice", "  - snow\n  - snow: {strength: 0.9}", 5, "conditions[1]: duplicate name 'snow'"),
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
