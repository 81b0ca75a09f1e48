"""`diffgen export --schedule pretrain-finetune`: data files of two stages beside data.yaml, which stays as it is."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.commands.export import export
from diffgen.commands.verify import verify
from diffgen.dataset.dataset import read_dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.errors import UsageError
from diffgen.output.schedule import STAGE_FILES
from diffgen.recipe.load import load_recipe
from tests.fakes import make, make_dataset, photo, save, tree, write_recipe
from tests.output.conftest import Made

MADE = ["00__fog-0", "00__night-0", "01__fog-0", "01__night-0"]


def test_four_files_more_and_no_byte_else(made: Made, tmp_path: Path) -> None:
    folder = made(dataset={"counts": (2, 1)})
    before = tree(folder)
    assert STAGE_FILES.isdisjoint(before)
    export(load_recipe(tmp_path / "out"), staged=True)
    after = tree(folder)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == STAGE_FILES
    assert sorted((folder / "made.txt").read_text().split()) == [f"./images/train/{name}.jpg" for name in MADE]
    assert (folder / "real.txt").read_text().split() == ["./images/train/00.jpg", "./images/train/01.jpg"]
    export(load_recipe(tmp_path / "out"))
    assert tree(folder) == before, "they go with the next export that does not ask for them"


def test_their_keys_are_those_of_data_yaml_but_for_train(made: Made, tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", kind="pose", test="images/val", channels=3)
    folder = made(tmp_path / "data/data.yaml", keypoints=(2, 3), select={"splits": ["train", "val"]})
    export(load_recipe(tmp_path / "out"), staged=True)
    given = yaml.safe_load((folder / "data.yaml").read_text())
    assert given.keys() >= {"train", "val", "test", "kpt_shape"}
    for stage in ("made", "real"):
        data = yaml.safe_load((folder / f"{stage}.yaml").read_text())
        assert list(data.items()) == list({**given, "train": f"{stage}.txt"}.items())
        assert {line.split("/")[2] for line in (folder / f"{stage}.txt").read_text().split()} == {"train"}


def test_diffgen_reads_them_as_datasets(made: Made, tmp_path: Path) -> None:
    folder = made(dataset={"counts": (2, 1)})
    export(load_recipe(tmp_path / "out"), staged=True)
    with FileCache() as cache:
        read = {
            stage: read_dataset(str(folder / f"{stage}.yaml"), tmp_path, cache).sources for stage in ("made", "real")
        }
    assert sorted(s.name for s in read["made"] if s.split == "train") == MADE
    assert sorted(s.name for s in read["real"] if s.split == "train") == ["00", "01"]
    assert all(source.label for sources in read.values() for source in sources)


def test_a_whole_export_is_left_alone_and_another_put_right(made: Made, tmp_path: Path) -> None:
    folder = made()
    export(load_recipe(tmp_path / "out"), staged=True)
    stamps = {path: path.stat().st_ino for path in folder.rglob("*.*")}
    export(load_recipe(tmp_path / "out"), staged=True)
    assert {path: path.stat().st_ino for path in folder.rglob("*.*")} == stamps
    assert verify(load_recipe(tmp_path / "out")).whole
    before = tree(folder)
    for name in STAGE_FILES:
        (folder / name).write_text("train: images/val\n")
        assert not verify(load_recipe(tmp_path / "out")).whole
        export(load_recipe(tmp_path / "out"), staged=True)
        assert tree(folder) == before
        (folder / name).unlink()
        assert not verify(load_recipe(tmp_path / "out")).whole, name
        export(load_recipe(tmp_path / "out"), staged=True)


def test_it_prints_how_to_train(cli: Callable[..., Any], tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "my runs/out"))
    run = tmp_path / "my runs/out"
    plain = cli("export", run)
    assert cli("export", run, "--schedule", "mix").out == plain.out
    assert "stages" not in json.loads(cli("export", run, "--json").out)
    staged = cli("export", run, "--schedule", "pretrain-finetune")
    assert (staged.code, staged.err) == (0, "")
    assert staged.out.startswith(plain.out)
    commands = staged.out[len(plain.out) :].splitlines()
    made, real = (dict(word.split("=") for word in shlex.split(command)[2:]) for command in commands)
    assert made == {
        "data": f"{run}/dataset/made.yaml", "project": f"{run}-stages", "name": "made", "exist_ok": "True", "model": "yolo26n.pt",
    }  # fmt: skip
    assert real == {"data": f"{run}/dataset/real.yaml", "model": f"{run}-stages/made/weights/last.pt"}
    assert {command.split()[0] + command.split()[1] for command in commands} == {"yolotrain"}
    facts = json.loads(cli("export", run, "--json", "--schedule", "mix,pretrain-finetune").out)
    assert facts["stages"] == commands


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["include_sources=none"], "the dataset has no real picture in train"),
        (["checks.contrast=1"], "the dataset has no made picture in train"),
    ],
)
def test_a_stage_without_a_picture_is_refused_and_nothing_done(
    made: Made, tmp_path: Path, sets: list[str], words: str
) -> None:
    made()
    before = tree(tmp_path / "out")
    with pytest.raises(UsageError, match=words):
        export(load_recipe(tmp_path / "out", sets), staged=True)
    assert tree(tmp_path / "out") == before


def test_a_name_that_no_list_can_hold_is_refused(made: Made, tmp_path: Path) -> None:
    make_dataset(tmp_path / "data")
    save(tmp_path / "data/images/train/a\nb.jpg", photo(7))
    made(tmp_path / "data/data.yaml")
    with pytest.raises(UsageError, match="this name cannot be written in an image list"):
        export(load_recipe(tmp_path / "out"), staged=True)
