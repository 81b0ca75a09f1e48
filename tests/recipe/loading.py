"""Recipes from text, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from diffgen.recipe.schema import Recipe
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


FORMS = "dataset: d\noutput: o\nconditions: [snow, {night: {strength: 0.5}}, {name: mine, prompt: x}, {fog: }]\n"
