"""`clean` deletes what the recipe no longer means, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffgen.commands.clean import clean
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from tests.fakes import (
    ids_of,
    make,
    make_dataset,
    put,
    write_recipe,
)
from tests.fakes_attempts import run_it
from tests.run.disturbed import no_worker


def test_a_condition_taken_out_stays_in_the_folder_until_clean(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    summary, _ = make(recipe, sets=["conditions=[{night: {strength: 0.7}}]"])
    assert (summary.made_now, summary.accepted, len(ids_of(tmp_path / "out"))) == (0, 4, 8)
    out = load_recipe(tmp_path / "out")
    images, size = clean(out, remove=False)
    assert (images, len(ids_of(tmp_path / "out"))) == (4, 8)
    assert clean(out, remove=True) == (4, size)
    assert len(ids_of(tmp_path / "out")) == 4
    assert run(out, make_worker=no_worker).accepted == 4
    assert make(recipe)[0].made_now == 4, "what was cleaned away can be made again"


def test_clean_keeps_what_a_limit_hid_and_what_others_put_there(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out")
    make(recipe)
    make(recipe, limit=1)
    folder = next((tmp_path / "out/images").glob("[0-9a-f][0-9a-f]"))
    put(folder / "mine.txt", "mine")
    put(folder / "mine/of.jpg", "mine")
    assert clean(load_recipe(recipe), remove=True) == (0, 0)
    assert (folder / "mine.txt").exists()
    _, editor = make(recipe)
    assert editor.made == []


def test_clean_deletes_only_with_yes(cli: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    text = recipe.read_text().replace("- fog:\n    strength: 0.6\n    skip_if: []\n", "")
    put(recipe, text)
    make(recipe)
    said = json.loads(cli("clean", tmp_path / "out", "--json").out)
    assert said["images"] == 4
    assert not said["deleted"]
    assert cli("clean", tmp_path / "out", "--yes").code == 0
    assert json.loads(cli("clean", tmp_path / "out", "--json").out)["images"] == 0
    assert json.loads(cli("status", tmp_path / "out", "--json").out)["accepted"] == 4


def test_clean_keeps_every_attempt(tmp_path: Path) -> None:
    run_it(tmp_path, "out", 3)
    assert clean(load_recipe(tmp_path / "out"), remove=False) == (0, 0)


def test_clean_says_what_it_found_damaged(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    image = sorted((tmp_path / "out/images").glob("*/*.jpg"))[0]
    image.write_bytes(b"damaged")
    said: list[str] = []
    assert clean(load_recipe(recipe), remove=False, notify=said.append) == (1, 7)
    assert image.stem in said[0]
    assert image.with_name(f"{image.stem}.damaged.jpg").exists()


def test_clean_deletes_damaged_images_that_were_set_aside(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    image = next((tmp_path / "out/images").glob("*/*.jpg"))
    image.write_bytes(b"broken")
    make(recipe)
    assert len(list((tmp_path / "out/images").glob("*/*.damaged*"))) == 1
    assert clean(load_recipe(recipe), remove=True) == (1, 6)
    assert not list((tmp_path / "out/images").glob("*/*.damaged*"))
    assert make(recipe)[0].made_now == 0
