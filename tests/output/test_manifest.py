"""The manifest: every image of the dataset, and how it was made."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffgen.checks.second_look import SecondLook
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from tests import fakes_tasks, fakes_text2img
from tests.fakes import FakeEditor, fake_worker, make_dataset, manifest, put, write_recipe
from tests.output.conftest import Made
from tests.run.test_on_object_lost import lossy

PAGE = Path(__file__).resolve().parents[2] / "docs/manifest.md"


def test_the_manifest_names_every_image_and_how_it_was_made(made: Made) -> None:
    folder = made()
    head, *rows = manifest(folder)
    assert head["images"] == len(rows) == 14
    assert [row["image"] for row in rows if "job" not in row] == [
        *(f"images/train/{i:02}.jpg" for i in range(4)), "images/val/00.jpg", "images/val/01.jpg",
    ]  # fmt: skip
    night = next(row for row in rows if row["image"] == "images/train/01__night-0.jpg")
    assert (night["source"], night["condition"], night["variant"]) == ("train/01", "night", 0)
    assert night["prompt"].startswith("make it night")
    assert len(night["facts"]["structure"]) == 2


def test_nothing_derived_holds_a_time_a_host_or_a_path(made: Made, tmp_path: Path) -> None:
    folder = made()
    text = (folder / "manifest.jsonl").read_text() + (folder / "data.yaml").read_text()
    for word in (str(tmp_path), "/tmp", socket.gethostname(), "seconds", "environment", "2026-", "fake-device"):
        assert word not in text


def test_an_unedited_source_says_why(made: Made, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    put(tmp_path / "data/labels/train/00.txt", "9 0.5 0.5 0.1 0.1\n")
    folder = made(data)
    (row,) = [row for row in manifest(folder)[1:] if row["source"] == "train/00"]
    assert row["not_edited"].startswith("class-id: row 1")
    assert (folder / "labels/train/00.txt").read_text() == "9 0.5 0.5 0.1 0.1\n"


class FakeClip:
    """Unit vectors, of a picture by its light."""

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image

    def look(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        lights = [float(image.mean()) / 255 for image in pictures]
        return [np.array([light, (1 - light**2) ** 0.5], np.float32) for light in lights]

    def read(self, text: str) -> np.ndarray:
        return np.array([0, 1], np.float32)


def keys_of(row: Any, above: str = "") -> Iterator[tuple[str, str]]:
    """(key, the path of what it is in) of a row of JSON and of everything in it."""
    if isinstance(row, dict):
        for key, value in row.items():
            yield key, above
            yield from keys_of(value, f"{above}.{key}".removeprefix("."))
    elif isinstance(row, list):
        for value in row:
            yield from keys_of(value, above)


def test_docs_name_every_key_and_none_that_is_not_written(tmp_path: Path) -> None:
    """Of runs that together write every key: levers, a detector and CLIP, lost objects, tasks, text to image."""
    data = fakes_tasks.street(tmp_path / "looked")
    put(tmp_path / "looked/data/labels/train/00.txt", "9 0.5 0.5 0.1 0.1\n")
    faint = {"name": "faint", "prompt": "faint", "strength": 0.2}
    fields = {
        "objects": {"strength": 0.2, "feather": 4},
        "resolution": {"long_side": 160},
        "conditions": ["night", faint],
    }
    looked = write_recipe(tmp_path / "looked/r.yaml", data, tmp_path / "looked/out", **fields)
    second_look = SecondLook(fakes_tasks.find_magenta, {1: 7}, FakeClip())  # type: ignore[arg-type]
    run(load_recipe(looked), make_worker=lambda: fake_worker(FakeEditor(), second_look=second_look))
    lossy(tmp_path / "lost", "out", checks={"on_object_lost": "drop_label"})
    lossy(tmp_path / "restored", "out", objects={"restore": 0.5})
    for condition in (fakes_tasks.BACKGROUND, fakes_tasks.REMOVE, fakes_tasks.INSERT):
        fakes_tasks.work(tmp_path / condition["task"], condition)
    fakes_text2img.make(fakes_text2img.write(tmp_path / "text2img"))

    written = {
        pair for out in sorted(tmp_path.glob("*/out")) for row in manifest(out / "dataset") for pair in keys_of(row)
    }
    named = set(re.findall(r"`(\w+)`", PAGE.read_text("utf-8"))) | set(re.findall(r'"(\w+)":', PAGE.read_text("utf-8")))
    assert sorted(f"{above}.{key}" for key, above in written if key not in named) == []
    cells = [line.split("|")[1] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    described = {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}
    assert described - {key for key, _ in written} == set()
