"""A range of strengths: five even levels, each image's by hash, whatever else is planned."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from diffgen.plan.plan import Plan
from diffgen.recipe.sections import STRENGTH_LEVELS, Condition
from tests.plan.planning import MANY, ids, plan

LEVELS = (0.3, 0.45, 0.6, 0.75, 0.9)


def ranged(sources: list, **fields: object) -> Plan:
    given = {"conditions": [{"night": {"strength": [0.3, 0.9]}}], **fields}
    return plan(sources, **given)


def strengths(found: Plan) -> list[float]:
    return [item.job.settings.strength for item in found.items]


def test_the_levels_are_even_and_each_has_its_share() -> None:
    counts = Counter(strengths(ranged(MANY)))
    assert set(counts) == set(LEVELS)
    assert all(55 <= count <= 105 for count in counts.values()), counts  # 80 each, three standard deviations of 8


def test_five_variants_of_a_picture_have_all_five_levels() -> None:
    found = ranged(MANY[:20], variants=STRENGTH_LEVELS)
    for i in range(20):
        own = strengths(found)[i * STRENGTH_LEVELS : (i + 1) * STRENGTH_LEVELS]
        assert sorted(own) == sorted(LEVELS)


def test_a_level_depends_on_nothing_but_seed_source_condition_and_variant() -> None:
    alone = dict(zip([i.source.name for i in ranged(MANY[:9]).items], ids(ranged(MANY[:9])), strict=True))
    among = ranged([*reversed(MANY)], variants=2, conditions=["fog", {"night": {"strength": [0.3, 0.9]}}])
    found = {i.source.name: i.job.id for i in among.items if i.job.settings.condition == "night" and not i.job.variant}
    assert alone.items() <= found.items()
    assert strengths(ranged(MANY, seed=1)) != strengths(ranged(MANY))


def test_a_level_makes_the_same_image_as_that_strength_alone() -> None:
    objects = {"strength": 0.5, "detail": 0.8}
    for level in LEVELS:
        alone = plan(MANY[:40], conditions=[{"night": {"strength": level}}], objects=objects, editor="img2img")
        among = ranged(MANY[:40], objects=objects, editor="img2img")
        same = [i.job.id for i in among.items if i.job.settings.strength == level]
        assert same
        assert set(same) <= set(ids(alone))


def test_presets_for_instructions_are_carried_out_wholly_unless_a_range_is_asked_for() -> None:
    whole = plan(MANY[:9], editor="instruct", conditions=["night"])
    assert set(strengths(whole)) == {1.0}
    assert set(strengths(ranged(MANY, editor="instruct"))) == set(LEVELS)


def test_plan_counts_the_images_of_each_strength() -> None:
    found = ranged(MANY)
    counts = found.strengths()["night"]
    assert counts == {level: strengths(found).count(level) for level in LEVELS}
    assert all(found.planned_strength(item) == item.job.settings.strength for item in found.items)
    assert plan(MANY, conditions=["night"]).strengths() == {}


@pytest.mark.parametrize("value", [[0.9, 0.3], [0.5, 0.5], [0.3], [0.1, 0.2, 0.3], [0.3, 1.2], "[0.3", {"from": 0.3}])
def test_what_is_no_range_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        Condition.model_validate({"name": "x", "prompt": "x", "strength": value})


def test_a_task_needs_a_range_above_its_least_strength() -> None:
    task = {"name": "x", "prompt": "x", "task": "remove"}
    assert Condition.model_validate({**task, "strength": [0.8, 1.0]}).strengths[0] == 0.8
    with pytest.raises(ValidationError, match=r"below 0\.8"):
        Condition.model_validate({**task, "strength": [0.5, 1.0]})
