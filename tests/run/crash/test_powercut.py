"""After a power cut, what `run` had written when it ended is there and whole: a real ext4, cut by copying its device."""

from __future__ import annotations

import os
import posix
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from diffgen.commands.verify import verify
from diffgen.files import sync_filesystem
from diffgen.output import export
from diffgen.recipe.load import load_recipe
from tests.dataset.annotations import BOX, coco
from tests.fakes import make, photo, put, recipe_fields, save, tree

MEGABYTES = 24


class Disk:
    """A file with an ext4 in it, mounted at `place`."""

    def __init__(self, file: Path, place: Path) -> None:
        self.file, self.place = file, place

    def mount(self) -> None:
        self.place.mkdir(exist_ok=True)
        done = subprocess.run(["mount", "-o", "loop", self.file, self.place], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("no right to mount a file system; test_damage.py checks the order of the calls without one")

    def cut(self, place: Path) -> Disk:
        """The disk as it is when the power fails now: what the kernel has not written yet is lost."""
        copy = Disk(place.with_suffix(".img"), place)
        shutil.copyfile(self.file, copy.file)
        copy.mount()
        return copy

    def unmount(self) -> None:
        subprocess.run(["umount", self.place], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk.img", tmp_path / "disk")
    if not shutil.which("mkfs.ext4"):
        pytest.skip("no mkfs.ext4")
    with disk.file.open("wb") as file:
        file.truncate(MEGABYTES << 20)
    subprocess.run(["mkfs.ext4", "-q", disk.file], check=True)
    disk.mount()
    yield disk
    disk.unmount()


@pytest.fixture
def _synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undoes what makes the other tests fast."""
    monkeypatch.setattr(os, "fsync", posix.fsync)
    monkeypatch.setattr(export, "sync_filesystem", sync_filesystem)


@pytest.mark.usefixtures("_synced")
def test_a_dataset_survives_a_power_cut_after_the_run(disk: Disk, tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(40)]
    spec = coco(tmp_path, [{**BOX, "id": i, "image_id": i} for i in range(40)], images=images)
    for i in range(40):
        save(tmp_path / f"images/{i}.png", photo(i))
    fields = recipe_fields(tmp_path, disk.place / "out") | {"dataset": spec.model_dump(exclude_none=True)}
    recipe = put(tmp_path / "r.yaml", yaml.safe_dump(fields))
    summary, _ = make(recipe, classes=3)
    assert summary.accepted == 80
    cut = disk.cut(tmp_path / "cut")
    try:
        assert tree(cut.place / "out/dataset") == tree(disk.place / "out/dataset")
        assert verify(load_recipe(recipe, output=cut.place / "out")).whole
    finally:
        cut.unmount()
