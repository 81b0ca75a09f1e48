"""A run folder that commit dcb522e left: this version opens it, goes on with it and exports it. data/write_old_run.py wrote it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from diffgen import load_recipe
from diffgen.commands.clean import clean
from diffgen.commands.export import export
from diffgen.commands.reproduce import reproduce
from diffgen.commands.status import status
from diffgen.errors import UsageError
from diffgen.run.loop import run
from diffgen.run.session import open_run
from diffgen.types import EDIT_VERSION, Record
from tests.fakes import ids_of, make, manifest, tree
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
    said: list[str] = []
    summary = run(load_recipe(old / "recipe.yaml"), make_worker=no_worker, notify=said.append)
    assert (summary.made_now, summary.accepted) == (0, 3)
    assert any("made by an older diffgen" in line for line in said)
    assert tree(old / "out/images") == before


@pytest.mark.parametrize("change", ["a condition", "a torn batch", "a deleted image"])
def test_what_is_missing_is_not_made_with_other_edits_unasked(old: Path, change: str) -> None:
    sets = ["conditions=[night, snow, fog]"] if change == "a condition" else []
    if change == "a torn batch":
        written = (old / "out/records.jsonl").read_bytes()
        (old / "out/records.jsonl").write_bytes(written[:-40])
    if change == "a deleted image":
        next((old / "out/images").glob("*/*.jpg")).unlink()
    before, kept = tree(old / "out/images"), (old / "out/recipe.yaml").read_bytes()
    with pytest.raises(UsageError, match="made by an older diffgen") as raised:
        run(load_recipe(old / "recipe.yaml", sets), make_worker=no_worker)
    assert "--remake" in str(raised.value.hint)
    assert (tree(old / "out/images"), (old / "out/recipe.yaml").read_bytes()) == (before, kept)
    assert export(load_recipe(old / "out")).planned == 4, "what is there is used as it is"


def test_remade_it_is_a_folder_of_today(old: Path) -> None:
    made = ids_of(old / "out")
    summary, editor = make(old / "recipe.yaml", remake=True)
    assert (summary.planned, summary.made_now, summary.accepted) == (4, 4, 4)
    assert ids_of(old / "out") == made | {*editor.made}
    assert (old / "out/records.jsonl").read_bytes() == (OLD / "out/records.jsonl").read_bytes(), "it is only read"
    state = json.loads((old / "out/run.json").read_text())
    assert (state["format"], state["edit_version"]) == (2, EDIT_VERSION)
    assert run(load_recipe(old / "recipe.yaml"), make_worker=no_worker).made_now == 0
    images, _ = clean(load_recipe(old / "out"), remove=True)
    assert images == 4
    assert ids_of(old / "out") == {*editor.made}


def test_a_remake_that_was_cut_short_goes_on_by_itself(old: Path) -> None:
    _, first = make(old / "recipe.yaml", remake=True, limit=1)
    summary, editor = make(old / "recipe.yaml")
    assert (summary.accepted, len(first.made) + len(editor.made)) == (4, 4)


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


def test_its_images_are_not_compared_with_other_edits(old: Path) -> None:
    with pytest.raises(UsageError, match="made by an older diffgen"):
        reproduce(load_recipe(old / "out"), records()[0].id, make_worker=no_worker)


def test_what_its_recipe_no_longer_plans_is_cleaned_away(old: Path) -> None:
    fewer = load_recipe(old / "recipe.yaml", ["conditions=[night]"])
    run(fewer, make_worker=no_worker)
    assert clean(fewer, remove=False)[0] == 2
    assert len(ids_of(old / "out")) == 4
    clean(fewer, remove=True)
    assert ids_of(old / "out") == {record.id for record in records()[:2]}
