"""Plans of sources that lie nowhere, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffgen.dataset.dataset import Dataset
from diffgen.plan.plan import Plan, plan_jobs
from diffgen.recipe.schema import Recipe
from diffgen.types import EDIT_VERSION, Source
from tests.fakes import model, source


def plan(
    sources: Sequence[Source],
    *,
    limit: int | None = None,
    editor: str = "instruct",
    edit_version: int = EDIT_VERSION,
    **fields: Any,
) -> Plan:
    given = {"dataset": "d.yaml", "output": "out", "conditions": ["night", "fog"], **fields}
    if not any(s.split == "val" for s in sources) and "val_from_train" not in fields:
        sources = [*sources, source(9999, split="val")]
    dataset = Dataset(Path("/d.yaml"), ("car", "person"), {}, tuple(sources))
    return plan_jobs(Recipe.model_validate(given), dataset, model(editor=editor), limit, edit_version)


def pairs(found: Plan) -> set[tuple[str, str]]:
    return {(item.source.name, item.job.settings.condition) for item in found.items}


def ids(found: Plan) -> list[str]:
    return [item.job.id for item in found.items]


MANY = [source(i) for i in range(400)]
