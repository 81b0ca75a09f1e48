"""Class names as English nouns with an article or in the plural, for prompts, which text encoders read as captions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

# A single one of them is a pair.
_PAIRS = {
    "scissors", "skis", "trousers", "pants", "jeans", "shorts", "glasses", "sunglasses", "goggles", "binoculars", "pliers"
}  # fmt: skip
_MASS = {"broccoli", "debris", "luggage", "baggage", "furniture", "litter", "garbage"}  # which nobody counts
# Where the first letter does not say how the word begins.
_WITH_A = ("uni", "use", "eu", "one")
_WITH_AN = ("hour", "heir", "honest")
_SPELT_WITH_AN = "AEFHILMNORSX"  # the names of these letters begin with a vowel: an SUV


@lru_cache(maxsize=4096)
def one_or_more(name: str, count: int) -> str:
    """A class name for `count` objects: "a car", "cars", "an SUV", "a pair of scissors". Names may be plural themselves."""
    noun = name.replace("_", " ").strip() or name
    head = noun.rpartition(" ")[2].lower()
    if head in _MASS:
        return noun
    words = _pluralizer()
    if count > 1:
        return f"{noun}s" if noun.isupper() else str(words.plural(noun))
    if head in _PAIRS:
        return f"a pair of {noun}"
    if words.is_plural(noun) and not words.is_singular(noun):
        noun = str(words.singular(noun))
    return f"{_article(noun)} {noun}"


def _article(noun: str) -> str:
    first, low = noun.split(" ")[0], noun.lower()
    if first.isupper() and len(first) > 1:
        return "an" if first[0] in _SPELT_WITH_AN else "a"
    vowel = low[:1] in ("a", "e", "i", "o", "u") and not low.startswith(_WITH_A)
    return "an" if vowel or low.startswith(_WITH_AN) else "a"


@lru_cache(maxsize=1)
def _pluralizer() -> Any:
    from pluralizer import Pluralizer

    return Pluralizer()
