"""Class names as English nouns with an article or in the plural, for prompts, which text encoders read as captions."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

# A single one of them is a pair.
_PAIRS = {
    "scissors", "skis", "trousers", "pants", "jeans", "shorts", "glasses", "sunglasses", "goggles", "binoculars", "pliers"
}  # fmt: skip
_MASS = {"broccoli", "debris", "luggage", "baggage", "furniture", "litter", "garbage"}  # which nobody counts
_SINGULAR = {"lens", "species", "series", "bias", "news", "chassis", "gas", "atlas"}  # which end like a plural
_ACRONYMS = {"SUV", "ATV", "UAV", "HGV", "LGV", "RV", "EV", "TV", "CCTV", "ATM", "FPV", "AGV", "MPV"}
_SPELT_WITH_AN = "AEFHILMNORSX"  # the names of these letters begin with a vowel: an SUV
# A vowel that is spoken with a consonant before it, and a consonant that is not spoken.
_WITH_A = re.compile(r"uni(?![ndm])|use|eu|one\b|once")
_WITH_AN = re.compile(r"hour|heir|honest")


@lru_cache(maxsize=4096)
def one_or_more(name: str, count: int) -> str:
    """A class name for `count` objects: "a car", "cars", "an SUV", "a pair of scissors". Names may be plural themselves.

    Names in capitals are written small, but for a few acronyms.
    """
    noun = " ".join(name.replace("_", " ").split()) or name
    if noun in _ACRONYMS:
        return f"{noun}s" if count > 1 else f"{'an' if noun[0] in _SPELT_WITH_AN else 'a'} {noun}"
    noun = noun.lower() if noun.isupper() else noun
    head = noun.rpartition(" ")[2].lower()
    if head in _MASS:
        return noun
    words = _pluralizer()
    if count > 1:
        return noun if noun.startswith("pair of ") else str(words.plural(noun))
    if head in _PAIRS:
        return f"a pair of {noun.removeprefix('pair of ')}"
    if head not in _SINGULAR and words.is_plural(noun) and not words.is_singular(noun):
        noun = str(words.singular(noun))
    low = noun.lower()
    vowel = low[:1] in set("aeiou") and not _WITH_A.match(low)
    return f"{'an' if vowel or _WITH_AN.match(low) else 'a'} {noun}"


@lru_cache(maxsize=1)
def _pluralizer() -> Any:
    from pluralizer import Pluralizer

    return Pluralizer()
