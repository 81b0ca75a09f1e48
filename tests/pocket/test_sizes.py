"""The shipped model on odd sizes, from 256 to 1280 px on the long side, by whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run

PAGODA = Path(__file__).parent / "data/pagoda.jpg"
SIZES = ((256, 171), (171, 257), (501, 333), (1280, 347), (427, 640))  # (width, height)
RECIPE = """
dataset: data.yaml
output: out
conditions: [night, fog]
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the pagoda in every size; the folder."""
    folder = tmp_path_factory.mktemp("sizes")
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [pagoda]\n")
    (folder / "recipe.yaml").write_text(RECIPE)
    with Image.open(PAGODA) as photograph:
        for width, height in SIZES:
            cut = photograph.resize(
                (max(width, height * 3 // 2), max(height, width * 2 // 3)), Image.Resampling.LANCZOS
            )
            cut.crop((0, 0, width, height)).save(folder / f"images/train/{width}x{height}.png")
            (folder / f"labels/train/{width}x{height}.txt").write_text("0 0.4 0.5 0.6 0.8\n")
        photograph.save(folder / "images/val/whole.png")
    run(load_recipe(folder / "recipe.yaml"))
    return folder


def test_every_size_comes_back_as_it_was_and_has_the_condition(finished: Path) -> None:
    for width, height in SIZES:
        source = np.asarray(Image.open(finished / f"images/train/{width}x{height}.png")).astype(float)
        images = finished / "out/dataset/images/train"
        made = {
            name: np.asarray(Image.open(images / f"{width}x{height}__{name}-0.jpg")).astype(float)
            for name in ("night", "fog")
        }
        assert made["night"].shape == made["fog"].shape == source.shape == (height, width, 3)
        assert made["night"].mean() < 0.6 * source.mean(), (width, height)
        assert made["fog"].std() < 0.8 * source.std(), (width, height)


def test_nothing_moved_in_any_size(finished: Path) -> None:
    lines = (finished / "out/records-0.jsonl").read_text(encoding="utf-8").splitlines()
    facts = [row["facts"] for row in map(json.loads, lines) if "facts" in row]
    assert len(facts) == 2 * len(SIZES)
    assert max(row["shift_px"] for row in facts) < 1
