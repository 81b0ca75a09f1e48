"""What is drawn on a contact sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffgen.commands import preview as previewing
from diffgen.dataset.labels import parse_labels
from diffgen.output.contact_sheet import COLOURS, Tile, contact_sheet
from tests.fakes import ROWS
from tests.fakes_preview import look


def test_keypoints_are_drawn_as_dots() -> None:
    (person,) = parse_labels(ROWS["pose"][1].encode(), 2, (2, 3))
    sheet = np.asarray(
        contact_sheet([[Tile(np.zeros((300, 400, 3), np.uint8), "", (person,))]], ["car", "person"], 400)
    )
    picture, colour = sheet[-300:], bytes.fromhex(COLOURS[1][1:])
    dotted = (picture == list(colour)).all(-1)
    assert dotted[180, 280], "at 0.7, 0.6"
    assert not dotted[0:5, 0:5].any(), "the second is not marked as seen"


def test_a_tile_shows_the_score_that_decided(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = []
    monkeypatch.setattr(
        previewing, "contact_sheet", lambda rows, names: captions.extend(rows) or contact_sheet(rows, names)
    )
    found, _ = look(recipe, "strength=0,1", number=1, conditions=("night",), sets=["checks.effect=0.1"])
    still, dark = (cell.facts() for cell in found.images)
    assert (still["verdict"], dark["verdict"]) == ("weak-effect", "accepted")
    assert still["effect"] < 0.1 <= dark["effect"]
    assert {"contrast", "new_objects", "clip"} <= set(still)
    ((_, tile, _),) = captions
    assert f"effect {still['effect']:.2f}" in tile.caption
    assert f"contrast {still['contrast']:.3f}" in tile.caption
