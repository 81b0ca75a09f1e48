"""The measurement of `tune`: its halves share nothing, and its table and marks say what was found."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import scripts.study.own_night as own_night
from diffgen.commands.tune.distance import Yardstick
from diffgen.commands.tune.features import Rows, features
from diffgen.dataset.images import Pixels
from scripts.study.night import nights
from tests.fakes import photo, save
from tests.scripts.test_study import real_nights


def test_target_and_unseen_share_nothing_and_no_night_is_of_the_testing_half(tmp_path: Path) -> None:
    data = real_nights(tmp_path / "night")
    for i in range(11):
        save(tmp_path / f"fog/images/val/{i}.jpg", photo(i, (32, 32)))
    of_halves = nights(data)
    target, unseen = own_night.halves(tmp_path, "night")
    assert set(target).isdisjoint(unseen)
    assert set(target) | set(unseen) == set(of_halves["tuning"])
    target, unseen = own_night.halves(tmp_path, "fog")
    assert set(target).isdisjoint(unseen)
    assert (len(target), len(unseen)) == (6, 5)


def test_the_table_says_what_is_less_and_where_nothing_was_found() -> None:
    row = {"condition": "night", "target": 59, "unseen": 58, "budget": 200, "recall": 0.87, "inside": 0.5}
    before = {"truth": 0.91, "embedding": 0.4, "statistics": 0.8}
    after = {"truth": 0.88, "embedding": 0.1, "statistics": 0.6}
    none = {**row, "condition": "snow", "inside": None}
    text = own_night.table([{**row, "before": before, "after": after}, none])
    assert "| night | 59, 58 | 200 | 0.87; 0.91, 0.88 | 0.40, 0.10 | 75% | 25% |" in text
    assert "| snow | 59, 58 | 200 | 0.87; none kept enough | – | – | – |" in text


def test_marks_are_counted_by_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs/night.json").write_text(json.dumps({"night-00": "l", "night-01": "r", "night-02": "r"}))
    marks = tmp_path / "marks.txt"
    marks.write_text("night-00: l\nnight-01: l\nnight-02: =\n")
    monkeypatch.setattr(own_night, "MARKS", marks)
    told = own_night.counted(argparse.Namespace(out=tmp_path))
    assert told == "3 blind pairs: tuned 1, preset 1, ties 1"


def test_match_by_itself_comes_nearer_and_has_a_row_for_each_method(tmp_path: Path) -> None:
    paths: dict[str, list[Path]] = {}
    for name, share in (("day", 1.0), ("preset", 0.6), ("night", 0.2)):
        paths[name] = [tmp_path / f"{name}-{i}.png" for i in range(4)]
        for i, path in enumerate(paths[name]):
            save(path, (photo(i + len(name), (96, 64)) * share).astype(np.uint8))

    def embed(pictures: Sequence[Pixels]) -> Rows:
        return np.array([[np.cos(picture.mean() / 255), np.sin(picture.mean() / 255)] for picture in pictures])

    yardstick = Yardstick(features(paths["night"], embed))
    pairs = list(zip(paths["day"], paths["preset"], strict=True))
    found = own_night.matches(pairs, paths["night"], embed, yardstick)
    for name in ("day", "preset"):
        before = found[f"{name}, as it is"]
        for method in own_night.METHODS:
            assert found[f"{name}, {method}"] < before, "lighter than the target, and so nearer by each method"
    assert own_night.match_table(found).count("| `match: {method: ") == 3
