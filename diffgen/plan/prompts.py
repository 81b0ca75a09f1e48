"""The prompt of a source under a condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from diffgen.plan.text2img import prompt_of
from diffgen.recipe.sections import Condition
from diffgen.types import Settings, Source

# Class names that a prompt lists at most: text encoders silently truncate long prompts, and would lose the condition.
MAX_OBJECT_NAMES = 4


def condition_text(condition: Condition, settings: Settings) -> str:
    """The text of a condition that the editor's family reads: instruction or prompt, `{objects}` not yet filled in."""
    instruct = settings.editor == "instruct" and condition.instruction
    return str(condition.instruction if instruct else condition.prompt)


def resolve_prompt(source: Source, condition: Condition, settings: Settings, objects: str) -> str:
    """The prompt of a source under a condition; `objects` fills in `{objects}`."""
    if source.text is not None:
        return prompt_of(source, condition.prompt, objects)
    return condition_text(condition, settings).replace("{objects}", objects)


def painted_words(source: Source, settings: Settings, names: Sequence[str]) -> str:
    """The objects that a task's prompt names: all of them (background), the inserted one, or those not removed."""
    if settings.task == "background":
        return describe(source, names)
    if settings.task == "insert":
        return describe(replace(source, counts=tuple((i, 1) for i in settings.classes or ())), names)
    left = tuple((i, n) for i, n in source.counts if settings.classes is not None and i not in settings.classes)
    return describe(replace(source, counts=left), names)


def describe(source: Source, names: Sequence[str]) -> str:
    """The objects of a picture in words, most frequent first: "cars, a person and a traffic light"."""
    ranked = sorted(source.counts, key=lambda pair: (-pair[1], pair[0]))[:MAX_OBJECT_NAMES]
    words = [_article(names[i]) if n == 1 else _plural(names[i]) for i, n in ranked]
    if not words:
        return "a scene"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" and noun else f"a {noun}"


def _plural(noun: str) -> str:
    irregular = {"person": "people", "man": "men", "woman": "women", "child": "children", "sheep": "sheep"}
    if noun in irregular:
        return irregular[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"
