"""Traps that a careful reader found: each was a wrong result once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from diffgen import models
from diffgen.checks import measure
from diffgen.errors import DiffgenError, UsageError
from diffgen.labels import Shape
from diffgen.models import with_revision
from diffgen.recipe import load_recipe
from diffgen.run import prepare, stale
from tests.fakes import (
    Asked,
    FakeEditor,
    make,
    make_dataset,
    model,
    photo,
    put,
    recipe_fields,
    save,
    tree,
    write_recipe,
)


def test_a_list_that_climbs_out_of_its_folder_keeps_every_picture_in_its_split(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d", counts=(2, 1))
    save(tmp_path / "other/q.jpg", photo(8))
    put(tmp_path / "d/lists/train.txt", "./../images/train/00.jpg\n./../../other/q.jpg\n./../images/train/01.jpg\n")
    put(data, yaml.safe_dump({"train": "lists/train.txt", "val": "images/val", "names": ["car", "person"]}))
    summary, _ = make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=["night"]))
    assert summary.accepted == 3
    images = [p for p in (tmp_path / "out/dataset/images").rglob("*") if p.is_file()]
    assert len([p for p in images if "train" in p.parts]) == 6
    assert len(images) == 7


def test_a_label_edited_moves_no_picture_to_another_side_or_choice(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d", counts=(20, 0))
    recipe = write_recipe(
        tmp_path / "r.yaml", data, tmp_path / "out", val_from_train=0.3, select={"max": 5}, assign="one"
    )

    def sides() -> tuple[Any, Any]:
        plan = prepare(load_recipe(recipe)).plan
        return (
            {Path(source.path).name: source.split for source in plan.sources},
            {Path(item.source.path).name: item.job.settings.condition for item in plan.items},
        )

    before = sides()
    for i in range(20):
        put(tmp_path / f"d/labels/train/{i:02}.txt", f"0 0.5 0.5 0.{i + 1:02} 0.2\n")
    assert sides() == before


def test_clean_keeps_what_a_limit_hid_and_what_others_put_there(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out")
    make(recipe)
    make(recipe, limit=1)
    folder = next((tmp_path / "out/images").glob("[0-9a-f][0-9a-f]"))
    put(folder / "mine.txt", "mine")
    put(folder / "mine/of.jpg", "mine")
    assert stale(load_recipe(recipe), remove=True) == (0, 0)
    assert (folder / "mine.txt").exists()
    _, editor = make(recipe)
    assert editor.made == []


def test_a_hub_model_without_a_revision_keeps_the_commit_its_run_folder_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = model(revision=None, identity="tests/fake@unpinned")
    known = replace(unknown, revision="a" * 40, identity=f"tests/fake@{'a' * 40}")
    monkeypatch.setattr("diffgen.guides.resolve_model", lambda *_: unknown)
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out", model="tests/fake")
    make(recipe)  # nobody was asked for the commit: these images stand under the unknown one
    put(
        tmp_path / "out/run.json",
        json.dumps({**json.loads((tmp_path / "out/run.json").read_text()), "revisions": {"tests/fake": "a" * 40}}),
    )
    assert prepare(load_recipe(recipe)).model == known
    assert with_revision(unknown, {"hub": "tests/fake", "revision": "b" * 40}, "a" * 40) == unknown
    assert with_revision(known, "tests/fake", None) == known


def test_a_fetched_hub_model_is_the_one_that_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub leaves no trace of `main` when a commit is fetched by its name."""
    from diffgen import run as spine
    from tests.fakes import fake_worker

    unknown = model(revision=None, identity="tests/fake@unpinned")
    known = replace(unknown, revision="c" * 40, identity=f"tests/fake@{'c' * 40}")
    monkeypatch.setattr("diffgen.guides.resolve_model", lambda *_: unknown)
    monkeypatch.setattr(spine, "require_on_disk", lambda _: known)
    monkeypatch.setattr(spine, "load_worker", lambda *_: fake_worker(FakeEditor()))
    recipe = write_recipe(
        tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out", model="tests/fake", device="cpu"
    )
    summary = spine.run(load_recipe(recipe))
    assert (summary.accepted, summary.pending, summary.exit_code) == (8, 0, 0)
    assert spine.status(load_recipe(recipe)).accepted == 8
    assert spine.run(load_recipe(recipe)).made_now == 0


@pytest.mark.parametrize(
    ("counts", "fields"),
    [((4, 0), {"val_from_train": 0.001}), ((2, 2), {"select": {"splits": ["train", "val"]}, "limit": 1})],
    ids=["a small share", "a limit over two splits"],
)
def test_there_is_always_something_to_train_and_to_validate_on(
    counts: Any, fields: dict[str, Any], tmp_path: Path
) -> None:
    limit = fields.pop("limit", None)
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d", counts=counts), tmp_path / "out", **fields)
    make(recipe, limit=limit)
    data = yaml.safe_load((tmp_path / "out/dataset/data.yaml").read_text())
    assert {"train", "val"} <= set(data)


