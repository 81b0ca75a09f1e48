"""How answers to a blind look are counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.pocket.blind_score import main, score

KEY = {"1": "snow", "2": "dusk", "10": "snow"}


def test_the_table_says_what_was_taken_for_what() -> None:
    answers = {
        "1": {"condition": "snow", "look": "broken", "why": "a blot"},
        "2": {"condition": "night", "look": "fine"},
        "10": {"condition": "snow", "look": "slight"},
    }
    said = score(KEY, answers)
    assert "| made | snow | dusk | night |" in said
    assert "| snow | 2 |  |  |" in said
    assert "| dusk |  |  | 1 |" in said
    assert "2 of 3 right; 1 fine, 1 slight, 1 broken" in said
    assert "- 1 (snow): a blot" in said


@pytest.mark.parametrize(
    "wrong", [{"1": {"condition": "snow", "look": "fine"}}, {key: {"condition": "snow", "look": "odd"} for key in KEY}]
)
def test_answers_that_do_not_fit_are_named(wrong: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "key.json").write_text(json.dumps(KEY))
    (tmp_path / "a.json").write_text(json.dumps(wrong))
    assert main([str(tmp_path / "key.json"), str(tmp_path / "a.json")]) == 1
    assert "a.json: " in capsys.readouterr().err
