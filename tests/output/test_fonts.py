"""Names in every script: drawn where this machine has a font for it, else by class number."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from diffgen.dataset.labels import LabelSchema
from diffgen.output import fonts
from diffgen.output.contact_sheet import Tile, contact_sheet
from diffgen.output.fonts import font_for

BOX = LabelSchema(("x",)).parse(b"0 0.5 0.5 0.8 0.8\n")


def sheet(name: str, caption: str = "") -> Image.Image:
    return contact_sheet([[Tile(np.zeros((90, 160, 3), np.uint8), caption, BOX)]], [name])


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    fonts._file_with.cache_clear()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError("fc-list")))
    yield
    fonts._file_with.cache_clear()


def test_european_names_need_no_font_of_the_machine(no_fonts: None) -> None:
    assert font_for("car, Straßenbahn, vélo, машина, αυτοκίνητο …", 11) is not None


def test_without_a_font_a_class_is_drawn_by_its_number(no_fonts: None) -> None:
    assert font_for("交通", 11) is None
    assert sheet("交通").tobytes() == sheet("#0").tobytes()
    assert sheet("car", "交通.jpg").tobytes() == sheet("car", "\\u4ea4\\u901a.jpg").tobytes()


@pytest.mark.skipif(shutil.which("fc-list") is None, reason="no fontconfig here")
def test_a_font_of_this_machine_is_found_by_its_characters() -> None:
    listed = subprocess.run(["fc-list", ":charset=4ea4", "file"], capture_output=True, text=True, check=True).stdout
    assert (font_for("交", 11) is not None) == bool(listed.strip())
    listed = subprocess.run(["fc-list", ":charset=43c", "file"], capture_output=True, text=True, check=True).stdout
    assert (fonts._file_with("машина") is not None) == bool(listed.strip())
