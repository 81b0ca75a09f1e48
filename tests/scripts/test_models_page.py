"""docs/models.md: each recipe plans where there is no network, and each row of the first table has one that spares small boxes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.commands.plan_summary import plan_facts
from diffgen.models.aliases import aliases
from diffgen.recipe.load import load_recipe
from scripts.docs.costs import ARCHITECTURES, passes, seconds
from scripts.docs.models_page import CHOICES, models_page
from tests.hub.docs_recipes import PAGE, recipes, write_world


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_plans_without_a_network(name: str, tmp_path: Path) -> None:
    facts = plan_facts(load_recipe(write_world(name, tmp_path)))
    assert facts["to_make"] > 0


@pytest.mark.parametrize("row", CHOICES, ids=lambda row: row[-1])
def test_a_row_has_a_recipe_that_spares_small_boxes(row: Any) -> None:
    _, alias, _, _, anchor = row
    headings = {
        re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-"): h for h in re.findall(r"^### (.*)$", PAGE, re.M)
    }
    assert anchor in headings
    section = PAGE.partition(f"### {headings[anchor]}\n")[2].partition("\n##")[0]
    recipe = yaml.safe_load(section.partition("```yaml\n")[2].partition("```")[0])
    assert recipe["model"] == alias
    assert recipe["objects"]["strength"] < 1
    assert recipe["objects"]["detail"] > recipe["detail"] > 0
    # pocket edits pictures at their own size by itself
    assert alias == "pocket" or recipe["resolution"]["long_side"] >= 768


def test_every_alias_has_a_cost() -> None:
    assert set(ARCHITECTURES) == {name for name, entry in aliases().items() if "hub" in entry}
    assert [passes(aliases()[name]) for name in ("sd-turbo", "sd15", "instruct-pix2pix", "lcm-dreamshaper")] == [
        4,
        40,
        60,
        4,
    ]
    assert passes(aliases()["qwen-image-edit-plus"]) == 80
    # what is published for 50 steps of FLUX.1 dev on an H100 (see costs.py), within a quarter
    assert seconds("flux", 50, "H100 (80 GB)") == pytest.approx(12.3, rel=0.25)


@pytest.mark.parametrize("damage", [lambda page: page.replace(": noise -->", ": nois -->"), lambda page: page + page])
def test_a_table_without_one_place_of_its_own_is_an_error(damage: Any) -> None:
    with pytest.raises(ValueError, match="needs one place for the table"):
        models_page(damage(PAGE))
