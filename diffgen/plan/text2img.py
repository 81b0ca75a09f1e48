"""The sources of a text-to-image recipe, in the form that plans, runs and exports use.

Such a source is a class, a prompt template and a number. Like a picture it has a size and a digest, but no file or label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from diffgen.dataset.dataset import Dataset
from diffgen.models.model import Model
from diffgen.recipe.sections import TextToImage
from diffgen.types import Source, canonical, digest_of


def text2img_dataset(wanted: TextToImage, model: Model, recipe: Path) -> Dataset:
    """The dataset to generate: `images` sources for each class, the classes in turn so that a `--limit` run shows all.

    Every digest includes all classes: a picture is labelled for all of them, so a new class makes it another picture.
    """
    size = wanted.width or model.native, wanted.height or model.native
    return Dataset(recipe, tuple(wanted.classes), {}, tuple(_sources(wanted, size)))


def _sources(wanted: TextToImage, size: tuple[int, int]) -> Iterator[Source]:
    for number in range(wanted.images):
        template = wanted.templates[number % len(wanted.templates)]
        for class_id, name in enumerate(wanted.classes):
            digest = digest_of(canonical(["text2img", wanted.classes, class_id, template, number, size]))
            yield Source(
                split="train",
                name=f"{class_id}-{re.sub(r'[^A-Za-z0-9]+', '-', name)}-{number:05}",
                path="",
                label=None,
                digest=digest,
                width=size[0],
                height=size[1],
                counts=((class_id, 1),),
                image_digest=digest[:32],
                text=template,
            )


def prompt_of(source: Source, words: str, thing: str) -> str:
    """The prompt of a text-to-image source: `words` is the condition's prompt, `thing` the class with its article.

    `{condition}` in the template becomes the part of `words` after `{objects}`, or all of it without `{objects}`.
    """
    assert source.text is not None
    _, placeholder, after = words.partition("{objects}")
    condition = (after if placeholder else words).strip(" ,").replace("{objects}", thing)
    return source.text.replace("{condition}", condition).replace("{class}", thing)
