"""A disk that is full, and one that may only be read: real ones, small file systems in memory."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffgen.errors import DiffgenError
from tests.fakes import make, make_dataset, photo, save, tree, write_recipe


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 KB. Making one needs rights that a test may not have."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount a file system; test_kill.py also fails every write in turn without one")
    try:
        yield place
    finally:
        # Lazily: the records of a run that failed are still open in what pytest keeps of its error.
        subprocess.run(["umount", "--lazy", place], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


@pytest.fixture
def recipe(tmp_path: Path, disk: Path) -> Path:
    data = make_dataset(tmp_path / "data", counts=(40, 1))
    for i in range(40):
        save(tmp_path / f"data/images/train/{i:02}.jpg", photo(i, (160, 120)))
    return write_recipe(tmp_path / "r.yaml", data, disk / "out")


def test_a_full_disk_loses_nothing_and_the_next_run_goes_on(recipe: Path, disk: Path, tmp_path: Path) -> None:
    with pytest.raises(DiffgenError, match="No space left") as caught:
        make(recipe)
    assert caught.value.exit_code == 1
    assert "run the same command again" in (caught.value.hint or "")
    remount(disk, "size=20m")
    summary, editor = make(recipe)
    assert summary.accepted == 80
    assert 0 < len(editor.made) < 80
    whole, _ = make(write_recipe(tmp_path / "whole.yaml", tmp_path / "data/data.yaml", tmp_path / "whole"))
    assert whole.accepted == 80
    assert tree(disk / "out/dataset") == tree(tmp_path / "whole/dataset")


def test_a_disk_that_may_only_be_read_is_one_error(recipe: Path, disk: Path) -> None:
    remount(disk, "ro")
    with pytest.raises(DiffgenError, match="Read-only") as caught:
        make(recipe)
    assert "--output" in (caught.value.hint or "")
