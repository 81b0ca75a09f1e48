"""The words that a small model was trained on, and the conditions they stand for. Larger models have no such list."""

from __future__ import annotations

import json
import re
from pathlib import Path

from diffgen.errors import DiffgenError, why

_WORD = re.compile(r"[^\W\d_]+")
Vocabulary = dict[str, list[str]]  # condition -> words that mean it; "" -> other known words


def read_vocabulary(path: Path) -> Vocabulary:
    """Raises DiffgenError if the file is not a mapping of conditions to lists of words."""
    hint = "copy or download the model again"
    try:
        vocabulary = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DiffgenError(f"{path}: cannot be read: {why(error)}", hint) from None
    if not isinstance(vocabulary, dict) or not all(isinstance(words, list) for words in vocabulary.values()):
        raise DiffgenError(f"{path}: not a mapping of conditions to words", hint)
    return vocabulary


def misunderstood(prompt: str, vocabulary: Vocabulary) -> str | None:
    """Why the model cannot follow a prompt, as the end of a sentence about the model; None if it can."""

    def conditions(word: str) -> list[str]:
        return [condition for condition, words in vocabulary.items() if condition and word in words]

    words = _WORD.findall(prompt.lower())
    known = {word for words in vocabulary.values() for word in words}
    if unknown := [word for word in dict.fromkeys(words) if word not in known]:
        return f"was not trained on {', '.join(map(repr, unknown))}"
    # "no snow" does not name snow.
    named = [
        conditions(word)
        for word, before in zip(words, ["", *words], strict=False)
        if before not in ("no", "without", "not")
    ]
    makes = f"makes only {', '.join(condition for condition in vocabulary if condition)}"
    for added in re.findall(r"\badd\s+([^,.;:]+)", prompt.lower()):
        if not any(map(conditions, _WORD.findall(added))):
            return f"cannot add {added.strip()!r}: it {makes}"
    if not any(named):
        return f"{makes}, and this prompt names none of them"
    # A word of two conditions ("haze") is ambiguous and decides nothing.
    clear = list(dict.fromkeys(found[0] for found in named if len(found) == 1))
    return f"makes one condition at a time, but this prompt names {' and '.join(clear)}" if len(clear) > 1 else None