def test_a_dataset_without_train_is_an_error(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d", counts=(0, 2))
    with pytest.raises(UsageError, match="train"):
        make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", select={"splits": ["val"]}))


def test_links_are_made_again_when_the_dataset_has_moved(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d")
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", include_sources="link"))
    shutil.move(tmp_path / "d", tmp_path / "e")
    make(write_recipe(tmp_path / "r.yaml", tmp_path / "e/data.yaml", tmp_path / "out", include_sources="link"))
    links = [p for p in (tmp_path / "out/dataset/images/train").iterdir() if p.is_symlink()]
    assert len(links) == 4
    assert all(link.exists() for link in links)


def test_a_folder_that_is_called_like_a_model_does_not_become_it(tmp_path: Path) -> None:
    (tmp_path / "pocket").mkdir()
    fields = recipe_fields(tmp_path / "d/data.yaml", tmp_path / "out", model="pocket", editor=None)
    loaded = load_recipe(put(tmp_path / "r.yaml", yaml.safe_dump(fields)))
    assert yaml.safe_load(loaded.to_yaml(tmp_path / "out", models.aliases()))["model"] == "pocket"
    home = load_recipe(put(tmp_path / "h.yaml", yaml.safe_dump({**fields, "model": {"folder": "~/pk"}})))
    assert yaml.safe_load(home.to_yaml(tmp_path / "out"))["model"] == {"folder": "~/pk"}


class Failing(FakeEditor):
    """The device breaks at some calls."""

    def __init__(self, calls: Sequence[int]) -> None:
        super().__init__()
        self.calls = calls

    def begin(self, asked: Asked) -> None:
        if len(self.batches) in self.calls:
            raise RuntimeError("device-side assert")


def test_a_device_that_fails_once_costs_one_batch_which_the_next_run_makes_with_the_same_bytes(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d")
    make(write_recipe(tmp_path / "w.yaml", data, tmp_path / "whole"))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out")
    summary, _ = make(recipe, Failing([2]))
    assert summary.failed["transient"] in (1, 3)  # whichever batch came second to the device
    again, _ = make(recipe)
    assert again.accepted == 8
    assert tree(tmp_path / "out/dataset") == tree(tmp_path / "whole/dataset")


def test_a_device_that_keeps_failing_ends_the_run_with_one_error(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d", counts=(20, 1)), tmp_path / "out")
    editor = Failing(range(2, 99))
    with pytest.raises(DiffgenError, match="device-side assert"):
        make(recipe, editor)
    assert len(editor.batches) <= 7  # one that went well, three that did not, and those already in hand
    assert make(recipe)[0].accepted == 40


def test_a_picture_larger_than_the_format_takes_is_its_own_failure_alone(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d", counts=(2, 1))
    save(
        tmp_path / "d/images/train/wide.png",
        np.zeros((12, 16400, 3), np.uint8) + np.arange(16400, dtype=np.uint8)[None, :, None],
    )
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=["night"], image={"format": "webp"})
    summary, _ = make(recipe)
    assert (summary.accepted, summary.failed) == (2, {"source": 1})


def test_odd_keys_of_a_data_yaml_are_handed_on(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d")
    put(data, data.read_text() + "1: x\ncolors: {0: red, car: blue}\n2026-01-01: day\n")
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"))
    written = yaml.safe_load((tmp_path / "out/dataset/data.yaml").read_text())
    assert written["colors"] == {0: "red", "car": "blue"}


def test_a_name_that_is_not_utf_8_is_edited_under_another(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d", counts=(1, 1))
    shutil.copyfile(tmp_path / "d/images/train/00.jpg", os.fsencode(tmp_path / "d/images/train") + b"/\xff.jpg")
    summary, _ = make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=["night"]))
    assert summary.accepted == 2


def test_a_file_missing_in_the_dataset_is_put_back(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out")
    make(recipe)
    before = tree(tmp_path / "out/dataset")
    shutil.rmtree(tmp_path / "out/dataset/labels/train")
    make(recipe)
    assert tree(tmp_path / "out/dataset") == before


def test_an_image_without_bytes_is_made_again(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out")
    make(recipe)
    before = tree(tmp_path / "out/dataset")
    victim = next((tmp_path / "out/images").rglob("*.jpg"))
    victim.unlink()
    victim.write_bytes(b"")
    summary, _ = make(recipe)
    assert summary.made_now == 1
    assert tree(tmp_path / "out/dataset") == before


def test_a_dataset_folder_that_is_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out")
    put(tmp_path / "elsewhere/mine.txt", "mine")
    (tmp_path / "out").mkdir()
    put(tmp_path / "out/run.json", '{"format": 1, "environments": {}}')
    (tmp_path / "out/dataset").symlink_to(tmp_path / "elsewhere")
    for sets in ([], ["variants=2"]):
        assert make(recipe, sets=sets)[0].exit_code == 0
    assert (tmp_path / "elsewhere/mine.txt").exists()
    assert not (tmp_path / "out/dataset").is_symlink()


def test_an_object_without_edges_in_the_source_is_not_judged() -> None:
    source = photo(1)
    source[2:26, 2:36] = 255
    edited = (source * 0.9).astype(np.uint8)
    edited[10, 10] = 200
    facts = measure(source, edited, [Shape(0, (0.12, 0.15, 0.42, 0.36))])
    assert facts["structure"] == [None]


def test_checks_of_a_condition_leave_the_others_as_the_recipe_has_them(tmp_path: Path) -> None:
    fields = {
        "conditions": [{"night": {"checks": {"structure": 0.1}}}],
        "checks": {"registration": None, "contrast": 0.1},
    }
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out", **fields)
    for path in (recipe, put(tmp_path / "copy.yaml", load_recipe(recipe).to_yaml(tmp_path))):
        loaded = load_recipe(path).recipe
        found = loaded.checks_for(loaded.conditions[0])
        assert (found.structure, found.registration, found.contrast) == (0.1, None, 0.1)


def test_a_condition_with_dots_in_its_name_can_be_set(tmp_path: Path) -> None:
    fields = {"conditions": [{"name": "v1.5", "prompt": "x"}, "night"]}
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out", **fields)
    assert load_recipe(recipe, ["conditions.v1.5.strength=0.1"]).recipe.conditions[0].strength == 0.1
