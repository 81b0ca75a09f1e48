"""The prompt of a source under a condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from diffgen.plan.english import one_or_more
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
    words = [one_or_more(names[i], n) for i, n in ranked]
    if not words:
        return "a scene"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
