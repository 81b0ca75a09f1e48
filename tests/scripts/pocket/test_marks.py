"""What somebody marked by hand, drawn to the edges of the picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.pocket.maps import MAP_NAMES, make_maps
from scripts.pocket.marks import LARGEST_LAMP, LIGHTS, load_marks, marked_lights

ROOT = Path(__file__).resolve().parents[3]
WIDTH, HEIGHT = 320, 240
ROW = {"name": "a.png", "use": 1, "horizon": 50, "sky": [[[0, 0], [100, 0], [100, 39], [0, 41]]],
       "ground": [[[0, 60], [100, 58], [100, 100], [0, 100]]], "things": [[38, 49, 64, 77]]}  # fmt: skip


@pytest.fixture
def street() -> torch.Tensor:
    """Sky to 40 % with a post before it, a wall as bright as the sky to 60 %, grey ground, a car in front."""
    image = np.zeros((HEIGHT, WIDTH, 3))
    image[:96] = (0.62, 0.72, 0.9)
    image[96:144] = (0.8, 0.76, 0.66)
    image[144:] = (0.42, 0.41, 0.4)
    image[30:96, 60:64] = 0.15
    image[120:182, 125:202] = (0.1, 0.5, 0.1)
    image += np.random.default_rng(0).normal(0, 0.02, image.shape)
    return torch.from_numpy(image.clip(0, 1).transpose(2, 0, 1)).float()


def test_the_pixels_say_where_the_marked_areas_end(street: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "marks.jsonl"
    path.write_text(f'{json.dumps(ROW)}\n{{"name": "b.png", "use": 0}}\n')
    marks, left_out = load_marks(path)
    assert left_out == {"b.png"}
    maps = dict(zip(MAP_NAMES, make_maps(street, marks["a.png"]), strict=True))
    assert maps["sky"][:90, 80:].mean() > 0.98
    assert maps["sky"][100:].max() < 0.1, "no wall"
    assert maps["sky"][40:90, 61:63].mean() < 0.3, "nor the post"
    assert maps["ground"][150:, :120].mean() > 0.95
    assert maps["ground"][:138].max() < 0.1
    assert maps["ground"][128:176, 132:196].mean() < 0.05, "the car stands on it"
    assert maps["plants"][128:176, 132:196].max() < 0.1, "green though it is"
    assert maps["rows"][HEIGHT // 2].mean() == pytest.approx(0.5, abs=0.01)
    car, wall = maps["depth"][128:176, 132:196].mean(), maps["depth"][110:135, :100].mean()
    assert car < 0.6 * wall, "the car is nearer"


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        '{"name": "a.png"}',
        '{"name": "a.png", "use": 1, "sky": []}',
        json.dumps(ROW | {"heads": [[10, 20, 30]]}),
        json.dumps(ROW | {"windows": [[10, 20, 30, 40, 0, 2]]}),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "marks.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n{line}\n")
    with pytest.raises(ValueError, match=r"marks\.jsonl, line 2"):
        load_marks(path)


def test_the_marks_that_come_with_it_can_be_read() -> None:
    marks, left_out = load_marks(ROOT / "scripts/pocket/marks.jsonl")
    assert len(marks) > 500
    assert not set(marks) & left_out


def test_a_thing_is_as_far_as_its_foot_and_what_is_behind_as_far_as_the_ground(
    street: torch.Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "marks.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    marks, _ = load_marks(path)
    depth = make_maps(street, marks["a.png"])[MAP_NAMES.index("depth")]
    roof, foot = float(depth[128:140, 140:190].mean()), float(depth[172:180, 140:190].mean())
    wall, near = float(depth[105:115, 20:100].mean()), float(depth[-10:].mean())
    assert roof == pytest.approx(foot, rel=0.1)
    assert near < roof < 0.7 * wall
    assert float(depth[110, 150]) == pytest.approx(wall, rel=0.15), "just over the roof the wall is seen"


@pytest.mark.parametrize(
    "wrong", [{"things": [[1, 2, 3]]}, {"things": [[]]}, {"sky": [[[0, 0], [1, 1]]]}, {"ground": [[1, 2, 3, 4]]}]
)
def test_what_is_no_polygon_and_no_box_is_named(wrong: dict, tmp_path: Path) -> None:
    path = tmp_path / "marks.jsonl"
    path.write_text(json.dumps({**ROW, **wrong}))
    with pytest.raises(ValueError, match=r"marks\.jsonl, line 1: .*is not a"):
        load_marks(path)


def test_boxes_end_at_the_picture(street: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "marks.jsonl"
    outside = [[-20, 40, -5, 90], [110, 10, 120, 20], [30, 50, 30, 80]]
    path.write_text(json.dumps({**ROW, "things": [*ROW["things"], *outside, [90, 70, 130, 120]]}))
    mark = load_marks(path)[0]["a.png"]
    assert np.allclose(mark.things, [[0.38, 0.49, 0.64, 0.77], [0.9, 0.7, 1.0, 1.0]])
    assert make_maps(street, mark).isfinite().all()


def test_lights_are_drawn_where_they_are_marked(street: torch.Tensor, tmp_path: Path) -> None:
    lit = {
        "heads": [[40, 70, 44, 74], [0, 50, 30, 90]],
        "tails": [[60, 68, 62, 72]],
        "windows": [[5, 45, 25, 55, 4, 1]],
    }
    path = tmp_path / "marks.jsonl"
    path.write_text(json.dumps(ROW | lit) + "\n")
    marks, _ = load_marks(path)
    planes = dict(zip(LIGHTS, marked_lights(marks["a.png"], HEIGHT, WIDTH), strict=True))
    assert planes["heads"][172, 134] == 1
    assert planes["heads"][168:170, 128:130].max() < 0.2, "round, not square"
    large = planes["heads"][:, :100]
    assert large[168, 48] == 1
    assert (large.sum() / np.pi) ** 0.5 == pytest.approx(LARGEST_LAMP * WIDTH, rel=0.1), (
        "of a large glass only the middle"
    )
    assert planes["tails"].sum() == pytest.approx(np.pi * 0.9**2 * 6.4 * 9.6 / 4, rel=0.1)
    assert not planes["streets"].any()
    row = planes["windows"][120, 16:80] > 0.5
    assert (row[1:] & ~row[:-1]).sum() == 4, "windows of a grid stay apart"
    maps = dict(zip(MAP_NAMES, make_maps(street, marks["a.png"]), strict=True))
    assert torch.equal(maps["windows"], planes["windows"])
    assert not make_maps(street)[[MAP_NAMES.index(kind) for kind in LIGHTS]].any(), "unmarked, none"
