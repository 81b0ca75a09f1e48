"""What `plan` remarks on a dataset is told by `run`, `status`, their JSON and the report, and what nobody could train on stops."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.commands.clean import clean
from diffgen.commands.export import export
from diffgen.commands.plan_summary import plan_facts
from diffgen.commands.status import status
from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from diffgen.run.summary import summary_text
from tests.fakes import make, make_dataset, put, tree, write_recipe
from tests.run.disturbed import changing


def test_run_status_and_report_tell_what_plan_tells(recipe: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    put(tmp_path / "data/labels/train/00.txt", "9 0.5 0.5 0.1 0.1\n")
    put(tmp_path / "data/labels/train/nobody.txt", "")
    (tmp_path / "data/labels/train/01.txt").unlink()
    shutil.copy(tmp_path / "data/images/train/02.jpg", tmp_path / "data/images/val/copy.jpg")
    facts = plan_facts(load_recipe(recipe))
    summary, _ = make(recipe)
    for told in (summary, status(load_recipe(recipe)), export(load_recipe(recipe))):
        assert {**told.dataset, "identical": None} == {
            **{key: facts[key] for key in ("not_edited", "labels", "notes", "skipped", "small_boxes")},
            "identical": None,
        }
        assert told.dataset["identical"] == facts["leakage"]["identical"]
    assert json.loads(cli("status", tmp_path / "out", "--json").out)["dataset"] == summary.dataset
    lines = [
        "unedited  1 class-id, copied unchanged",
        "labels    2 images without a label file, 0 with an empty one: background",
        "labels    1 label files without an image, not used",
        "leakage   1 pictures appear in more than one split, byte for byte",
    ]
    page = (tmp_path / "out/report.html").read_text("utf-8")
    for line in lines:
        assert line in summary_text(summary)
        assert line in page


def test_the_report_is_written_again_when_only_a_remark_changes(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    put(tmp_path / "data/labels/train/nobody.txt", "")
    make(recipe)
    assert "1 label files without an image" in (tmp_path / "out/report.html").read_text("utf-8")


def test_a_dataset_without_any_label_is_refused(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    (tmp_path / "data/labels").rename(tmp_path / "data/Labels")
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out")
    with pytest.raises(UsageError, match="none of the 6 pictures has a labelled object") as caught:
        make(recipe)
    assert str(tmp_path / "data/labels/train/00.txt") in caught.value.hint
    assert caught.value.hint.endswith(f"; there is {tmp_path}/data/Labels")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("gone", ["labels", "labels/train", "labels/val"])
def test_nothing_is_changed_when_labels_have_vanished(gone: str, recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    before = tree(tmp_path / "out")
    shutil.rmtree(tmp_path / "data" / gone)
    loaded = load_recipe(recipe)
    for command in (
        lambda: make(recipe),
        lambda: clean(loaded, remove=True),
        lambda: export(loaded),
        lambda: status(loaded),
        lambda: plan_facts(loaded),
    ):
        with pytest.raises(UsageError, match=r"labelled (object|pictures)"):
            command()
    assert tree(tmp_path / "out") == before


def test_labels_that_vanish_while_images_are_made_are_not_exported(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'train' had 4 labelled pictures"):
        changing(recipe, lambda: shutil.rmtree(tmp_path / "data/labels"))
    assert not (tmp_path / "out/dataset").exists()


def test_a_val_picture_that_train_holds_too_is_not_edited(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    fields = yaml.safe_load(data.read_text()) | {"train": "images"}
    recipe = write_recipe(tmp_path / "r.yaml", put(data, yaml.safe_dump(fields)), tmp_path / "out")
    summary, _ = make(recipe)
    assert (summary.planned, summary.not_edited) == (8, {"leak": 4})
    assert "train/val/00: the same file is in val" in summary_text(summary)
    made = {path.stem for path in (tmp_path / "out/dataset/images/train").rglob("*__*.jpg")}
    assert made == {f"{i:02}__{condition}-0" for i in range(4) for condition in ("night", "fog")}
