"""Pipes, devices, links in circles and giant labels are refused in seconds; names never reach a terminal raw."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.dataset.sources import LONGEST_LABEL
from diffgen.errors import UsageError
from tests.dataset.annotations import BOX, coco, voc
from tests.dataset.annotations import read as read_converted
from tests.dataset.reading import described, keys_of, put_photo, read, refusal
from tests.fakes import FakeEditor, make, make_dataset, photo, put, recipe_fields, save, write_recipe


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["images/train/00.jpg", "labels/train/00.txt"])
@pytest.mark.parametrize("kind", ["pipe", "endless device"])
def test_what_is_no_regular_file_is_the_problem_of_its_picture(name: str, kind: str, tmp_path: Path) -> None:
    data, path = make_dataset(tmp_path), tmp_path / name
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    first, *rest = read(data).sources
    assert (first.problem, first.left_out) == ("missing: not a regular file", True)
    assert not any(source.problem for source in rest)


@pytest.mark.timeout(20)
def test_pipes_in_place_of_files_that_name_pictures(tmp_path: Path) -> None:
    for name in ("data.yaml", "list.txt"):
        os.mkfifo(tmp_path / name)
    assert "not a regular file" in refusal(tmp_path / "data.yaml").message
    make_dataset(tmp_path / "d")
    with pytest.raises(UsageError, match="not a regular file"):
        read(described(tmp_path / "d", train="../list.txt", val="images/val"))
    spec = coco(tmp_path / "c", [BOX])
    (tmp_path / "c/train.json").unlink()
    os.mkfifo(tmp_path / "c/train.json")
    with pytest.raises(UsageError, match="not a regular file"):
        read_converted(spec, tmp_path / "c")
    spec = voc(tmp_path / "v", "")
    (tmp_path / "v/xml/a.xml").unlink()
    os.mkfifo(tmp_path / "v/xml/a.xml")
    (source,) = read_converted(spec, tmp_path / "v").split("train")
    assert source.problem == "annotation: a.xml: not a regular file"


def test_a_giant_label_is_carried_over_unread(tmp_path: Path) -> None:
    data = make_dataset(tmp_path)
    row = "0 0.5 0.5 0.1 0.1\n"
    put(tmp_path / "labels/train/00.txt", row * (LONGEST_LABEL // len(row) + 1))
    first = read(data).sources[0]
    assert first.problem == "long: the label file has over 2000 kB"
    assert not first.left_out


@pytest.mark.timeout(20)
def test_links_in_circles_list_every_picture_once(tmp_path: Path) -> None:
    folders = "abcdefghij"
    for i, name in enumerate(folders):
        put_photo(tmp_path, f"train/{name}/{i}.jpg", seed=i)
    for name in folders:
        for other in folders:
            if name != other:
                (tmp_path / f"images/train/{name}/to_{other}").symlink_to(f"../{other}")
    put_photo(tmp_path, "val/x.jpg", seed=50)
    data = read(described(tmp_path, train="images/train", val="images/val"))
    assert keys_of(data) == [*(f"train/{name}/{i}" for i, name in enumerate(folders)), "val/x"]


@pytest.mark.parametrize("word", ["\x1b[2J", "\x1b]0;title\x07", "new\nline", "\u202e", "\r"])
def test_names_never_reach_a_terminal_raw(word: str, tmp_path: Path, cli: Callable[..., Any]) -> None:
    data = make_dataset(tmp_path / "d", names=["car", f"per{word}son"])
    put_photo(tmp_path / "d", f"train/a{word}b.jpg", "9 0.5 0.5 0.1 0.1\n", seed=9)
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", select={"classes": ["person"]})
    plan = cli("plan", write_recipe(tmp_path / "s.yaml", data, tmp_path / "out"))
    assert plan.code == 0
    assert "class-id" in plan.out
    failed = cli("plan", recipe)
    assert failed.code == 2
    for text in (plan.out, plan.err, failed.out, failed.err):
        assert word not in text
        assert not any(c != "\n" and not c.isprintable() for c in text)
    lines = [line for line in plan.out.splitlines() if "row 1" in line]
    assert len(lines) == 1
    assert yaml.safe_load(data.read_text())["names"][1] == f"per{word}son"


def leading_out(kind: str, root: Path) -> Path:
    """A recipe for a dataset with a picture of somebody else's folder."""
    save(root / "private/secret.png", photo(40))
    fields = recipe_fields(root / "d/data.yaml", root / "out", conditions=["night"])
    if kind == "yolo list":
        make_dataset(root / "d", train="train.txt")
        put(root / "d/train.txt", "./images/train/00.jpg\n./../private/secret.png\n")
    elif kind == "yolo folder":
        make_dataset(root / "d", train=["images/train", str(root / "private")])
    else:
        name = "../../private/secret.png" if kind == "coco .." else str(root / "private/secret.png")
        images = [{"id": i, "file_name": n, "width": 64, "height": 48} for i, n in ((7, "a.png"), (8, name))]
        fields["dataset"] = coco(root / "d", [BOX], images=images).model_dump(exclude_none=True)
        for part in ("train", "val"):
            fields["dataset"][part] = {key: f"d/{path}" for key, path in fields["dataset"][part].items()}
    return put(root / "r.yaml", yaml.safe_dump(fields))


@pytest.mark.parametrize("kind", ["yolo list", "yolo folder", "coco ..", "coco absolute"])
def test_names_that_lead_outside_are_taken_named_and_with_confined_refused(
    kind: str, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    recipe = leading_out(kind, tmp_path)
    line = f"{tmp_path}/private/: 1"
    plan = json.loads(cli("plan", recipe, "--json").out)
    assert plan["notes"]["outside"] == {"count": 1, "examples": [line]}
    for command in ("plan", "run"):
        refused = cli(command, recipe, "--confined")
        assert refused.code == 2
        assert line in refused.err
    assert not (tmp_path / "out").exists()
    summary, _ = make(recipe, classes=3)
    assert summary.dataset["notes"]["outside"]["examples"] == [line]
    assert any(path.stem == "secret" for path in (tmp_path / "out/dataset/images/train").rglob("*.png"))


def test_a_dataset_within_its_folder_is_confined(recipe: Path, cli: Callable[..., Any]) -> None:
    assert cli("plan", recipe, "--confined").code == 0
    assert cli("run", recipe, "--confined", editor=FakeEditor()).code == 0
