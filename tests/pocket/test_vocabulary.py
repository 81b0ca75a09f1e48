"""What the shipped model was taught: the list beside it is that of its training."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffgen.dataset.file_cache import FileCache
from diffgen.models.find import resolve_model
from diffgen.models.model import vocabulary
from diffgen.models.vocabulary import Vocabulary, misunderstood
from diffgen.recipe.presets import presets


@pytest.fixture
def pocket(tmp_path: Path) -> Vocabulary:
    with FileCache(tmp_path) as cache:
        found = vocabulary(resolve_model("pocket", None, Path(), cache))
    assert found is not None
    return found


def test_pocket_was_taught_every_preset(pocket: Vocabulary) -> None:
    assert {name: misunderstood(fields["instruction"], pocket) for name, fields in presets().items()} == dict.fromkeys(
        presets()
    )


def test_pocket_knows_its_own_texts_and_says_what_it_cannot_do(pocket: Vocabulary) -> None:
    root = Path(__file__).parents[2]
    from scripts.pocket.conditions import PHRASES, VARIANTS
    from scripts.pocket.prompts import preset_texts, vocabulary

    assert pocket == vocabulary(preset_texts(root / "diffgen/recipe/conditions.yaml")), "the list is of these texts"
    texts = [text for kind, texts in {**PHRASES, **VARIANTS}.items() if kind != "same" for text in texts.split("|")]
    texts += [f"a car, add {text}" for text in texts]
    assert {text: said for text in texts if (said := misunderstood(text, pocket))} == {}
    assert misunderstood("make it night, add an elephant", pocket), "each of its words stands in the texts"
    for word in ("remove", "replace", "purple"):
        assert misunderstood(f"make it night and {word} the car", pocket) == f"was not trained on '{word}'"
