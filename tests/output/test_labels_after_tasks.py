"""What is drawn and counted of an edit is what its own label file says, also where a task changes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes_tasks import INSERT, REMOVE, manifest, work
from tests.output.report_page import report


def test_the_report_knows_and_counts_what_was_inserted(tmp_path: Path) -> None:
    summary, _, _ = work(tmp_path, INSERT)
    page = report(tmp_path / "out")
    rows = [row["added_rows"] for row in manifest(tmp_path)]
    shown = [[float(number) for number in text.split()] for (text,) in page.data["added"].values()]
    assert shown == [pytest.approx([float(n) for n in text.split()], abs=6e-5) for (text,) in rows]
    assert page.data["dropped"] == {}
    # Train holds a car in each of four pictures and a person in two, val one car; the edits hold the source's and one more.
    by_class, labels = page.rows("person")
    assert by_class[0] == str(summary.planned), "every edit holds a person now"
    own = sum(row["source"] in ("train/01", "train/03") for row in manifest(tmp_path))
    assert page.rows("car")[1][-1] == f"5 → {5 + summary.accepted}"
    assert labels[-1] == f"2 → {2 + own + summary.accepted}"


def test_the_report_counts_no_object_that_was_removed(tmp_path: Path) -> None:
    work(tmp_path, REMOVE)
    page = report(tmp_path / "out")
    assert page.data["dropped"] == {"0": [1], "1": [1]}
    (labels,) = page.rows("person")
    assert labels[-1] == "2 → 2", "nothing of an edit, nor is there a row of edits with people"
    assert page.rows("car")[1][-1] == "5 → 7"
