"""What a small model was taught, and what it says of texts that ask for more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffgen.cache import FileCache
from diffgen.errors import DiffgenError
from diffgen.models import resolve_model, vocabulary
from diffgen.recipe import presets
from diffgen.vocabulary import Vocabulary, misheard, read_vocabulary
from tests.fakes import FakeEditor, make_dataset

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
        ("make it purple", "was never taught 'purple'"),
        ("snow, dust", "makes one condition at a time, and this names snow and dust"),
        ("no snow", "was never taught 'no'"),
        ("make it", "makes only snow, fog, dust, and this names none of them"),
        ("make it without snow", "makes only snow, fog, dust, and this names none of them"),
        ("snow without dust", None),
        ("", "makes only snow, fog, dust, and this names none of them"),
        ("snow über alles", "was never taught 'über', 'alles'"),
        ("add a snow", None),
        ("make it snow, add a kangaroo", "cannot add 'a kangaroo': it makes only snow, fog, dust"),
        ("Add a kangaroo.", "cannot add 'a kangaroo': it makes only snow, fog, dust"),
        ("add snow without a kangaroo", None),
        ("add", "makes only snow, fog, dust, and this names none of them"),
    ],
)
def test_misheard(text: str, said: str | None) -> None:
    assert misheard(text, WORDS) == said


@pytest.mark.parametrize("text", ["", "[]", '{"snow": 3}', "\x00"])
def test_a_broken_list_is_one_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text(text)
    with pytest.raises(DiffgenError, match=r"v\.json"):
        read_vocabulary(tmp_path / "v.json")


@pytest.fixture
def pocket(tmp_path: Path) -> Vocabulary:
    with FileCache(tmp_path) as cache:
        found = vocabulary(resolve_model("pocket", None, Path(), cache))
    assert found is not None
    return found


def test_pocket_was_taught_every_preset(pocket: Vocabulary) -> None:
    assert {name: misheard(fields["instruction"], pocket) for name, fields in presets().items()} == dict.fromkeys(
        presets()
    )


def test_pocket_knows_its_own_texts_and_says_what_it_cannot_do(pocket: Vocabulary) -> None:
    root = Path(__file__).parents[2]
    from scripts.pocket.conditions import PHRASES, VARIANTS
    from scripts.pocket.prompts import preset_texts, vocabulary

    assert pocket == vocabulary(preset_texts(root / "diffgen/conditions.yaml")), "the list is of these texts"
    texts = [text for kind, texts in {**PHRASES, **VARIANTS}.items() if kind != "same" for text in texts.split("|")]
    texts += [f"a car, add {text}" for text in texts]
    assert {text: said for text in texts if (said := misheard(text, pocket))} == {}
    assert misheard("make it night, add an elephant", pocket), "each of its words stands in the texts"
    for word in ("remove", "replace", "purple"):
        assert misheard(f"make it night and {word} the car", pocket) == f"was never taught '{word}'"


def test_plan_warns(tmp_path: Path, cli: Callable[..., Any]) -> None:
    data = make_dataset(tmp_path / "data")
    recipe = tmp_path / "r.yaml"
    conditions = ["snow", {"name": "zoo", "prompt": "unicorns in {objects}"}]
    recipe.write_text(json.dumps({"dataset": str(data), "output": "o", "model": "pocket", "conditions": conditions}))
    facts = json.loads(cli("plan", recipe, "--json").out)
    assert facts["prompts"] == ["zoo: the model was never taught 'unicorns'"]
    assert "prompt    zoo: the model was never taught 'unicorns'" in cli("plan", recipe).out


def test_plan_and_run_warn_of_guidance_that_was_not_trained(tmp_path: Path, cli: Callable[..., Any]) -> None:
    data = make_dataset(tmp_path / "data")
    recipe = tmp_path / "r.yaml"
    conditions = ["snow", {"night": {"guidance": 3}}, {"fog": {"guidance": 1, "image_guidance": 1.5}}]
    recipe.write_text(json.dumps({"dataset": str(data), "output": "o", "model": "pocket", "conditions": conditions}))
    said = [
        "night: the model was trained for guidance 1 only, and this asks for 3",
        "fog: the model was trained for image_guidance 1 only, and this asks for 1.5",
    ]
    assert json.loads(cli("plan", recipe, "--json").out)["guidance"] == said
    assert f"guidance  {said[0]}\n" in cli("plan", recipe).out
    assert f"warning: {said[0]}\n" in cli("run", recipe, editor=FakeEditor()).err


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
