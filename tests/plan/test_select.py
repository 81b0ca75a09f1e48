"""Which sources are edited, by which conditions, and which become val."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.dataset.dataset import Dataset
from diffgen.errors import UsageError
from diffgen.plan.plan import plan_jobs
from diffgen.recipe.load import load_recipe
from diffgen.recipe.schema import Recipe
from diffgen.run.session import Session
from diffgen.types import unit
from tests.fakes import make, make_dataset, model, put, source, write_recipe
from tests.plan.planning import MANY, pairs, plan


def test_only_train_is_edited_unless_asked() -> None:
    sources = [source(0), source(1, split="val"), source(2, split="test")]
    assert {i.source.split for i in plan(sources).items} == {"train"}
    assert {i.source.split for i in plan(sources, select={"splits": ["train", "val"]}).items} == {"train", "val"}
    assert len(plan(sources).sources) == 3


def test_a_source_with_a_problem_is_carried_over_and_not_edited() -> None:
    found = plan([source(0), source(1, problem="range: row 1")])
    assert {i.source.name for i in found.items} == {"0000"}
    assert len(found.sources) == 3


def test_select_classes() -> None:
    sources = [source(0), source(1, counts=((1, 2),)), source(2, counts=())]
    assert {i.source.name for i in plan(sources, select={"classes": ["person"]}).items} == {"0001"}


def test_share_takes_about_that_share_and_stays_as_the_data_grows() -> None:
    some = {i.source.name for i in plan(MANY, select={"share": 0.3}).items}
    assert 90 <= len(some) <= 150
    half = {i.source.name for i in plan(MANY[:200], select={"share": 0.3}).items}
    assert half == {name for name in some if int(name) < 200}
    assert some < {i.source.name for i in plan(MANY, select={"share": 0.6}).items}, "a larger share only adds"


def test_max_takes_exactly_that_many_and_a_larger_one_only_adds() -> None:
    ten, twenty = ({i.source.name for i in plan(MANY, select={"max": n}).items} for n in (10, 20))
    assert (len(ten), len(twenty)) == (10, 20)
    assert ten < twenty
    assert len({i.source.name for i in plan(MANY[:5], select={"max": 10}).items}) == 5


def test_backgrounds_are_so_many_for_each_picture_with_objects() -> None:
    empty = [source(i, counts=()) for i in range(400, 500)]
    mixed = [picture for pair in zip(MANY[:100], empty, strict=True) for picture in pair]

    def edited(**select: Any) -> set[str]:
        return {i.source.name for i in plan(mixed, select=select).items}

    def backgrounds(**select: Any) -> set[str]:
        return {name for name in edited(**select) if int(name) >= 400}

    assert len(edited()) == 200
    assert backgrounds(backgrounds=0) == set()
    assert len(backgrounds(backgrounds=0.1)) == 10
    assert backgrounds(backgrounds=0.1) < backgrounds(backgrounds=0.3), "more only adds"
    assert len(edited(backgrounds=0.1)) == 110
    assert len(edited(backgrounds=9)) == 200
    assert (len(edited(backgrounds=0.5, max=20)), len(backgrounds(backgrounds=0.5, max=20))) == (30, 10)
    assert len(backgrounds(backgrounds=0.1, classes=["car"])) == 10
    names = [i.source.name for i in plan(mixed, select={"backgrounds": 0.1}).items if i.job.settings.condition == "fog"]
    assert names == [s.name for s in mixed if s.name in names], "in the dataset's order"


def test_limit_takes_the_first_and_leaves_other_splits_whole() -> None:
    sources = [*MANY[:10], source(50, split="val"), source(51, split="val")]
    found = plan(sources, limit=3)
    assert {i.source.name for i in found.items} == {"0000", "0001", "0002"}
    assert [s.key for s in found.sources] == ["train/0000", "train/0001", "train/0002", "val/0050", "val/0051"]


def test_a_condition_with_a_share() -> None:
    found = pairs(plan(MANY, conditions=["night", {"fog": {"share": 0.25}}]))
    assert sum(name == "night" for _, name in found) == 400
    assert 70 <= sum(name == "fog" for _, name in found) <= 130


def test_assign_one_gives_each_source_one_condition_by_share() -> None:
    found = pairs(plan(MANY, assign="one", conditions=[{"night": {"share": 1.0}}, {"fog": {"share": 0.25}}]))
    assert len(found) == 400
    assert 50 <= sum(name == "fog" for _, name in found) <= 110  # a fifth


def test_with_assign_one_a_condition_added_only_takes_from_the_others() -> None:
    before = pairs(plan(MANY, assign="one"))
    after = pairs(plan(MANY, assign="one", conditions=["fog", "snow", "night"]))
    moved = after - before
    assert {name for _, name in moved} == {"snow"}
    assert 90 <= len(moved) <= 180


def test_without_val_the_recipe_must_say_what_to_do() -> None:
    with pytest.raises(UsageError, match="no 'val' split") as caught:
        plan_jobs(
            Recipe(dataset="d", output="o", conditions=["night"]),  # type: ignore[list-item]
            Dataset(Path("/d.yaml"), ("car",), {}, (source(0),)),
            model(),
        )
    assert "val_from_train: 0.1" in str(caught.value.hint)


def test_val_from_train_takes_whole_sources_and_never_edits_them() -> None:
    found = plan(MANY, val_from_train=0.25)
    val = {s.digest for s in found.sources if s.split == "val"}
    assert 70 <= len(val) <= 130
    assert not val & {i.source.digest for i in found.items}
    assert len(found.items) == 2 * (400 - len(val))
    assert [s.split for s in found.sources] == ["train"] * (400 - len(val)) + ["val"] * len(val)


def test_val_from_train_leaves_an_existing_val_alone() -> None:
    sources = [*MANY[:50], source(77, split="val")]
    assert [s.key for s in plan(sources, val_from_train=0.5).sources if s.split == "val"] == ["val/0077"]


def test_copies_of_one_picture_go_to_the_same_side() -> None:
    twins = [source(i, name=f"{i}-{n}") for i in range(60) for n in (0, 1)]
    found = plan(twins, val_from_train=0.5)
    sides: dict[str, set[str]] = {}
    for entry in found.sources:
        sides.setdefault(entry.digest, set()).add(entry.split)
    assert all(len(splits) == 1 for splits in sides.values())


def test_val_from_train_has_a_picture_that_can_be_read_on_either_side() -> None:
    for n in range(20):
        broken = [source(i, problem="unreadable: cut off") for i in range(n, n + 6)]
        found = plan([*broken, source(50), source(51)], val_from_train=0.01)
        assert sorted(s.split for s in found.sources if s.problem is None) == ["train", "val"]
    with pytest.raises(UsageError, match="two usable pictures"):
        plan([*broken, source(50)], val_from_train=0.1)


def test_a_dataset_without_train_is_told_so_and_not_blamed_on_the_selection() -> None:
    with pytest.raises(UsageError, match="the dataset has no 'train' split"):
        plan([source(0, split="val"), source(1, split="test")])


def test_unit_is_even_and_depends_on_every_part() -> None:
    values = [unit("x", i) for i in range(2000)]
    assert all(0 <= v < 1 for v in values)
    assert abs(sum(values) / 2000 - 0.5) < 0.03
    assert unit("a", "b") != unit("ab")
    assert unit("a", 1) == unit("a", "1")


def test_a_label_edited_moves_no_picture_to_another_side_or_choice(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "d", counts=(20, 0))
    recipe = write_recipe(
        tmp_path / "r.yaml", data, tmp_path / "out", val_from_train=0.3, select={"max": 5}, assign="one"
    )

    def sides() -> tuple[Any, Any]:
        plan = Session.open(load_recipe(recipe)).plan
        return (
            {Path(source.path).name: source.split for source in plan.sources},
            {Path(item.source.path).name: item.job.settings.condition for item in plan.items},
        )

    before = sides()
    for i in range(20):
        put(tmp_path / f"d/labels/train/{i:02}.txt", f"0 0.5 0.5 0.{i + 1:02} 0.2\n")
    assert sides() == before


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
