"""Objects' strength and detail, from the recipe to the pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffgen.dataset.images import decode
from diffgen.editing.editor import EditBatch
from diffgen.run.loop import run
from diffgen.types import Job
from tests.fakes import FakeEditor, load_recipe, make, make_dataset, write_recipe


@dataclass
class Masked(FakeEditor):
    """Melts everything, and keeps what it was told about the objects."""

    told: list[Any] = field(default_factory=list)

    def begin(self, batch: EditBatch) -> None:
        self.told.append(batch.masks)

    def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
        return image[::4, ::4].repeat(4, 0).repeat(4, 1)[: image.shape[0], : image.shape[1]] * 0.5


def pictures(root: Path, name: str, **fields: Any) -> tuple[list[np.ndarray], Masked, list[np.ndarray]]:
    data = root / "data/data.yaml"
    if not data.exists():
        make_dataset(root / "data", counts=(2, 1), size=(320, 240))
    fields = {"conditions": ["night"], "image": {"format": "png"}, "resolution": {"long_side": 320}, **fields}
    recipe = write_recipe(root / f"{name}.yaml", data, root / name, **fields, checks={"structure": None})
    summary, editor = make(recipe, Masked())
    assert summary.accepted == 2
    folder = root / name / "dataset/images/train"
    made = [decode(path.read_bytes()) for path in sorted(folder.glob("*night*"))]
    sources = [decode(path.read_bytes()) for path in sorted(folder.glob("??.jpg"))]
    return made, editor, sources


def test_without_levers_nothing_is_masked(tmp_path: Path) -> None:
    _, editor, _ = pictures(tmp_path, "plain")
    assert editor.told == [None]


def test_masks_reach_the_editor_at_the_working_size(tmp_path: Path) -> None:
    _, editor, _ = pictures(tmp_path, "held", objects={"strength": 0.2, "feather": 4})
    (masks,) = editor.told
    assert [mask.shape for mask in masks] == [(240, 320)] * 2
    assert all(mask.max() == 1 and mask.min() == 0 for mask in masks)


def test_a_strength_above_the_scene_s_is_the_scene_s(tmp_path: Path) -> None:
    plain, one, _ = pictures(tmp_path, "plain")
    same, two, _ = pictures(tmp_path, "same", objects={"strength": 0.9})
    assert one.made == two.made, "the same jobs"
    assert all((a == b).all() for a, b in zip(plain, same, strict=True))


def test_detail_comes_back_in_the_scene(tmp_path: Path) -> None:
    plain, _, sources = pictures(tmp_path, "plain")
    sharp, _, _ = pictures(tmp_path, "sharp", detail=1.0)
    for before, after, source in zip(
        plain, sharp, sources, strict=True
    ):  # a small picture: one band of the melted three
        wanted = 0.5 * source.astype(float)
        assert np.abs(after - wanted).mean() < 0.9 * np.abs(before - wanted).mean()


def test_detail_of_objects_stays_with_them(tmp_path: Path) -> None:
    plain, _, _ = pictures(tmp_path, "plain")
    sharp, _, _ = pictures(tmp_path, "sharp", objects={"detail": 1.0, "feather": 0})
    for before, after in zip(plain, sharp, strict=True):
        changed = (before != after).any(-1)
        assert changed.any()
        assert not changed.all()


@pytest.mark.parametrize(
    "changes",
    [{"objects": {"strength": 0.2}}, {"objects": {"detail": 0.5}}, {"detail": 0.3}, {"resolution": {"mode": "tile"}}],
)
def test_every_lever_is_part_of_the_id(changes: dict[str, Any], tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(2, 1))
    _, plain = make(write_recipe(tmp_path / "a.yaml", data, tmp_path / "a"))
    _, other = make(write_recipe(tmp_path / "b.yaml", data, tmp_path / "b", **changes))
    assert not set(plain.made) & set(other.made)


def test_a_condition_has_its_own_way_with_objects(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(2, 1))
    conditions = ["fog", {"night": {"objects": {"strength": 0.1}}}]
    recipe = write_recipe(
        tmp_path / "r.yaml", data, tmp_path / "out", conditions=conditions, objects={"strength": 0.3, "detail": 0.7}
    )
    make(recipe)
    kept = load_recipe(tmp_path / "out").recipe  # as the run folder remembers it
    by_name = {c.name: kept.objects_for(c) for c in kept.conditions}
    assert (by_name["fog"].strength, by_name["fog"].detail) == (0.3, 0.7)
    assert (by_name["night"].strength, by_name["night"].detail) == (0.1, 0.7)
    assert run(load_recipe(tmp_path / "out")).made_now == 0
