"""The sizes of pictures whose annotations state none."""

from __future__ import annotations

import json

from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.images import read_size
from diffgen.dataset.orientation import orientation
from diffgen.errors import SourceError, why
from diffgen.files import read_regular, stamp


def header_size(image: str, cache: FileCache) -> tuple[int, int]:
    """(width, height) in pixels, from the header of the image file.

    Raises ValueError if it cannot be read, and for a picture that its EXIF orientation rotates: without a stated size it is
    unknown whether the annotation was made on the rotated picture.
    """
    known = json.loads(cache.known("header size", image, stamp([image]), lambda: json.dumps(_read(image))))
    if isinstance(known, str):
        raise ValueError(f"the annotation states no size, and {known}")
    width, height = known
    return width, height


def _read(image: str) -> tuple[int, int] | str:
    try:
        raw = read_regular(image)
        size = read_size(raw)
    except OSError as error:
        return f"cannot read the image: {why(error)}"
    except SourceError as error:
        return error.message
    return "its EXIF orientation rotates the picture" if orientation(raw) != 1 else size
