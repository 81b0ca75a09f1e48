"""The way through noise and back, drawn with an editor that lets itself be watched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffgen.commands.sweeps import PreviewRequest, read_sweep
from diffgen.commands.trajectory import TILE, preview_trajectory
from diffgen.editing.editor import EditBatch
from diffgen.errors import UsageError
from diffgen.output.contact_sheet import GAP, LINE
from diffgen.recipe.load import load_recipe
from tests.fakes import FakeEditor, read_records


class Watched(FakeEditor):
    """Shows a grey picture of its own size on the way."""

    def begin(self, batch: EditBatch) -> None:
        assert len(batch.images) == len(batch.jobs) == len(batch.views or ()) == 1
        assert batch.watch is not None
        self.masked = batch.masks is not None
        batch.watch("noise", [np.full_like(batch.images[0], 128)])


def test_a_row_for_each_image_and_nothing_is_kept(recipe: Path, tmp_path: Path) -> None:
    editor = Watched()
    look = PreviewRequest(number=2, conditions=("night",), sweeps=(read_sweep("strength=0.3,0.6"),))
    path = preview_trajectory(load_recipe(recipe), look, make_editor=lambda: editor)
    assert path == tmp_path / "out/trajectory-night-strength=0.3,0.6.png"
    picture = Image.open(path)
    assert picture.size == (3 * TILE + 2 * GAP, 4 * (TILE * 48 // 64 + 2 * LINE + 3) + 3 * GAP)
    assert len(editor.made) == 4
    assert read_records(tmp_path / "out") == {}
    grey = np.asarray(picture.convert("RGB"))[2 * LINE + 20, TILE + GAP + 30]
    assert grey.tolist() == [128, 128, 128]


def test_held_objects_are_held_there_too(recipe: Path) -> None:
    editor = Watched()
    look = PreviewRequest(number=1, sweeps=(read_sweep("objects.strength=0.1"),))
    preview_trajectory(load_recipe(recipe), look, make_editor=lambda: editor)
    assert editor.masked


def test_what_cannot_be_shown_is_said(recipe: Path) -> None:
    with pytest.raises(UsageError, match="not tiles"):
        preview_trajectory(load_recipe(recipe, ["resolution.mode=tile"]), PreviewRequest(), make_editor=Watched)
