"""What a small model was taught, and what it says of texts that ask for more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffgen.errors import DiffgenError
from diffgen.models.vocabulary import Vocabulary, misunderstood, read_vocabulary

WORDS: Vocabulary = {
    "snow": ["snow"],
    "fog": ["fog", "haze"],
    "dust": ["dust", "haze"],
    "": ["make", "it", "a", "without", "add", "kangaroo", "and"],
}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("make it snow", None),
        ("Make it SNOW, a haze", None),
        ("haze", None),
        ("make it purple", "was not trained on 'purple'"),
        ("snow, dust", "makes one condition at a time, but this prompt names snow and dust"),
        ("no snow", "was not trained on 'no'"),
        ("make it", "makes only snow, fog, dust, and this prompt names none of them"),
        ("make it without snow", "makes only snow, fog, dust, and this prompt names none of them"),
        ("snow without dust", None),
        ("", "makes only snow, fog, dust, and this prompt names none of them"),
        ("snow über alles", "was not trained on 'über', 'alles'"),
        ("add a snow", None),
        ("make it snow, add a kangaroo", "cannot add 'a kangaroo': it makes only snow, fog, dust"),
        ("Add a kangaroo.", "cannot add 'a kangaroo': it makes only snow, fog, dust"),
        ("add snow without a kangaroo", None),
        ("add", "makes only snow, fog, dust, and this prompt names none of them"),
    ],
)
def test_misheard(text: str, said: str | None) -> None:
    assert misunderstood(text, WORDS) == said


@pytest.mark.parametrize("text", ["", "[]", '{"snow": 3}', "\x00"])
def test_a_broken_list_is_one_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text(text)
    with pytest.raises(DiffgenError, match=r"v\.json"):
        read_vocabulary(tmp_path / "v.json")


@pytest.mark.parametrize("words", [["pocket"], ["show", "pocket"]])
def test_models_shows_what_pocket_can_do(words: list[str], cli: Callable[..., Any]) -> None:
    answer = cli("models", *words)
    assert answer.code == 0
    assert "snow, night, fog, rain" in answer.out
    facts = json.loads(cli("models", *words, "--json").out)
    assert "blizzard" in facts["words"]["snow"]


def test_an_unknown_model_is_one_error(cli: Callable[..., Any]) -> None:
    answer = cli("models", "pockett")
    assert answer.code == 2
    assert "did you mean 'pocket'?" in answer.err
