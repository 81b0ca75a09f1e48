"""What a small model can be told: which words it was taught, and for which condition. Larger models have no such list."""

from __future__ import annotations

import json
import re
from pathlib import Path

from diffgen.errors import DiffgenError, why

Vocabulary = dict[str, list[str]]  # condition -> words that mean it; "" -> other words it has read


def read_vocabulary(path: Path) -> Vocabulary:
    """Raises DiffgenError when the file is not a mapping of conditions to lists of words."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DiffgenError(f"{path}: cannot be read: {why(error)}", "copy or download the model again") from None
    if not isinstance(found, dict) or not all(isinstance(words, list) for words in found.values()):
        raise DiffgenError(f"{path}: not a mapping of conditions to words", "copy or download the model again")
    return found


def meanings(word: str, vocabulary: Vocabulary) -> list[str]:
    """Conditions that a word means."""
    return [kind for kind, words in vocabulary.items() if kind and word in words]


def misheard(prompt: str, vocabulary: Vocabulary) -> str | None:
    """What a prompt asks for that the model was not taught, as the end of a sentence; None when it was."""
    said = re.findall(r"[^\W\d_]+", prompt.lower())
    words = list(dict.fromkeys(said))
    known = {word for words in vocabulary.values() for word in words}
    if unknown := [word for word in words if word not in known]:
        return f"was never taught {', '.join(map(repr, unknown))}"
    # "no snow" does not name snow.
    wanted = [word for word, before in zip(said, ["", *said], strict=False) if before not in ("no", "without", "not")]
    meant = [meanings(word, vocabulary) for word in wanted]
    makes = f"makes only {', '.join(kind for kind in vocabulary if kind)}"
    for added in re.findall(r"\badd\s+([^,.;:]+)", prompt.lower()):
        if not any(meanings(word, vocabulary) for word in re.findall(r"[^\W\d_]+", added)):
            return f"cannot add {added.strip()!r}: it {makes}"
    if not any(meant):
        return f"{makes}, and this names none of them"
    # A word of two conditions ("haze") decides nothing.
    clear = list(dict.fromkeys(kinds[0] for kinds in meant if len(kinds) == 1))
    return f"makes one condition at a time, and this names {' and '.join(clear)}" if len(clear) > 1 else None
