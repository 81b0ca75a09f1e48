"""The target pictures of a recipe: found, drawn by hash, and part of a job's id by content."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from diffgen.run.session import Session
from tests.fakes import make, make_dataset, photo, put, read_records, save, write_recipe


def recipe(root: Path, folder: str = "night", amount: float = 0.5) -> Path:
    data = root / "data/data.yaml"
    if not data.exists():
        make_dataset(root / "data", counts=(30, 1))
        for i in range(4):
            save(root / f"night/deep/{i}.jpg", photo(100 + i) // 4)
    match = {"folder": folder, "amount": amount}
    condition = {"night": {"strength": 0.7, "skip_if": [], "match": match}}
    return write_recipe(root / "r.yaml", data, root / "out", conditions=[condition])


def jobs(root: Path, **fields: object) -> dict[str, tuple[str, str | None]]:
    plan = Session.open(load_recipe(recipe(root, **fields))).plan  # type: ignore[arg-type]
    return {item.source.name: (item.job.id, item.job.target) for item in plan.items}


def test_every_picture_is_drawn_and_a_picture_more_changes_only_its_share(tmp_path: Path) -> None:
    before = jobs(tmp_path)
    assert len(Counter(target for _, target in before.values())) == 4
    save(tmp_path / "night/new.png", photo(200) // 4)
    after = jobs(tmp_path)
    changed = {name for name in before if before[name] != after[name]}
    assert changed
    assert len(changed) < 20
    new = {after[name][1] for name in changed}
    assert len(new) == 1, "what changed is what the new picture has drawn"


def test_content_counts_and_not_the_path(tmp_path: Path) -> None:
    before = jobs(tmp_path)
    shutil.move(tmp_path / "night", tmp_path / "elsewhere")
    assert jobs(tmp_path, folder="elsewhere/**/*.jpg") == before
    assert jobs(tmp_path, folder="elsewhere", amount=0.6) != before
    shutil.copy(tmp_path / "elsewhere/deep/0.jpg", tmp_path / "elsewhere/again.jpg")
    assert jobs(tmp_path, folder="elsewhere") == before


def test_an_image_takes_on_its_target_s_tone(tmp_path: Path) -> None:
    path = recipe(tmp_path, amount=1.0)
    summary, _ = make(path, targets=Session.open(load_recipe(path)).dataset.target_paths)
    assert summary.made_now == 30
    lights = [record.facts["luminance"] for record in read_records(tmp_path / "out").values()]
    assert max(lights) < 0.2


def test_a_target_that_changed_during_the_run_is_a_failure_that_the_next_run_mends(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    paths = Session.open(load_recipe(path)).dataset.target_paths
    other = str(save(tmp_path / "other.jpg", photo(7)))
    summary, _ = make(path, targets=dict.fromkeys(paths, other))
    assert summary.made_now == 0
    assert set(summary.failed) == {"transient"}
    summary, _ = make(path, targets=paths)
    assert summary.made_now == 30


@pytest.mark.parametrize("folder", ["nothing", "empty", "night/*.txt"])
def test_no_picture_is_one_error(folder: str, tmp_path: Path) -> None:
    path = recipe(tmp_path, folder)
    (tmp_path / "empty").mkdir()
    put(tmp_path / "night/a.txt", "")
    with pytest.raises(UsageError, match=r"match.folder: there is no picture in"):
        Session.open(load_recipe(path))
