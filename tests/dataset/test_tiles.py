"""Large pictures in overlapping tiles: all covered, no seam, and one field of noise for the whole."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from dataclasses import field as at_start
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgen.dataset.geometry import cut, merge, tile_views, views_for, working_canvas
from diffgen.dataset.images import decode
from diffgen.editing.editor import EditBatch
from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from diffgen.types import Job
from tests.fakes import FakeEditor, make, make_dataset, settings, write_recipe


@given(width=st.integers(1, 40), height=st.integers(1, 40), side=st.integers(4, 12), step=st.sampled_from([8, 16, 32]))
def test_tiles_cover_and_overlap(width: int, height: int, side: int, step: int) -> None:
    size, side = (width * step, height * step), side * step
    views = tile_views(size, side, step, side // 4)
    for axis, length in enumerate(size):
        starts = sorted({(view.left, view.top)[axis] for view in views})
        assert starts[0] == 0
        assert starts[-1] + side >= length
        assert starts[-1] == max(0, length - side)
        assert all(start % step == 0 for start in starts)
        assert all(b - a <= side - side // 4 + step for a, b in itertools.pairwise(starts))


def test_a_picture_survives_its_tiles() -> None:
    image = np.random.default_rng(0).integers(0, 256, (192, 320, 3)).astype(np.uint8)
    views = tile_views((320, 192), 128, 8, 32)
    assert (merge([cut(image, view, 128) for view in views], views) == image).all()


def test_tiles_of_other_brightness_leave_no_seam() -> None:
    views = tile_views((320, 128), 128, 8, 32)
    flat = [np.full((128, 128, 3), 100 + 20 * i, np.uint8) for i in range(len(views))]
    row = merge(flat, views)[64, :, 0].astype(int)
    assert np.abs(np.diff(row)).max() <= 2, "20 levels are spread over the overlap"


def test_small_pictures_are_not_cut() -> None:
    own = settings(mode="tile", long_side=128, multiple=8)
    assert len(views_for(working_canvas(100, 80, own), own)) == 1
    assert working_canvas(100, 80, own).inner == (128, 102)
    large = working_canvas(300, 200, own)
    assert large.inner == (300, 200)
    assert len(views_for(large, own)) == 6


@dataclass
class Seeing(FakeEditor):
    """Darkens evenly, and writes down what it was shown."""

    seen: list[tuple[tuple[int, ...], Any]] = at_start(default_factory=list)

    def begin(self, batch: EditBatch) -> None:
        self.seen += [(image.shape, view) for image, view in zip(batch.images, batch.views or (), strict=True)]

    def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
        return image * 0.6


def test_a_run_in_tiles(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(3, 1), size=(200, 120))
    fields = {"batch_size": 2, "resolution": {"mode": "tile", "long_side": 64}, "conditions": ["night"]}
    fields["image"] = {"format": "png"}
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", **fields)
    summary, editor = make(recipe, Seeing())
    assert summary.accepted == 3
    assert {shape for shape, _ in editor.seen} == {(64, 64, 3)}
    assert {view.whole for _, view in editor.seen} == {(200, 120)}
    assert all(len(batch) <= 2 for batch in editor.batches)
    images = sorted((tmp_path / "out/dataset/images/train").glob("*night*"))
    made = decode(images[0].read_bytes()).astype(int)
    source = decode((tmp_path / "out/dataset/images/train/00.jpg").read_bytes())
    assert np.abs(made - (source * 0.6).astype(np.uint8)).max() <= 1


@pytest.mark.parametrize("mode", ["tiles", 3])
def test_another_mode_is_refused(mode: Any, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", tmp_path / "d.yaml", tmp_path / "out", resolution={"mode": mode})
    with pytest.raises(UsageError, match="resolution"):
        load_recipe(recipe)
