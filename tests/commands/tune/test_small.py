"""The small copies that trials work on: the same sources, upright, with their labels."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from diffgen.commands.tune.small import small_dataset
from diffgen.recipe.load import load_recipe
from diffgen.run.session import Session
from tests.fakes import photo, write_recipe

ROWS = "0 0.5 0.5 0.2 0.4\n1 0.25 0.25 0.1 0.1\n"


@pytest.fixture
def recipe(tmp_path: Path, dataset: Path) -> Path:
    images = dataset.parent / "images/train"
    lying = Image.fromarray(photo(9, (160, 90)))
    exif = lying.getexif()
    exif[0x0112] = 6  # it is to be turned by 90°
    lying.save(images / "sub.dir.jpg", exif=exif)
    (dataset.parent / "labels/train/sub.dir.txt").write_text(ROWS)
    return write_recipe(tmp_path / "r.yaml", dataset, tmp_path / "run")


def test_sources_are_small_and_their_labels_as_they_were(recipe: Path, tmp_path: Path) -> None:
    whole = Session.open(load_recipe(recipe))
    data = small_dataset(whole, tmp_path / "work", 40)
    small = Session.open(load_recipe(write_recipe(tmp_path / "small.yaml", data, tmp_path / "small"))).dataset
    before = {source.name: source for source, _ in whole.plan.edits}
    after = {source.name: source for source in small.sources if source.split == "train"}
    assert after.keys() == before.keys()
    assert small.names == whole.dataset.names
    for name, source in after.items():
        assert source.read_label() == before[name].read_label()
        assert max(source.width, source.height) == 40
        assert source.width / source.height == pytest.approx(before[name].width / before[name].height, rel=0.03)
    assert (after["sub.dir"].width, after["sub.dir"].height) == (22, 40)


def test_it_is_written_once_and_no_picture_grows(recipe: Path, tmp_path: Path) -> None:
    whole = Session.open(load_recipe(recipe))
    data = small_dataset(whole, tmp_path / "work", 1000)
    with Image.open(data.parent / "images/train/sub.dir.jpg") as picture:
        assert picture.size == (90, 160)
    written = data.stat().st_mtime_ns
    assert small_dataset(whole, tmp_path / "work", 1000) == data
    assert data.stat().st_mtime_ns == written
    assert small_dataset(whole, tmp_path / "work", 40) != data
