"""What is drawn and counted of an edit is what its own label file says, also where a task changes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffgen import preview as previewing
from diffgen import sheet
from diffgen.labels import Shape
from diffgen.preview import Preview, preview
from diffgen.recipe import load_recipe
from diffgen.run import export
from diffgen.sweeps import Look
from diffgen.worker import Worker
from tests.fakes import make, put
from tests.output.test_report import report
from tests.run.test_tasks import INSERT, REMOVE, Painter, find_magenta, manifest, work

CAR, PERSON = 0, 1


def classes(shapes: tuple[Shape, ...]) -> list[int]:
    return [shape.class_id for shape in shapes]


def previewed(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, painter: Painter
) -> tuple[Preview, list[list[sheet.Tile]]]:
    """The preview, and the rows of tiles that it drew."""
    drawn: list[list[sheet.Tile]] = []

    def spy(rows: list[list[sheet.Tile]], names: Any) -> Image.Image:
        drawn.extend(rows)
        return sheet.contact_sheet(rows, names)

    monkeypatch.setattr(previewing, "contact_sheet", spy)
    worker = Worker(painter, 2, None, {"device": "fake"}, find_magenta, known={1: 7})
    return preview(load_recipe(recipe), Look(), make_worker=lambda: worker), drawn


@pytest.mark.parametrize("lazy", [False, True], ids=["accepted", "rejected"])
def test_a_preview_draws_no_box_where_an_object_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lazy: bool
) -> None:
    """Also of a rejected edit: it shows what the labels would be, were it kept."""
    _, _, recipe = work(tmp_path, REMOVE, Painter(lazy=lazy))
    _, rows = previewed(recipe, monkeypatch, Painter())
    assert len(rows) == 2
    for source, edit in rows:
        assert (classes(source.shapes), classes(edit.shapes)) == ([CAR, PERSON], [CAR])
        assert edit.good is not lazy


def test_a_preview_draws_what_was_inserted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, recipe = work(tmp_path, INSERT)
    _, rows = previewed(recipe, monkeypatch, Painter())
    assert rows
    for source, edit in rows:
        assert edit.shapes[:-1] == source.shapes
        assert edit.shapes[-1].class_id == PERSON


def test_a_preview_shows_what_a_person_decided(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, editor = make(recipe)
    first = editor.made[0]
    export(load_recipe(recipe), put(tmp_path / "mine.yaml", f"{first}: reject\n"))
    found, _ = previewed(recipe, monkeypatch, Painter())
    assert {f["verdict"] for f in (cell.facts() for cell in found.cells) if f["job"] == first} == {"review"}


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
