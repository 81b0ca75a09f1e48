"""A run hands each image its control maps, by a fake editor."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffgen.commands.status import status
from diffgen.dataset.images import decode
from diffgen.editing.control_maps import canny
from diffgen.recipe.load import load_recipe
from diffgen.run.session import Session
from tests.fakes import make, make_dataset
from tests.fakes_controls import EDGES, GuidedEditor, guided_recipe


def test_a_run_hands_each_picture_its_maps(tmp_path: Path) -> None:
    path = guided_recipe(tmp_path, EDGES, {**EDGES, "kind": "softedge", "weight": 0.5}, conditions=["fog", "rain"])
    summary, editor = make(path, GuidedEditor())
    assert summary.accepted + sum(summary.rejected.values()) == 8
    for item in Session.open(load_recipe(path)).plan.items:
        first, second = editor.of(item.job.id)
        assert np.array_equal(first[..., 0], canny(decode(Path(item.source.path).read_bytes())))
        assert not np.array_equal(first, second)


def test_tiles_are_cut_from_the_map_of_the_whole(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", counts=(1, 1), size=(160, 96))
    path = guided_recipe(tmp_path, EDGES, resolution={"mode": "tile", "long_side": 64})
    _, editor = make(path, GuidedEditor())
    (item,) = Session.open(load_recipe(path)).plan.items
    whole = canny(decode(Path(item.source.path).read_bytes()))
    assert len({(view.left, view.top) for view in editor.views}) == 6
    for (_, (found,)), view in zip(editor.controls, editor.views, strict=True):
        height, width = found.shape[:2]
        wanted = whole[view.top : view.top + height, view.left : view.left + width]
        assert np.array_equal(found[..., 0], wanted)


def test_a_finished_run_of_controls_does_nothing_again(tmp_path: Path) -> None:
    path = guided_recipe(tmp_path, EDGES)
    make(path, GuidedEditor())
    _, again = make(path, GuidedEditor())
    assert again.made == []
    assert status(load_recipe(tmp_path / "out")).pending == 0
