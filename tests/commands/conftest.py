"""What the commands' tests share."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from diffgen.commands import preview, trajectory


@pytest.fixture(autouse=True)
def _sheets_are_not_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contact sheets have millions of pixels, and what is tested is drawn on them."""

    def png(image: Image.Image) -> bytes:
        out = io.BytesIO()
        image.save(out, "PNG", compress_level=0)
        return out.getvalue()

    for module in (preview, trajectory):
        monkeypatch.setattr(module, "png", png)
