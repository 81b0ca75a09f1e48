"""A run folder that commit dcb522e left: this version opens it, goes on with it and exports it. data/write_old_run.py wrote it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from diffgen import load_recipe, open_run
from diffgen.commands.clean import clean
from diffgen.commands.export import export
from diffgen.commands.reproduce import reproduce
from diffgen.commands.status import status
from diffgen.run.loop import run
from diffgen.types import Record
from tests.fakes import FakeEditor, fake_worker, ids_of, make, manifest, tree
from tests.run.disturbed import no_worker

OLD = Path(__file__).parent / "data/old_run"
# In dcb522e's manifest the statistics were a bare list, in this order.
NAMES = ("luminance", "spread", "saturation", "min_channel", "gradient", "near_white", "sky", "warmth")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """recipe.yaml, data/ and out/, where they may be changed."""
    return shutil.copytree(OLD, tmp_path / "old")


def records() -> list[Record]:
    """In the order in which they were committed."""
    lines = map(json.loads, (OLD / "out/records.jsonl").read_text("utf-8").splitlines())
    return [Record.from_json(json.dumps(line)) for line in lines if "id" in line]


def test_it_is_opened(old: Path) -> None:
    for place in (old / "out", old / "recipe.yaml"):
        summary = status(load_recipe(place))
        assert (summary.planned, summary.accepted, summary.pending) == (4, 3, 0)
        assert summary.rejected == {"review": 1}
    opened = open_run(old / "out")
    found = {entry.record.id: entry for entry in opened.entries if entry.record}
    assert [found[record.id].record for record in records()] == records()
    assert [found[record.id].accepted for record in records()] == [True, True, False, True]


def test_nothing_is_left_to_make(old: Path) -> None:
    before = tree(old / "out/images")
    summary = run(load_recipe(old / "recipe.yaml"), make_worker=no_worker)
    assert (summary.made_now, summary.accepted) == (0, 3)
    assert tree(old / "out/images") == before


def test_a_condition_added_makes_only_its_own_images(old: Path) -> None:
    before, made = tree(old / "out/images"), ids_of(old / "out")
    summary, editor = make(old / "recipe.yaml", sets=["conditions=[night, snow, fog]"])
    assert (summary.planned, summary.made_now, summary.accepted) == (6, 2, 5)
    assert ids_of(old / "out") == made | {*editor.made}
    assert not made & {*editor.made}
    assert (old / "out/records.jsonl").read_bytes() == (OLD / "out/records.jsonl").read_bytes(), "it is only read"
    assert json.loads((old / "out/run.json").read_text())["format"] == 2
    assert before.items() <= tree(old / "out/images").items()


@pytest.mark.parametrize("loss", [1, 40, 400], ids=["the end of a line", "the trailer", "a record"])
def test_a_torn_last_batch_is_made_again_and_no_other(old: Path, loss: int) -> None:
    written = (old / "out/records.jsonl").read_bytes()
    (old / "out/records.jsonl").write_bytes(written[:-loss])
    before = tree(old / "out/images")
    summary, editor = make(old / "recipe.yaml")
    assert editor.made == [record.id for record in records()[2:]]
    assert (summary.made_now, summary.accepted) == (2, 3)
    assert {*before} == {*tree(old / "out/images")}
    fine = {image.partition("/")[2].partition(".")[0]: digest for image, digest in before.items()}
    assert all(fine[record.id] == record.sha256 for record in records()[:2])


def exported(dataset: Path) -> dict[str, str]:
    """The hash of every image and every label file."""
    return {path: digest for path, digest in tree(dataset).items() if path.startswith(("images/", "labels/"))}


def test_it_is_exported_with_the_same_images_and_labels(old: Path) -> None:
    before, facts = exported(old / "out/dataset"), facts_of(old / "out/dataset")
    shutil.rmtree(old / "out/dataset")
    assert export(load_recipe(old / "out")).accepted == 3
    assert exported(old / "out/dataset") == before
    now = facts_of(old / "out/dataset")
    assert now.keys() == facts.keys()
    for job, then in facts.items():
        named = {when: dict(zip(NAMES, then[when], strict=True)) for when in ("before", "after")}
        assert now[job] == {**then, **named}


def facts_of(dataset: Path) -> dict[str, Any]:
    return {row["job"]: row["facts"] for row in manifest(dataset)[1:] if "job" in row}


def test_its_images_can_be_made_again(old: Path) -> None:
    for record in records():
        found = reproduce(load_recipe(old / "out"), record.id, make_worker=lambda: fake_worker(FakeEditor()))
        assert found.batch == 2
        assert found.environment == {}
        assert found.max_difference is not None
        assert found.max_difference <= 3, "another JPEG library may round otherwise"


def test_what_its_recipe_no_longer_plans_is_cleaned_away(old: Path) -> None:
    fewer = load_recipe(old / "recipe.yaml", ["conditions=[night]"])
    run(fewer, make_worker=no_worker)
    assert clean(fewer, remove=False)[0] == 2
    assert len(ids_of(old / "out")) == 4
    clean(fewer, remove=True)
    assert ids_of(old / "out") == {record.id for record in records()[:2]}
