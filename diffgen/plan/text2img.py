"""Sources that are no pictures: what a recipe's `text2img` asks for, in the shape that plans, runs and exports know.

Such a source is a class, a template and a number. It has a size and a digest as pictures have, no file and no label.
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
    """The dataset to be made: a source for each class and number, the classes in turn, so that the first few show all.

    All classes enter every digest: a picture is labelled for all of them, and so is another one when there is one more.
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
    """The prompt of such a source: `words` is the condition's prompt, `thing` its class as a noun with an article.

    The words of a condition are what its prompt says after `{objects}`, or all of it where that does not stand there.
    """
    assert source.text is not None
    _, found, after = words.partition("{objects}")
    condition = (after if found else words).strip(" ,").replace("{objects}", thing)
    return source.text.replace("{condition}", condition).replace("{class}", thing)
