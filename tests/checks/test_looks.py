"""Pictures that show a condition already, and the plans that leave them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffgen.checks.looks import looks, with_looks
from diffgen.checks.statistics import condition_statistics
from diffgen.commands.plan_summary import plan_facts, plan_text
from diffgen.dataset.dataset import read_dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.images import Pixels
from diffgen.recipe.load import load_recipe
from diffgen.run.summary import summary_text
from tests.fakes import make, make_dataset, put, save, write_recipe

SIZE = (480, 270)


def street(sky: float, ground: float, texture: float = 40, seed: int = 0) -> Pixels:
    """A picture of two halves, with grain of `texture` grey levels in the lower one. The upper one is no bar."""
    rows = np.full((SIZE[1], SIZE[0]), sky)
    rows[SIZE[1] // 2 :] = ground
    grain = np.random.default_rng(seed).normal(0, texture, rows.shape)
    grain[: SIZE[1] // 2] = np.linspace(-15, 15, SIZE[0])
    return np.repeat((rows + grain).clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)


PICTURES: dict[str, tuple[Pixels, set[str]]] = {
    "day": (street(190, 90), set()),
    "night": (street(5, 40), {"dark", "no-sky"}),
    "fog": (street(150, 130, texture=1), {"foggy"}),
    "snow field": (street(200, 220), {"snowy"}),
    "under trees": (street(60, 110), {"no-sky"}),
}


@pytest.mark.parametrize("name", PICTURES)
def test_looks(name: str) -> None:
    picture, expected = PICTURES[name]
    assert set(looks(condition_statistics(picture))) == expected


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One picture of each kind, in train."""
    data = make_dataset(tmp_path / "data", counts=(1, 1))
    (tmp_path / "data/images/train/00.jpg").unlink()
    for name, (picture, _) in PICTURES.items():
        save(tmp_path / f"data/images/train/{name}.jpg", picture)
        put(tmp_path / f"data/labels/train/{name}.txt", "0 0.5 0.5 0.4 0.4\n")
    return data


def test_pictures_are_looked_at_once_whatever_their_file_is_called(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FileCache() as cache:
        first = with_looks(read_dataset(str(data), tmp_path, cache), ["train"], cache)
    assert {s.name: set(s.looks) for s in first.split("train")} == {n: want for n, (_, want) in PICTURES.items()}
    assert all(not source.looks for source in first.split("val")), "which is not edited"
    (tmp_path / "data/images/train/night.jpg").rename(tmp_path / "data/images/train/dark.jpg")
    monkeypatch.setattr("diffgen.checks.looks.decode", None)
    with FileCache() as cache:
        again = with_looks(read_dataset(str(data), tmp_path, cache), ["train"], cache)
    assert {s.image_digest: s.looks for s in again.sources} == {s.image_digest: s.looks for s in first.sources}


def test_a_large_picture_between_bars_looks_the_same(data: Path, tmp_path: Path) -> None:
    framed = np.pad(PICTURES["night"][0], ((200, 200), (0, 0), (0, 0)), constant_values=255)
    large = np.asarray(Image.fromarray(framed).resize((2400, 3350), Image.Resampling.NEAREST))
    save(tmp_path / "data/images/train/night.jpg", large)
    with FileCache() as cache:
        found = with_looks(read_dataset(str(data), tmp_path, cache), ["train"], cache)
    assert {source.name: set(source.looks) for source in found.sources}["night"] == {"dark", "no-sky"}


def planned(recipe: Path) -> dict[str, int]:
    return {name: sum(counts.values()) for name, counts in plan_facts(load_recipe(recipe))["conditions"].items()}


def test_a_plan_leaves_out_what_is_there_already(data: Path, tmp_path: Path) -> None:
    names = ["night", "fog", "snow", "overcast", "rain"]
    conditions: list[Any] = [{name: {"strength": 0.7}} for name in names]
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=conditions)
    assert planned(recipe) == {"night": 4, "fog": 4, "snow": 4, "overcast": 2, "rain": 5}
    facts = plan_facts(load_recipe(recipe))
    assert facts["skipped"] == {
        "night": {"dark": 1}, "fog": {"foggy": 1}, "snow": {"snowy": 1},
        "overcast": {"dark": 1, "foggy": 1, "no-sky": 1},
    }  # fmt: skip
    line = "skipped   1 dark pictures get no night, overcast (to edit them: `skip_if: []` in the condition)"
    summary, editor = make(recipe)
    assert line in plan_text(facts)
    assert line in summary_text(summary)
    assert len(editor.made) == summary.planned == 19
    takes: list[Any] = [{name: {"strength": 0.7, "skip_if": []}} for name in names]
    assert planned(write_recipe(tmp_path / "all.yaml", data, tmp_path / "all", conditions=takes)) == dict.fromkeys(
        names, 5
    )


def test_one_condition_each_goes_to_those_it_suits(data: Path, tmp_path: Path) -> None:
    conditions = [{"night": {"strength": 0.7}}, {"fog": {"strength": 0.7}}]
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=conditions, assign="one")
    assert sum(planned(recipe).values()) == 5
    summary, _ = make(recipe)
    assert summary.planned == 5


def test_where_no_picture_suits_the_plan_says_why(data: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    for name in set(PICTURES) - {"night"}:
        (tmp_path / f"data/images/train/{name}.jpg").unlink()
        (tmp_path / f"data/labels/train/{name}.txt").unlink()
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=[{"night": {"strength": 0.7}}])
    assert "night          none: every picture is dark (skip_if)" in cli("plan", recipe).out
    assert cli("run", recipe).code == 1


def test_a_recipe_that_names_no_such_condition_looks_at_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffgen.run.session.with_looks", None)
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=[{"name": "mine", "prompt": "night"}])
    assert planned(recipe) == {"mine": 5}
