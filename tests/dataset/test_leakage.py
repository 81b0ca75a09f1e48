"""The same picture in two splits is found by its bytes, and when it was re-encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffgen.commands.plan_summary import plan_facts, plan_text
from diffgen.dataset.dataset import Dataset, read_dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.leakage import identical, near
from diffgen.recipe.load import load_recipe
from tests.fakes import make_dataset, save, write_recipe


def scene(seed: int) -> np.ndarray:
    """A smooth picture unlike any other seed's, as photographs are."""
    small = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((240, 180), Image.Resampling.BICUBIC))


def dataset(root: Path) -> Path:
    data = make_dataset(root, counts=(4, 3))
    for i in range(4):
        save(root / f"images/train/{i:02}.jpg", scene(i))
    for i in range(3):
        save(root / f"images/val/{i:02}.jpg", scene(100 + i))
    return data


def read(data: Path, cache: FileCache) -> Dataset:
    return read_dataset(str(data), data.parent, cache)


def test_the_same_bytes_in_two_splits(tmp_path: Path) -> None:
    data = dataset(tmp_path / "d")
    (tmp_path / "d/images/val/00.jpg").write_bytes((tmp_path / "d/images/train/02.jpg").read_bytes())
    (tmp_path / "d/images/train/03.jpg").write_bytes(
        (tmp_path / "d/images/train/01.jpg").read_bytes()
    )  # one split: fine
    with FileCache(tmp_path / "c") as cache:
        groups = identical(read(data, cache).sources)
    assert [[source.key for source in group] for group in groups] == [["train/02", "val/00"]]


def test_a_smaller_re_encoded_copy_looks_the_same_and_others_do_not(tmp_path: Path) -> None:
    data = dataset(tmp_path / "d")
    copy = Image.fromarray(scene(3)).resize((160, 120))
    copy.save(tmp_path / "d/images/val/01.jpg", quality=60)
    for _ in range(2):  # the second time from the cache
        with FileCache(tmp_path / "c") as cache:
            pairs = near(read(data, cache).sources, cache)
        assert [(a.key, b.key) for a, b in pairs] == [("train/03", "val/01")]


def test_plan_reports_both_and_may_be_told_not_to_look(tmp_path: Path) -> None:
    data = dataset(tmp_path / "d")
    (tmp_path / "d/images/val/00.jpg").write_bytes((tmp_path / "d/images/train/02.jpg").read_bytes())
    loaded = load_recipe(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"))
    facts = plan_facts(loaded)
    assert facts["leakage"] == {
        "identical": {"count": 1, "examples": ["train/02 = val/00"]},
        "near": {"count": 0, "examples": []},
    }
    assert "train/02 = val/00" in plan_text(facts)
    assert plan_facts(loaded, look=False)["leakage"]["near"] is None


def test_a_picture_too_large_to_be_read_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(tmp_path / "d")
    monkeypatch.setattr("diffgen.dataset.images.MOST_PIXELS", 240 * 180 - 1)
    save(tmp_path / "d/images/val/00.jpg", scene(1)[:90])
    with FileCache(tmp_path / "c") as cache:
        found = read(data, cache)
        assert sum((source.problem or "").startswith("large: ") for source in found.sources) == 6
        assert near(found.sources, cache) == []
