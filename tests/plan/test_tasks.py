"""Which jobs a task means: its ids, its places, the sources that suit it, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffgen.checks.detectors.names import same_names
from diffgen.commands.plan_summary import plan_facts, plan_text
from diffgen.commands.sweeps import PreviewRequest, preview_images, read_sweep
from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from diffgen.run.session import Session
from tests.fakes import make_dataset, photo, put, save, write_recipe
from tests.fakes_tasks import BACKGROUND, FEATHER, INSERT, REMOVE, SIZE, street, work


def test_only_the_kept_classes_are_named_in_a_prompt(tmp_path: Path) -> None:
    street(tmp_path)
    items = plan_of(tmp_path, [REMOVE, BACKGROUND, INSERT]).items
    prompts = {i.job.settings.condition: i.job.prompt for i in items if i.source.name == "01" or i.job.place}
    assert prompts == {
        "without": "a photo of a car on a road",
        "elsewhere": "a photo of a car and a person in a desert",
        "with": "a photo of a person",
    }


def test_every_part_of_a_task_is_part_of_the_id(tmp_path: Path) -> None:
    street(tmp_path)
    everything = {key: value for key, value in REMOVE.items() if key != "classes"}
    sets = [(REMOVE, {}), (everything, {}), (REMOVE, {"objects": {"feather": 9}}), ({**BACKGROUND, "prompt": REMOVE["prompt"]}, {})]  # fmt: skip
    ids = []
    for i, (condition, fields) in enumerate(sets):
        _, editor, _ = work(tmp_path, {**condition, "name": "same"}, name=f"o{i}", **fields)
        ids.append(set(editor.made))
    assert all(not a & b for n, a in enumerate(ids) for b in ids[n + 1 :])


def plan_of(root: Path, conditions: Any, **fields: Any) -> Any:
    usual = {"editor": "inpaint", "objects": {"feather": FEATHER}, "resolution": {"long_side": 160}}
    fields = {**usual, "conditions": conditions, "detector": str(put(root / "d.pt", "")), **fields}
    return Session.open(
        load_recipe(write_recipe(root / "r.yaml", root / "data/data.yaml", root / "out", **fields))
    ).plan


def test_a_picture_more_moves_few_places(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", counts=(30, 1), size=SIZE)
    before = {item.source.name: item.job for item in plan_of(tmp_path, [INSERT]).items}
    save(tmp_path / "data/images/train/zz.jpg", photo(77, SIZE))
    put(tmp_path / "data/labels/train/zz.txt", "1 0.5 0.5 0.11 0.35\n")
    after = {item.source.name: item.job for item in plan_of(tmp_path, [INSERT]).items}
    assert len(before) >= 12
    assert sum(name not in after or after[name].id != job.id for name, job in before.items()) <= len(before) // 3


def test_variants_get_places_of_their_own(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", counts=(6, 1), size=SIZE)
    items = plan_of(tmp_path, [INSERT], variants=3).items
    assert len(items) % 3 == 0
    assert len({item.job.place for item in items}) > len(items) // 2


def test_a_preview_shows_sources_that_suit_the_task(tmp_path: Path) -> None:
    street(tmp_path)
    put(tmp_path / "data/labels/train/00.txt", "")
    plan = plan_of(tmp_path, [REMOVE, BACKGROUND])
    session = Session.open(load_recipe(tmp_path / "r.yaml"))
    shown = preview_images(session, PreviewRequest(number=4))
    assert [(cell.item.source.name, cell.label) for cell in shown] == [
        ("01", "without"), ("01", "elsewhere"), ("02", "elsewhere"), ("03", "without"), ("03", "elsewhere"),
    ]  # fmt: skip
    assert {cell.item.job.id for cell in shown} <= {item.job.id for item in plan.items}
    with pytest.raises(UsageError, match="decides which images are made"):
        read_sweep("classes=[car],[person]")


def test_one_condition_each_is_chosen_from_those_that_fit(tmp_path: Path) -> None:
    street(tmp_path)
    put(tmp_path / "data/labels/train/00.txt", "")
    plan = plan_of(tmp_path, [REMOVE, BACKGROUND], assign="one")
    chosen = {source.name: [condition.name for condition, _ in edits] for source, edits in plan.edits}
    assert chosen["00"] == []
    assert chosen["02"] == ["elsewhere"]
    assert all(len(names) == 1 for name, names in chosen.items() if name != "00")


WRONG = [
    ({"conditions": ["night"]}, r"'night' has no task, but model .* \(inpaint\)"),
    (
        {"editor": "instruct", "conditions": [REMOVE]},
        r"'without': task: remove does not work with model .* \(instruct\)",
    ),
    ({"conditions": [{**REMOVE, "classes": ["lorry"]}]}, "classes: the dataset has no class 'lorry'"),
    ({"conditions": [{**BACKGROUND, "classes": ["car"]}]}, "classes: only for task: remove and task: insert"),
    ({"conditions": [{**INSERT, "classes": ["car", "person"]}]}, "exactly one class"),
    ({"conditions": [INSERT], "detector": None}, r"'with' inserts an object, .* set detector:"),
    ({"conditions": [{**REMOVE, "strength": 0.5}]}, "strength 0.5 with task: remove"),
    (
        {"conditions": [REMOVE], "objects": {"strength": 0.2}},
        "objects.strength, objects.detail, objects.restore, detail, match, lights and sensor do nothing",
    ),
    (
        {"conditions": [REMOVE], "detail": 0.2},
        "objects.strength, objects.detail, objects.restore, detail, match, lights and sensor do nothing",
    ),
    ({"conditions": [INSERT], "resolution": {"mode": "tile"}}, "with tiles, an object would be inserted into each"),
    ({"conditions": [{**REMOVE, "task": "replace"}]}, "background.*remove.*insert"),
]


@pytest.mark.parametrize(("fields", "words"), WRONG, ids=[words[:24] for _, words in WRONG])
def test_what_cannot_be_is_said_before_any_work(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    street(tmp_path)
    with pytest.raises(UsageError, match=words) as caught:
        plan_of(tmp_path, **{"conditions": [], **fields})
    assert caught.value.hint


def test_insert_refuses_pose_datasets(tmp_path: Path) -> None:
    street(tmp_path, "pose")
    with pytest.raises(UsageError, match="cannot label the keypoints"):
        plan_of(tmp_path, [INSERT])


def test_insert_refuses_datasets_without_any_object(tmp_path: Path) -> None:
    street(tmp_path)
    for path in (tmp_path / "data/labels/train").iterdir():
        put(path, "")
    with pytest.raises(UsageError, match="no objects to take sizes and positions from"):
        plan_of(tmp_path, [INSERT])


def test_a_task_paints_from_noise_unless_told_otherwise(tmp_path: Path) -> None:
    street(tmp_path)
    items = plan_of(tmp_path, [BACKGROUND, {**BACKGROUND, "name": "b", "strength": 0.5}]).items
    assert {item.job.settings.condition: item.job.settings.strength for item in items} == {"elsewhere": 1.0, "b": 0.5}


def test_classes_are_known_by_name() -> None:
    assert same_names(["car", "Traffic-Light", "snowplough"], ["traffic light", "person", "CAR"]) == {0: 2, 1: 0}


@pytest.mark.parametrize(
    ("condition", "rows", "fields", "why"),
    [
        (INSERT, "0 0.5 0.5 1 1\n", {}, "no selected picture has room for a person"),
        (REMOVE, "0 0.5 0.5 1 1\n", {}, "no selected picture has a labelled person"),
        ({**REMOVE, "classes": None}, "", {}, "no selected picture has a labelled object"),
        (BACKGROUND, "", {}, "no selected picture has a labelled object"),
        (BACKGROUND, "0 0.5 0.5 1 1\n", {"select": {"share": 1e-9}}, "no picture that can be edited is selected"),
        ({**BACKGROUND, "share": 1e-9}, "0 0.5 0.5 1 1\n", {}, "its share selects no picture"),
    ],
)
def test_plan_says_why_a_task_has_no_picture(
    tmp_path: Path, condition: dict[str, Any], rows: str, fields: dict[str, Any], why: str
) -> None:
    data = street(tmp_path)
    for path in (tmp_path / "data/labels/train").iterdir():
        put(path, rows)
    put(tmp_path / "detector.pt", "weights")
    recipe = write_recipe(
        tmp_path / "r.yaml",
        data,
        tmp_path / "out",
        editor="inpaint",
        detector="detector.pt",
        conditions=[condition],
        **fields,
    )
    facts = plan_facts(load_recipe(recipe))
    assert facts["idle"][condition["name"]].startswith(why)
    assert f"none: {why}" in plan_text(facts)
