"""A run folder in which something was damaged: what could be checked is checked, said, and made again."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffgen.commands.export import export
from diffgen.errors import DiffgenError
from diffgen.output import export as export_module
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from diffgen.run.store.records import trailer_line
from diffgen.run.summary import summary_text
from tests.fakes import make, manifest, tree
from tests.run.disturbed import no_worker


def flip(path: Path, at: int = -9) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip_unseen(path: Path) -> None:
    """As a disk does, or rsync -t: size and mtime stay."""
    times = path.stat()
    flip(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("damage", [flip, cut, flip_unseen])
def test_a_damaged_image_is_set_aside_said_and_made_again(
    damage: Callable[[Path], None], recipe: Path, tmp_path: Path
) -> None:
    make(recipe)
    before = tree(tmp_path / "out/dataset")
    image = sorted((tmp_path / "out/images").glob("*/*.jpg"))[0]
    damage(image)
    raw = image.read_bytes()
    summary, editor = make(recipe)
    assert image.stem in editor.made
    assert tree(tmp_path / "out/dataset") == before
    assert image.stem in summary.repaired[0]
    assert f"repaired  {summary.repaired[0]}" in summary_text(summary)
    assert summary.to_dict()["repaired"] == summary.repaired
    assert image.with_name(f"{image.stem}.damaged.jpg").read_bytes() == raw
    assert run(load_recipe(recipe), make_worker=no_worker).repaired == []


def test_exchanged_images_are_seen(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    first, second = sorted((tmp_path / "out/images").glob("*/*.jpg"))[:2]
    first.rename(tmp_path / "x")
    second.rename(first)
    (tmp_path / "x").rename(second)
    summary, editor = make(recipe)
    assert {first.stem, second.stem} <= set(editor.made)
    assert summary.accepted == 8


def test_export_does_not_export_a_damaged_image(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    image = sorted((tmp_path / "out/images").glob("*/*.jpg"))[0]
    flip(image)
    summary = export(load_recipe(tmp_path / "out"))
    assert (summary.pending, len(summary.repaired)) == (1, 1)
    assert image.stem not in {row.get("job") for row in manifest(tmp_path / "out/dataset")}


def test_a_moved_folder_is_read_once_and_believed(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    loaded = load_recipe(recipe, output=tmp_path / "elsewhere")
    summary = run(loaded, make_worker=no_worker)
    assert (summary.accepted, summary.repaired) == (8, [])


def test_a_flipped_bit_in_the_records_costs_one_batch(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    before = tree(tmp_path / "out/dataset")
    flip(tmp_path / "out/records-0.jsonl", 30)
    summary, editor = make(recipe)
    assert len(editor.made) == 3
    assert (summary.accepted, tree(tmp_path / "out/dataset")) == (8, before)
    assert "records-0.damaged.jsonl" in summary_text(summary)


TEXTS = [
    "labels/train/00.txt",
    "labels/train/00__night-0.txt",
    "labels/val/00.txt",
    "data.yaml",
    "manifest.jsonl",
    "croissant.json",
]
IMAGES = ["images/train/00.jpg", "images/train/00__night-0.jpg"]  # `run` compares their sizes, `verify` their bytes


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in TEXTS for damage in (flip, cut, empty, os.unlink)),
        *((name, damage) for name in IMAGES for damage in (cut, empty, os.unlink)),
    ],
)
def test_damage_in_the_dataset_is_mended(
    name: str, damage: Callable[[Path], None], recipe: Path, tmp_path: Path
) -> None:
    make(recipe)
    before = tree(tmp_path / "out/dataset")
    damage(tmp_path / "out/dataset" / name)
    run(load_recipe(recipe), make_worker=no_worker)
    assert tree(tmp_path / "out/dataset") == before


def test_a_label_that_somebody_gave_a_background_is_taken_away(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "data/labels/train/00.txt").unlink()
    make(recipe)
    (tmp_path / "out/dataset/labels/train/00.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    run(load_recipe(recipe), make_worker=no_worker)
    assert not (tmp_path / "out/dataset/labels/train/00.txt").exists()


def test_the_dataset_shares_no_file_with_the_images(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    before = tree(tmp_path / "out/images")
    files = [path for path in (tmp_path / "out/dataset").rglob("*") if path.is_file()]
    assert {path.stat().st_nlink for path in files} == {1}
    for path in files:
        path.write_bytes(b"a tool that writes in place")
    assert tree(tmp_path / "out/images") == before


def test_what_an_interrupted_swap_left_is_cleared(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    for name in (".dataset.old", ".dataset.new"):
        (tmp_path / "out" / name / "images").mkdir(parents=True)
    run(load_recipe(recipe), make_worker=no_worker)
    assert sorted(path.name for path in (tmp_path / "out").glob(".dataset*")) == []


def test_everything_is_on_the_disk_before_the_swap(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []

    def noting(name: str) -> Callable[..., Any]:
        real = getattr(export_module, name)

        def call(folder: Path) -> None:
            done.append((name, folder.name))
            if name == "sync_filesystem":
                assert len(list(folder.rglob("*.txt"))) == 14
                assert json.loads((folder / "manifest.jsonl").read_text().splitlines()[0])["images"] == 14
                assert not (tmp_path / "out/dataset").exists()
            real(folder)

        return call

    for name in ("sync_filesystem", "sync_folder"):
        monkeypatch.setattr(export_module, name, noting(name))
    make(recipe)
    assert done == [("sync_filesystem", ".dataset.new"), ("sync_folder", "out")]


def test_an_error_of_the_disk_is_no_dataset(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(folder))

    monkeypatch.setattr(export_module, "sync_filesystem", fail)
    with pytest.raises(DiffgenError, match="cannot write the dataset"):
        make(recipe)
    assert not (tmp_path / "out/dataset").exists()
    monkeypatch.undo()
    assert run(load_recipe(recipe), make_worker=no_worker).accepted == 8


FORGED: list[dict[str, Any]] = [
    {"structure": "x"}, {"structure": 7}, {"structure": [[]]}, {"contrast": None}, {"contrast": []}, {"before": 7},
    {"after": ["a"]}, {"before": None, "after": {}}, {"shift": {}}, {"removed": 3}, {"removed": ["a"]}, {"detections": [7]},
    {"found": 5}, {"clip": 1}, {"new_objects": "many"}, {"task": 1, "painted": "x"},
]  # fmt: skip


@pytest.mark.parametrize("facts", FORGED, ids=str)
def test_a_record_of_facts_that_nobody_measured_is_one_error_or_judged(
    facts: dict[str, Any], recipe: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    make(recipe)
    path = tmp_path / "out/records-0.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    record = json.loads(lines[0])
    record["facts"] |= facts
    lines[0] = json.dumps(record).encode() + b"\n"
    count = next(i for i, line in enumerate(lines) if line.startswith(b'{"commit"'))
    lines[count] = trailer_line(count, b"".join(lines[:count])) + b"\n"
    path.write_bytes(b"".join(lines))
    for command in ("status", "run", "export", "verify"):
        answer = cli(command, tmp_path / "out")
        assert answer.code in (0, 1)
        assert "Traceback" not in answer.err
        if answer.code and command != "verify":
            assert f"error: the record of image {record['id']} holds impossible measurements" in answer.err
            assert "hint: delete the image" in answer.err
    (tmp_path / f"out/images/{record['id'][:2]}/{record['id']}.jpg").unlink()
    assert make(recipe)[0].accepted == 8


def test_a_folder_of_images_that_was_moved_and_linked_is_read(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    folder = sorted(path for path in (tmp_path / "out/images").iterdir() if path.name != ".tmp")[0]
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    assert run(load_recipe(recipe), make_worker=no_worker).accepted == 8
