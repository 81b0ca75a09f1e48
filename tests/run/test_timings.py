"""What a run says about its speed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from diffgen.run.summary import summary_text
from diffgen.run.timings import Timings, profile_text, speed_line
from tests.fakes import FakeEditor, make


def test_a_run_says_how_fast_it_was_and_what_the_device_did(recipe: Path) -> None:
    summary, _ = make(recipe, FakeEditor(seconds=0.2))
    speed = summary.speed
    assert speed is not None
    assert speed["images"] == summary.made_now == 8
    assert 0.5 < speed["of_bare_model"] <= speed["device_busy"] <= 1
    assert speed["parts"]["edit"] >= 4 * 0.2, "four batches"
    assert {"read", "edit", "finish", "commit"} <= speed["parts"].keys()
    assert speed["images_per_second"] * speed["seconds"] == pytest.approx(8, rel=0.02)
    assert speed_line(speed) in summary_text(summary)
    assert "edit" in profile_text(speed).splitlines()[1]
    again, _ = make(recipe)
    assert again.speed is None, "nothing was made"
    assert "device busy" not in summary_text(again)


def test_parts_that_overlap_count_each_and_the_time_once() -> None:
    timings = Timings()
    assert timings.facts(0, 0) is None
    with timings.part("edit"), timings.part("read"):
        time.sleep(0.05)
    facts = timings.facts(2, 0)
    assert facts is not None
    assert facts["seconds"] < sum(facts["parts"].values())
    assert facts["seconds_per_accepted"] is None
    assert "an accepted one" not in speed_line(facts)
