"""What a run says of itself on stderr."""

from __future__ import annotations

import io
import json
import sys

import pytest

from diffgen.run.progress import Bar, Lines, Progress, choose, rate


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_line_each_half_minute_and_one_at_the_end() -> None:
    out, clock = io.StringIO(), Clock()
    with Lines(out, clock) as lines:
        for second, made in ((5, 5), (20, 20), (31, 30), (40, 40), (62, 60), (63, 100)):
            clock.now = 100.0 + second
            lines.update(made, 100, made // 2, "night")
    assert out.getvalue().splitlines() == [
        "30/100 images, 50% accepted, 0.97 images/s, 72 s left, night",
        "60/100 images, 50% accepted, 0.97 images/s, 41 s left, night",
        "100/100 images, 50% accepted, 1.59 images/s, night",
    ]


@pytest.mark.parametrize(
    ("seconds_each", "left"), [(0.5, "45 s left"), (10, "15 min left"), (120, "3.0 h left")], ids=["s", "min", "h"]
)
def test_the_time_left_has_a_fitting_unit(seconds_each: float, left: str) -> None:
    out, clock = io.StringIO(), Clock()
    lines = Lines(out, clock)
    clock.now += 100 * seconds_each
    lines.update(100, 190, 100, "night")
    assert out.getvalue().strip().endswith(f"{left}, night")


def test_nothing_made_is_no_division_by_nought() -> None:
    out, clock = io.StringIO(), Clock()
    lines = Lines(out, clock)
    clock.now += 60
    lines.update(0, 10, 0, "night")
    lines.update(0, 0, 0, "night")
    assert out.getvalue().startswith("0/10 images, 0.00 images/s, night\n")


def test_loading_the_model_is_no_part_of_the_speed() -> None:
    out, clock = io.StringIO(), Clock()
    lines = Lines(out, clock)
    clock.now += 20  # the model loads
    lines.update(0, 10, 0, "night")
    clock.now += 5
    lines.update(10, 10, 10, "night")
    assert out.getvalue() == "10/10 images, 100% accepted, 2.00 images/s, night\n"


def test_a_slow_model_is_told_in_images_a_minute() -> None:
    assert [rate(value) for value in (2.0, 0.1, 0.05, 0.0)] == [
        "2.00 images/s", "0.10 images/s", "3.0 images/min", "0.00 images/s",
    ]  # fmt: skip


def test_lines_for_machines() -> None:
    out, clock = io.StringIO(), Clock()
    lines = Lines(out, clock, as_json=True)
    clock.now += 40
    lines.update(20, 100, 15, "night")
    assert json.loads(out.getvalue()) == {
        "progress": {
            "made": 20, "total": 100, "accepted": 15, "condition": "night", "images_per_second": 0.5, "seconds_left": 160,
        }
    }  # fmt: skip


def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(choose(True)) is Progress
    assert type(choose(False)) is Lines
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert type(choose(False)) is Bar


def test_the_bar_runs_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar() as bar:
        bar.update(1, 2, 1, "a-condition-with-a-long-name")
        bar.update(2, 2, 1, "night")
    assert capsys.readouterr().out == "", "stdout is data"
