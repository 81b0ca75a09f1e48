"""The words of a job."""

from __future__ import annotations

import pytest

from diffgen.plan.prompts import describe
from tests.fakes import source
from tests.plan.planning import MANY, plan


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
