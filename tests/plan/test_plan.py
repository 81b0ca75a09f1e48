"""Which jobs a recipe means: ids, seeds, selection, assignment, batches. Nothing is read from a disk but golden ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from diffgen.errors import UsageError
from diffgen.plan import Plan, cut_batches, describe, pending_batches, plan_jobs, unit, working_size
from diffgen.recipe import Recipe
from diffgen.sources import Dataset
from diffgen.types import Job, Source
from tests.fakes import job, model, settings, source

GOLDEN = Path(__file__).parents[1] / "golden" / "job_ids.json"


def plan(sources: Sequence[Source], *, limit: int | None = None, editor: str = "instruct", **fields: Any) -> Plan:
    given = {"dataset": "d.yaml", "output": "out", "conditions": ["night", "fog"], **fields}
    if not any(s.split == "val" for s in sources) and "val_from_train" not in fields:
        sources = [*sources, source(9999, split="val")]
    dataset = Dataset(Path("/d.yaml"), ("car", "person"), {}, tuple(sources))
    return plan_jobs(Recipe.model_validate(given), dataset, model(editor=editor), limit)


def pairs(found: Plan) -> set[tuple[str, str]]:
    return {(item.source.name, item.job.settings.condition) for item in found.items}


def ids(found: Plan) -> list[str]:
    return [item.job.id for item in found.items]


MANY = [source(i) for i in range(400)]


# --- ids


def golden_jobs() -> dict[str, Job]:
    """Five jobs whose ids are in use wherever a run folder is kept: they may only change with a headline in the changelog."""
    turbo = settings(editor="img2img", model="stabilityai/sd-turbo@b261bac6fd2cf515557d5d0707481eafa0485ec2",
                     condition="snow", strength=0.65, steps=2, guidance=0.0, long_side=512, image_guidance=None)  # fmt: skip
    pocket = settings(model="sha256:" + "5a" * 32, strength=0.1, steps=1, guidance=1.0, image_guidance=1.0,
                      severity="{prompt}, severity {percent}", smallest=256, long_side=1024, multiple=32)  # fmt: skip
    return {
        "plain": job(),
        "png, no negative": job(settings=settings(image_format="png", quality=None), negative_prompt=None),
        "img2img": job(settings=turbo, prompt="a photo of cars and a person on a snowy day", seed=2**51 + 1),
        "pocket": job(settings=pocket, prompt="make it night", negative_prompt=None, seed=0),
        "another script": job(prompt="Straße bei Nacht, 夜の街", settings=settings(scheduler="ddim", strength=1 / 3)),
    }


@pytest.mark.parametrize("name", sorted(golden_jobs()))
def test_job_ids_are_those_of_the_release_before(name: str) -> None:
    assert golden_jobs()[name].id == json.loads(GOLDEN.read_text("utf-8"))[name]


def test_variant_attempt_and_the_condition_name_are_not_in_the_id() -> None:
    assert job(variant=3, attempt=2, settings=settings(condition="my-night")).id == job().id


def test_a_source_added_changes_no_other_job() -> None:
    before, after = plan(MANY[:20]), plan(MANY[:21])
    assert ids(after)[: len(before.items)] == ids(before)
    first = plan([MANY[30], *MANY[:20]])
    assert ids(first)[2:] == ids(before)


def test_a_condition_added_or_moved_changes_no_other_job() -> None:
    before = set(ids(plan(MANY[:20])))
    assert before < set(ids(plan(MANY[:20], conditions=["snow", "fog", "rain", "night"])))


def test_a_variant_added_changes_no_other_job() -> None:
    before, after = set(ids(plan(MANY[:20]))), set(ids(plan(MANY[:20], variants=3)))
    assert before < after
    assert len(after) == 3 * len(before)


SAME = [
    ("device", {"device": "cuda"}), ("dtype", {"dtype": "float16"}), ("batch size", {"batch_size": 7}),
    ("checks", {"checks": {"structure": 0.9}}), ("require", {"require": {"accepted": 1}}),
    ("include_sources", {"include_sources": "none"}), ("output", {"output": "elsewhere"}),
    ("checks of a condition", {"conditions": [{"night": {"checks": {"structure": 0.1}}}, "fog"]}),
    ("quality spelled out", {"image": {"quality": 95}}), ("dataset path", {"dataset": "e.yaml"}),
]  # fmt: skip


@pytest.mark.parametrize("fields", [s[1] for s in SAME], ids=[s[0] for s in SAME])
def test_what_does_not_reach_the_pixels_changes_no_id(fields: dict[str, Any]) -> None:
    assert ids(plan(MANY[:5], **fields)) == ids(plan(MANY[:5]))


DIFFERENT = [
    ("seed", {"seed": 1}), ("format", {"image": {"format": "png"}}), ("quality", {"image": {"quality": 90}}),
    ("long side", {"resolution": {"long_side": 128}}),
    ("strength", {"conditions": [{"night": {"strength": 0.1}}, {"fog": {"strength": 0.1}}]}),
    ("prompt", {"conditions": [{"night": {"instruction": "x"}}, {"fog": {"instruction": "x"}}]}),
    ("negative", {"conditions": [{"night": {"negative_prompt": "x"}}, {"fog": {"negative_prompt": "x"}}]}),
    ("steps", {"conditions": [{"night": {"steps": 3}}, {"fog": {"steps": 3}}]}),
    ("guidance", {"conditions": [{"night": {"guidance": 3}}, {"fog": {"guidance": 3}}]}),
    ("image guidance", {"conditions": [{"night": {"image_guidance": 3}}, {"fog": {"image_guidance": 3}}]}),
    ("scheduler", {"conditions": [{"night": {"scheduler": "ddim"}}, {"fog": {"scheduler": "ddim"}}]}),
]  # fmt: skip


@pytest.mark.parametrize("fields", [d[1] for d in DIFFERENT], ids=[d[0] for d in DIFFERENT])
def test_what_reaches_the_pixels_changes_every_id(fields: dict[str, Any]) -> None:
    assert not set(ids(plan(MANY[:5], **fields))) & set(ids(plan(MANY[:5])))


def test_png_has_no_quality_in_its_id() -> None:
    low, high = ({"format": "png", "quality": q} for q in (10, 90))
    assert ids(plan(MANY[:3], image=low)) == ids(plan(MANY[:3], image=high))


def test_a_whole_number_and_its_float_are_the_same_job() -> None:
    one, same = ({"conditions": [{"night": {"strength": s, "guidance": g}}]} for s, g in ((1, 7), (1.0, 7.0)))
    assert ids(plan(MANY[:3], **one)) == ids(plan(MANY[:3], **same))


def test_seeds_differ_by_source_condition_and_variant_and_fit_any_generator() -> None:
    seeds = [item.job.seed for item in plan(MANY[:50], variants=2).items]
    assert len(set(seeds)) == len(seeds) == 200
    assert all(0 <= seed < 2**52 for seed in seeds)


def test_equal_digests_share_a_job_and_each_has_an_item() -> None:
    twin = source(1, name="twin")
    found = plan([MANY[1], twin])
    assert len(found.items) == 4
    assert len(set(ids(found))) == 2
    assert sum(len(batch.items) for batch in cut_batches(found.items, 10)) == 2


# --- prompts


def test_instruct_models_get_the_instruction_and_others_the_prompt() -> None:
    own = [{"name": "a", "prompt": "a photo of {objects}", "instruction": "make it a"}, {"name": "b", "prompt": "just {objects}"}]  # fmt: skip
    assert [i.job.prompt for i in plan(MANY[:1], conditions=own).items] == ["make it a", "just a car"]
    assert [i.job.prompt for i in plan(MANY[:1], conditions=own, editor="img2img").items] == [
        "a photo of a car",
        "just a car",
    ]


NAMES = ("car", "person", "bus", "lady", "apple", "day", "sheep")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((), "a scene"),
        (((0, 1),), "a car"),
        (((4, 1),), "an apple"),
        (((0, 3), (1, 2)), "cars and people"),
        (((0, 1), (1, 5), (2, 2)), "people, buses and a car"),
        (((3, 2), (5, 2), (6, 2)), "ladies, days and sheep"),
        (((0, 1), (1, 1), (2, 1), (3, 1), (4, 1)), "a car, a person, a bus and a lady"),  # at most four
    ],
)
def test_objects_in_words(counts: tuple[tuple[int, int], ...], words: str) -> None:
    assert describe(source(0, counts=counts), NAMES) == words


# --- which sources, which conditions


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


def test_variants_come_together() -> None:
    found = plan(MANY[:2], conditions=["night"], variants=3)
    assert [(i.source.name, i.job.variant) for i in found.items] == [
        ("0000", 0), ("0000", 1), ("0000", 2), ("0001", 0), ("0001", 1), ("0001", 2),
    ]  # fmt: skip


# --- val


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
    with pytest.raises(UsageError, match="two sound pictures"):
        plan([*broken, source(50)], val_from_train=0.1)


def test_a_dataset_without_train_is_told_so_and_not_blamed_on_the_selection() -> None:
    with pytest.raises(UsageError, match="the dataset has no 'train' split"):
        plan([source(0, split="val"), source(1, split="test")])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"select": {"classes": ["tram"]}}, "the dataset has no class 'tram'"),
        ({"select": {"splits": ["test"]}}, "the dataset has no split 'test'"),
    ],
)
def test_what_the_dataset_does_not_have_is_an_error(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        plan(MANY[:3], **fields)
    assert caught.value.hint


# --- batches


def test_a_batch_shares_settings_and_size_and_keeps_plan_order() -> None:
    sources = [source(i, width=64 if i % 3 else 48, height=48 if i % 3 else 64) for i in range(20)]
    found = plan(sources)
    batches = cut_batches(found.items, 4)
    assert sorted(i.job.id for b in batches for i in b.items) == sorted(ids(found))
    order = {job_id: n for n, job_id in enumerate(ids(found))}
    for batch in batches:
        assert (
            len(
                {
                    (i.job.settings.digest, working_size((i.source.width, i.source.height), i.job.settings))
                    for i in batch.items
                }
            )
            == 1
        )
        assert len(batch.items) <= 4
        assert [order[i.job.id] for i in batch.items] == sorted(order[i.job.id] for i in batch.items)


def test_batches_are_cut_before_what_is_done_is_taken_away() -> None:
    found = plan(MANY[:12], conditions=["night"])
    batches = cut_batches(found.items, 4)
    left = pending_batches(batches, {batches[0].items[1].job.id, *(i.job.id for i in batches[1].items)})
    assert [len(b.items) for b in left] == [3, 4]
    assert left[1] == batches[2]


def test_a_batch_runs_again_whole_only_where_all_that_it_lacks_was_tried_before() -> None:
    (batch,) = cut_batches(plan(MANY[:3], conditions=["night"]).items, 4)
    one, two, three = (item.job.id for item in batch.items)
    assert pending_batches([batch], {one}, {one, two, three}) == [batch]
    assert [i.job.id for i in pending_batches([batch], {one}, {one, two})[0].items] == [two, three]
    assert pending_batches([batch], {one, two, three}, {one, two, three}) == []


def test_unit_is_even_and_depends_on_every_part() -> None:
    values = [unit("x", i) for i in range(2000)]
    assert all(0 <= v < 1 for v in values)
    assert abs(sum(values) / 2000 - 0.5) < 0.03
    assert unit("a", "b") != unit("ab")
    assert unit("a", 1) == unit("a", "1")


@pytest.mark.parametrize(
    ("change", "recipe"),
    [({"editor": "inpainting"}, {}), ({}, {"conditions": [{"night": {"scheduler": "eular"}}]})],
    ids=["editor", "scheduler"],
)
def test_an_editor_or_scheduler_that_is_none_is_an_error_before_any_work(
    change: dict[str, Any], recipe: dict[str, Any]
) -> None:
    fields = {"dataset": "d", "output": "o", "conditions": ["night"], **recipe}
    dataset = Dataset(Path("/d.yaml"), ("car",), {}, (source(0), source(1, split="val")))
    with pytest.raises(UsageError, match="is not known"):
        plan_jobs(Recipe.model_validate(fields), dataset, model(**change))
