"""The main job on the shipped model and real photographs, as a newcomer runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from diffgen.output.contact_sheet import GAP
from tests.e2e.conftest import ROOT, Finished
from tests.fakes import tree

CONDITIONS = ("snow", "night", "fog", "rain")


def luminance(path: Path) -> float:
    return float(np.asarray(Image.open(path).convert("L")).mean())


def test_every_image_stands_beside_its_source_with_its_labels(finished: Path) -> None:
    data = finished / "dataset"
    for name, size in (("bus", (810, 1080)), ("zidane", (1280, 720))):
        source = (data / f"labels/train/{name}.txt").read_bytes()
        for condition in CONDITIONS:
            made = f"{name}__{condition}-0"
            assert Image.open(data / f"images/train/{made}.jpg").size == size
            assert (data / f"labels/train/{made}.txt").read_bytes() == source
    assert [p.name for p in (data / "images/val").iterdir()] == ["grace_hopper.jpg"]


def test_night_is_darker_and_fog_is_flatter_than_the_source(finished: Path) -> None:
    images = finished / "dataset/images/train"
    for name in ("bus", "zidane"):
        source = luminance(images / f"{name}.jpg")
        assert luminance(images / f"{name}__night-0.jpg") < 0.7 * source
        spread = [np.asarray(Image.open(images / f"{name}{tail}.jpg").convert("L")).std() for tail in ("", "__fog-0")]
        assert spread[1] < spread[0]


def test_again_makes_nothing_and_loads_no_torch(
    diffgen: Callable[..., Finished], finished: Path, world: dict[str, str], tmp_path: Path
) -> None:
    before = tree(finished)
    command = [sys.executable, "-X", "importtime", "-m", "diffgen", "run", str(finished), "--json"]
    done = subprocess.run(command, env=world, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["made_now"] == 0
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert not imported & {"torch", "diffusers", "transformers", "ultralytics", "ray", "cv2"}
    assert {k: v for k, v in tree(finished).items() if k != "lock"} == {k: v for k, v in before.items() if k != "lock"}


def test_another_condition_makes_only_its_own_images(
    diffgen: Callable[..., Finished], finished: Path, photographs: Path, tmp_path: Path
) -> None:
    recipe = yaml.safe_load((finished / "recipe.yaml").read_text())
    recipe["conditions"].append("dusk")
    recipe |= {"dataset": str(photographs), "output": str(finished)}
    path = tmp_path / "more.yaml"
    path.write_text(yaml.safe_dump(recipe))
    done = diffgen("run", path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["made_now"] == 2
    assert json.loads(diffgen("status", finished, "--json").stdout)["conditions"]["dusk"]["planned"] == 2


def test_yolo_trains_on_it_from_another_folder(finished: Path, world: dict[str, str], tmp_path: Path) -> None:
    """One epoch from scratch: every image and label is found, none is complained about."""
    images = list((finished / "dataset/images/train").iterdir())
    arguments = ["epochs=1", "imgsz=96", "batch=4", "workers=0", "device=cpu", "plots=False", "verbose=True"]
    script = "import sys; from ultralytics.cfg import entrypoint; sys.argv[0] = 'yolo'; entrypoint()"
    done = subprocess.run(
        [sys.executable, "-c", script, "train", f"data={finished / 'dataset/data.yaml'}", "model=yolo26n.yaml",
         f"project={tmp_path / 'project'}", *arguments],
        env=world, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    log = done.stdout + done.stderr
    assert done.returncode == 0, log
    assert (len(list((tmp_path / "project").rglob("last.pt")))) == 1, log
    scans = re.findall(r"(\d+) images, (\d+) backgrounds, (\d+) corrupt", log)
    assert (str(len(images)), "0", "0") in scans, log
    assert all(corrupt == "0" for _, _, corrupt in scans)
    assert not re.search(r"ignoring corrupt|duplicate labels|No labels found|missing", log), log


@pytest.mark.slow
def test_two_kills_leave_the_dataset_as_if_there_were_none(
    diffgen: Callable[..., Finished], finished: Path, photographs: Path, world: dict[str, str], tmp_path: Path
) -> None:
    """SIGKILL twice, at the first record and at the next, then run to the end: byte-identical."""
    arguments = [
        "run",
        str(ROOT / "configs/quickstart.yaml"),
        "--set",
        f"dataset={photographs}",
        "--set",
        "batch_size=1",
    ]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert diffgen(*arguments, "--output", whole).returncode == 0
    for lines in (1, 3):  # a record and its trailer
        child = subprocess.Popen(
            [sys.executable, "-m", "diffgen", *arguments, "--output", str(broken), "--quiet"],
            env=world, cwd=tmp_path, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        records = broken / "records-0.jsonl"
        deadline = time.monotonic() + 200
        while not (records.exists() and records.read_bytes().count(b"\n") >= lines):
            assert child.poll() is None, "it finished before it could be killed"
            assert time.monotonic() < deadline, "no record in time"
            time.sleep(0.02)
        child.kill()
        child.wait()
    assert diffgen(*arguments, "--output", broken).returncode == 0
    assert tree(broken / "dataset") == tree(whole / "dataset")


def test_the_main_job_runs_with_ultralytics_blocked(world: dict[str, str], photographs: Path, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'ultralytics':\n"
        "            raise ImportError(name + ' is blocked')\n"
        "sys.meta_path.insert(0, Block())\n"
        "from diffgen.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"dataset": str(photographs), "output": "out", "conditions": ["night"]}))
    done = subprocess.run(
        [sys.executable, "-c", script, "run", str(recipe), "--limit", "1", "--json"],
        env=world, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accepted"] == 1


def test_the_contact_sheet_shows_every_condition(finished: Path, tmp_path: Path, world: dict[str, str]) -> None:
    sheet = tmp_path / "sheet.png"
    command = [sys.executable, str(ROOT / "scripts/demo.py"), "sheet", str(finished), str(sheet)]
    subprocess.run(command, env=world, check=True, capture_output=True, timeout=120)
    assert Image.open(sheet).width in [420 * tiles + GAP * (tiles - 1) for tiles in (5, 6)]  # dusk may have been added


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_plans(
    path: Path, diffgen: Callable[..., Finished], photographs: Path, tmp_path: Path
) -> None:
    out, fields = tmp_path / "out", yaml.safe_load(path.read_text("utf-8"))
    sets = ["--set", f"dataset={photographs}"] if "dataset" in fields else []
    if "detector" in fields:  # a file of the user's
        (tmp_path / "detector.pt").touch()
        sets += ["--set", f"detector={tmp_path / 'detector.pt'}"]
    for condition in fields["conditions"]:
        if "classes" in condition:  # the photographs have a bus and no car
            sets += ["--set", f"conditions.{condition['name']}.classes=[bus]"]
    done = diffgen("plan", path, *sets, "--output", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"]["name"] == fields["model"]
    assert not out.exists()
