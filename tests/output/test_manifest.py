"""The manifest: every image of the dataset, and how it was made."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.fakes import make_dataset, manifest, put
from tests.output.conftest import Made


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
