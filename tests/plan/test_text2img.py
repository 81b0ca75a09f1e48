"""Which images are made without a dataset: their prompts, ids and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffgen.plan.text2img import text2img_dataset
from diffgen.recipe.load import load_recipe
from diffgen.recipe.sections import TextToImage
from diffgen.run.session import Session
from tests import fakes
from tests.fakes import put
from tests.fakes_text2img import write


def test_prompts_come_of_classes_templates_and_conditions(tmp_path: Path) -> None:
    templates = ["a photo of {class} on a street, {condition}", "{condition}: {class}"]
    prepared = Session.open(load_recipe(write(tmp_path, text2img={"templates": templates})))
    jobs = [item.job for item in prepared.plan.items]
    assert len(jobs) == 3 * 2 * 2
    prompts = [job.prompt for job in jobs]
    assert prompts[0] == "a photo of a car on a street, at night, dark sky, street lamps and lit headlights, low light"
    assert prompts[3] == "a photo of a person on a street, clear day"
    assert prompts[5] == "clear day: a car"
    assert jobs[0].negative_prompt
    assert "daylight" in jobs[0].negative_prompt
    assert len({job.id for job in jobs}) == len({job.seed for job in jobs}) == len(jobs)


def test_what_makes_another_picture_makes_another_id_and_nothing_else_does(tmp_path: Path) -> None:
    def ids(**fields: Any) -> list[str]:
        return [item.job.id for item in Session.open(load_recipe(write(tmp_path, **fields))).plan.items]

    first = ids()
    assert ids(checks={"confidence": 0.5, "review_below": None}, batch_size=1) == first
    assert ids(text2img={"images": 5})[: len(first)] == first  # more pictures leave the others as they are
    assert ids(conditions=[{"night": {"strength": 0.2}}, {"name": "plain", "prompt": "clear day"}]) == first
    one_more = {"classes": ["car", "person", "dog"]}  # in every picture dogs have to be looked for
    for other in ({"text2img": one_more}, {"text2img": {"width": 64}}, {"text2img": {"height": 64}}, {"seed": 1}):
        assert not set(ids(**other)) & set(first)
    recipe = write(tmp_path)
    put(tmp_path / "detector.pt", "another detector finds other things")
    assert not {item.job.id for item in Session.open(load_recipe(recipe)).plan.items} & set(first)


def test_a_limit_shows_all_classes(tmp_path: Path) -> None:
    plan = Session.open(load_recipe(write(tmp_path)), limit=2).plan
    assert [source.name for source, _ in plan.edits] == ["0-car-00000", "1-person-00000"]


def test_names_are_unique_and_stay_in_their_folder() -> None:
    wanted = TextToImage(classes=["a/b", "a b"], images=3)
    names = [source.name for source in text2img_dataset(wanted, fakes.model(), Path("r.yaml")).sources]
    assert len(set(names)) == 6
    assert all("/" not in name for name in names)
