"""Fonts for pictures: Pillow's own, and one of this machine's for a script that it lacks."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def font_for(text: str, size: int) -> Font | None:
    """A font of `size` pixels that has every character; None if this machine has none.

    Pillow's own has little more than ASCII. DejaVu, which comes with matplotlib and so with Ultralytics, has the alphabets
    of Europe; for others fontconfig is asked, if it is here.
    """
    own = ImageFont.load_default(size=size)
    if text.isascii() or all(_has(own, c) for c in text):
        return own
    dejavu = _dejavu()
    if dejavu is not None and all(_has(ImageFont.truetype(dejavu, size), c) for c in text):
        return ImageFont.truetype(dejavu, size)
    path = _file_with("".join(sorted({c for c in text if not c.isascii()})))
    return None if path is None else ImageFont.truetype(path, size)


@lru_cache(maxsize=1)
def _dejavu() -> str | None:
    found = find_spec("matplotlib")  # which is not imported: that takes a second
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    return str(path) if path.is_file() else None


def _has(font: Font, character: str) -> bool:
    """A character that a font lacks is drawn as every other one that it lacks."""
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask("\uffff"))


@lru_cache(maxsize=64)
def _file_with(characters: str) -> str | None:
    codes = " ".join(f"{ord(c):x}" for c in characters)
    try:
        done = subprocess.run(
            ["fc-list", "-f", "%{file}\n", f":charset={codes}"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return next((path for path in sorted(done.stdout.split("\n")) if path.endswith((".ttf", ".ttc", ".otf"))), None)
