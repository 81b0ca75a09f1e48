"""The study's split, which is made once, and its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from scripts.study.night import nights, summary, tables, write_sets
from tests.fakes import photo, put, save


def real_nights(folder: Path, count: int = 40) -> Path:
    for i in range(count):
        save(folder / f"images/val/{i:03}.jpg", photo(i, (32, 32)))
    return put(folder / "data.yaml", "train: images/val\nval: images/val\nnames: [car]\n")


def test_the_halves_share_nothing_and_stay_as_pictures_come(tmp_path: Path) -> None:
    data = real_nights(tmp_path)
    before = nights(data)
    assert 10 < len(before["tuning"]) < 30
    assert set(before["tuning"]).isdisjoint(before["testing"])
    assert len(before["tuning"]) + len(before["testing"]) == 40
    save(tmp_path / "images/val/new.jpg", photo(99, (32, 32)))
    after = nights(data)
    assert all(set(before[half]) <= set(after[half]) for half in before)


def test_the_testing_half_is_not_looked_at_until_it_is_opened(tmp_path: Path) -> None:
    data = real_nights(tmp_path / "night")
    halves = {name: {str(path) for path in paths} for name, paths in nights(data).items()}

    def lists(opened: bool) -> tuple[set[str], set[str]]:
        oracle, test = write_sets(data, tmp_path / "out", opened)
        assert "val" not in yaml.safe_load(oracle.read_text())
        assert "train" not in yaml.safe_load(test.read_text())
        return tuple(
            set((tmp_path / "out" / folder / f"{name}.txt").read_text().split()) for name in ("oracle", "test")
        )  # type: ignore[return-value]

    folder = "tuning"
    trained, tested = lists(False)
    assert trained | tested == halves["tuning"]
    assert trained.isdisjoint(tested)
    folder = "opened"
    assert lists(True) == (halves["tuning"], halves["testing"])


def test_tables_of_an_unfinished_study_say_so() -> None:
    assert tables({"tests": {}}, None, 0.4) == "No seed is done in all arms yet."
    row: dict[str, Any] = {
        "seeds": 2, "ap50": 0.25, "ap50_sd": None, "ap": 0.125, "sizes": {"small": None, "medium": 0.5, "large": 0.75},
    }  # fmt: skip
    contrast = {"first": "checked", "second": "real", "difference": 0.01, "interval": [-0.02, 0.03], "p_corrected": 0.5}
    test = {"pictures": 60, "objects": 500, "arms": {"real": row}, "contrasts": [{**contrast, "verdict": "not shown"}]}
    null = {"difference": 0.0, "interval": (-0.01, 0.01), "p": 1.0, "verdict": "not shown"}
    text = tables({"tests": {"night": test}, "seeds_done": 2, "seeds": 8, "steps": 129}, null, 0.45)
    assert "| real | 2 | 0.250 | – | 0.125 | – | 0.500 | 0.750 |" in text
    assert "| checked − real | +0.010 | -0.020 to +0.030 | 0.500 | not shown |" in text
    assert "| real, seeds 8 to 15 − seeds 0 to 7 | +0.000 | -0.010 to +0.010 | 1.000 | not shown |" in text
    assert "2 of 8 seeds" in text
    assert "The given weights have 0.450 at 640 px." in text


def test_the_summary_has_the_arms_that_there_are() -> None:
    names = ("real", "preset", "checked", "oracle")
    contrast = {"second": "real", "difference": 0.01, "interval": [-0.02, 0.03], "verdict": "not shown"}
    test: dict[str, Any] = {"pictures": 60, "objects": 500, "arms": {name: {"ap50": 0.25} for name in names}}
    test["contrasts"] = [{**contrast, "first": "checked"}, {**contrast, "first": "checked", "second": "preset"}]
    facts = {"tests": {"night": test}, "seeds_done": 8, "seeds": 8}
    text = summary(facts)
    assert "| day, twice | 0.250 |  |  |" in text
    assert (
        "| day, and nights by diffgen, tuned for these nights | 0.250 | +0.010 (-0.020 to +0.030) | not shown |" in text
    )
    assert "rules" not in text
    del test["arms"]["preset"]
    assert "| day, and nights by diffgen | 0.250 |" in summary(facts)
