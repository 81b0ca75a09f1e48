"""Control maps of the user's own beside the images of the dataset."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffgen.commands.plan_summary import plan_facts
from diffgen.dataset.geometry import canvas_of, fit
from diffgen.editing.control_maps import PALETTE, own_map
from diffgen.errors import SourceError, UsageError
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from diffgen.run.session import Session
from diffgen.types import ControlInput
from tests.fakes import fake_worker, make, photo, save, step
from tests.fakes_controls import OWN, GuidedEditor, guided_recipe, maps_for


def test_maps_of_the_users_own(tmp_path: Path) -> None:
    maps_for(tmp_path)
    path = guided_recipe(tmp_path, OWN)
    summary, editor = make(path, GuidedEditor())
    assert summary.not_edited == {}
    for item in Session.open(load_recipe(path)).plan.items:
        (found,) = editor.of(item.job.id)
        assert np.array_equal(found, photo(50 + int(item.source.name)))


def test_an_own_map_that_changes_is_another_job_and_no_other_ones(tmp_path: Path) -> None:
    maps_for(tmp_path)
    path = guided_recipe(tmp_path, OWN)
    _, first = make(path, GuidedEditor())
    save(tmp_path / "maps/train/02.png", photo(77))
    _, second = make(path, GuidedEditor())
    assert len(second.made) == 1
    assert second.made[0] not in first.made
    (tmp_path / "maps").rename(tmp_path / "moved")
    moved = guided_recipe(tmp_path, {**OWN, "folder": "moved"})
    assert make(moved, GuidedEditor())[1].made == []


def test_an_own_map_that_changes_while_the_run_goes_on_is_no_image(tmp_path: Path) -> None:
    maps_for(tmp_path)
    loaded = load_recipe(guided_recipe(tmp_path, OWN))
    editor = GuidedEditor()

    def worker() -> Any:  # asked for when all is planned
        save(tmp_path / "maps/train/02.png", photo(77))
        (tmp_path / "maps/train/03.png").unlink()
        return fake_worker(editor)

    summary = run(loaded, make_worker=worker)
    # What was planned with the old maps failed; the export says what the maps are now.
    assert (summary.made_now, summary.planned, summary.pending, summary.exit_code) == (2, 3, 1, 4)
    assert summary.not_edited == {"control map": 1}
    records = (tmp_path / "out/records-0.jsonl").read_text("utf-8")
    assert "02.png changed during the run" in records
    save(tmp_path / "maps/train/03.png", photo(53))
    assert make(tmp_path / "r.yaml", editor)[0].pending == 0


def test_maps_may_lie_beside_each_other_without_splits(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / "maps" / f"{i:02}.jpg", photo(i))
    assert len(make(guided_recipe(tmp_path, OWN), GuidedEditor())[1].made) == 4


def test_a_source_without_a_fitting_map_is_carried_over_and_counted(tmp_path: Path) -> None:
    maps_for(tmp_path, names=range(2))
    save(tmp_path / "maps/train/02.png", photo(1, (64, 64)))
    path = guided_recipe(tmp_path, OWN)
    facts = plan_facts(load_recipe(path))["not_edited"]["control map"]
    assert facts["count"] == 2
    assert "02.png is 64×64, another aspect ratio than 64×48" in facts["examples"][0]
    assert "train/03: not found in maps" in facts["examples"][1]
    summary, editor = make(path, GuidedEditor())
    assert len(editor.made) == 2
    assert summary.not_edited == {"control map": 2}


@pytest.mark.parametrize("size", [(128, 96), (32, 24), (640, 479)])
def test_a_map_of_another_size_and_the_same_aspect_fits(tmp_path: Path, size: tuple[int, int]) -> None:
    maps_for(tmp_path, size=size)
    assert len(make(guided_recipe(tmp_path, OWN), GuidedEditor())[1].made) == 4


def test_a_folder_that_is_not_there_or_has_no_map_is_an_error(tmp_path: Path) -> None:
    path = guided_recipe(tmp_path, OWN)
    with pytest.raises(UsageError, match="there is no folder") as caught:
        Session.open(load_recipe(path))
    assert caught.value.hint
    (tmp_path / "maps").mkdir()
    with pytest.raises(UsageError, match="has no map for any source") as caught:
        Session.open(load_recipe(path))
    assert "maps/train/00.png" in str(caught.value.hint)


def encoded(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_own_maps_lie_on_their_source() -> None:
    source = step(40, (60, 100))
    plan = canvas_of(100, 60, 64, 8)
    larger = np.repeat(np.repeat(source, 2, axis=0), 2, axis=1)
    found = own_map(encoded(larger), ControlInput("depth", "m", 1.0, folder="maps"), plan)
    assert found.shape == (plan.size[1], plan.size[0], 3)
    working = fit(source, plan)
    edge = np.abs(np.diff(found[20, :, 0].astype(int))).argmax()
    assert edge == np.abs(np.diff(working[20, :, 0].astype(int))).argmax()


def test_own_segmentation_keeps_its_colours() -> None:
    painted = PALETTE[np.random.default_rng(0).integers(0, 150, (60, 100))]
    found = own_map(encoded(painted), ControlInput("segmentation", "m", 1.0, folder="maps"), canvas_of(100, 60, 64, 8))
    colours = {tuple(c) for c in PALETTE}
    assert {tuple(c) for c in found.reshape(-1, 3)} <= colours


def test_a_depth_map_of_16_bits_is_read_by_its_high_byte() -> None:
    out = io.BytesIO()
    Image.fromarray((np.arange(64 * 48, dtype=np.uint32) * 20 % 65536).astype(np.uint16).reshape(48, 64)).save(
        out, "PNG"
    )
    found = own_map(out.getvalue(), ControlInput("depth", "m", 1.0, folder="maps"), canvas_of(64, 48, 64, 8))
    assert found[47, 63, 0] == (64 * 48 - 1) * 20 % 65536 >> 8


def test_a_map_that_is_no_picture_fails_its_source() -> None:
    with pytest.raises(SourceError):
        own_map(b"no picture", ControlInput("own", "m", 1.0, folder="maps"), canvas_of(64, 48, 64, 8))
