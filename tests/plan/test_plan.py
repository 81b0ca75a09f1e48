"""Which jobs a recipe means. Nothing is read from a disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffgen.dataset.dataset import Dataset
from diffgen.errors import UsageError
from diffgen.plan.batches import cut_batches
from diffgen.plan.plan import plan_jobs
from diffgen.recipe.schema import Recipe
from tests.fakes import model, source
from tests.plan.planning import MANY, ids, plan


def test_equal_digests_share_a_job_and_each_has_an_item() -> None:
    twin = source(1, name="twin")
    found = plan([MANY[1], twin])
    assert len(found.items) == 4
    assert len(set(ids(found))) == 2
    assert sum(len(batch.items) for batch in cut_batches(found.items, 10)) == 2


def test_variants_come_together() -> None:
    found = plan(MANY[:2], conditions=["night"], variants=3)
    assert [(i.source.name, i.job.variant) for i in found.items] == [
        ("0000", 0), ("0000", 1), ("0000", 2), ("0001", 0), ("0001", 1), ("0001", 2),
    ]  # fmt: skip


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
