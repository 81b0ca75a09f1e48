"""Ids and seeds of jobs: what changes them and what does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffgen.types import Job
from tests.fakes import job, settings
from tests.plan.planning import MANY, ids, plan

GOLDEN = Path(__file__).parents[1] / "golden" / "job_ids.json"


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


@pytest.mark.parametrize("name", sorted(golden_jobs()))
def test_job_ids_of_an_older_edit_version_are_still_found(name: str) -> None:
    now = golden_jobs()[name]
    then = replace(now, settings=replace(now.settings, edit_version=2))
    assert then.id == json.loads(GOLDEN.with_name("job_ids_2.json").read_text("utf-8"))[name] != now.id


def test_the_settings_of_an_older_edit_version_are_planned_as_they_were() -> None:
    """Its presets had strengths of their own for instructions, and its sizes were long sides."""
    fields: dict[str, Any] = {"conditions": ["night"], "objects": {"strength": 0.8}}
    (then,) = plan(MANY[:1], edit_version=2, **fields).items
    (now,) = plan(MANY[:1], **fields).items
    assert (then.job.settings.strength, then.job.settings.object_strength) == (0.7, None), ".8 is above the scene's"
    assert (then.job.settings.long_side, then.job.settings.native) == (64, None)
    assert (now.job.settings.strength, now.job.settings.object_strength) == (1.0, 0.8)
    assert (now.job.settings.long_side, now.job.settings.native) == (None, 64)


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
    ("objects that are never restored", {"objects": {"restore": 0}}),
    ("sensor that adds nothing", {"conditions": [{"night": {"sensor": {"noise": 0}}}, "fog"]}),
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
    ("restored objects", {"objects": {"restore": 0.5}}),
    ("lights", {"conditions": [{"night": {"lights": {}}}, {"fog": {"lights": {"share": 0.5}}}]}),
    ("sensor", {"conditions": [{"night": {"sensor": {"noise": [0, 0.1]}}}, {"fog": {"sensor": {"blur": 0.01}}}]}),
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
