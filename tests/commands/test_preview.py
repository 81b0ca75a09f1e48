"""The picture before the run: what it makes, what it leaves for the run to make, and what is drawn."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffgen.checks.second_look import SecondLook
from diffgen.commands import preview as previewing
from diffgen.commands.export import export
from diffgen.commands.preview import Preview, preview
from diffgen.commands.sweeps import PreviewRequest
from diffgen.dataset.labels import LabelSchema, Shape
from diffgen.errors import DiffgenError, UsageError
from diffgen.output import contact_sheet as sheet
from diffgen.output.contact_sheet import GAP, LINE, MARKS
from diffgen.recipe.load import load_recipe
from diffgen.run.worker import Worker
from tests.fakes import FakeEditor, fake_worker, make, make_dataset, photo, put, save, tree, write_recipe
from tests.fakes_preview import TILE, look, verdicts
from tests.fakes_tasks import INSERT, REMOVE, Painter, find_magenta, work


def test_a_row_a_source_and_a_column_a_condition(recipe: Path, tmp_path: Path) -> None:
    found, editor = look(recipe, number=2)
    assert found.path == tmp_path / "out/preview.png"
    assert found.exit_code == 0
    assert [(s, c) for s, c, _ in verdicts(found)] == [
        (source, condition) for source in ("train/00", "train/01") for condition in ("night", "fog")
    ]
    picture = Image.open(found.path)
    assert picture.width == 3 * TILE + 2 * GAP
    tile = TILE * 48 // 64
    assert picture.height == 2 * (tile + 3 * LINE + 3) + GAP
    assert len(editor.made) == found.made_now


def test_a_column_stays_where_a_condition_does_not_suit_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_dataset(tmp_path / "data")
    save(tmp_path / "data/images/train/00.jpg", photo(0) // 12)  # it is dark already
    conditions = [{"night": {"skip_if": ["dark"]}}, "fog"]
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=conditions)
    drawn: list[Any] = []
    monkeypatch.setattr(
        previewing, "contact_sheet", lambda rows, names: drawn.extend(rows) or sheet.contact_sheet(rows, names)
    )
    look(recipe, number=2)
    captions = [[tile.caption.split("\n")[0] for tile in row[1:]] for row in drawn]
    assert captions[0] == ["night: not planned for this picture (dark)", "fog: rejected, degenerate"]
    assert [caption.split(":")[0] for caption in captions[1]] == ["night", "fog"]


def test_a_second_one_makes_nothing_and_draws_the_same(recipe: Path, tmp_path: Path) -> None:
    look(recipe)
    before = tree(tmp_path / "out")
    found, editor = look(recipe)
    assert editor.made == []
    assert found.made_now == 0
    assert tree(tmp_path / "out") == before


def test_a_run_goes_on_from_it_with_the_bytes_of_a_run_without_it(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(8, 1))
    fields = {"variants": 2, "batch_size": 3}
    shown = write_recipe(tmp_path / "a.yaml", data, tmp_path / "a", **fields)
    plain = write_recipe(tmp_path / "b.yaml", data, tmp_path / "b", **fields)
    found, before = look(shown, number=3, conditions=("fog",))
    assert 3 <= len(before.made) < 16
    _, after = make(shown)
    make(plain)
    assert not {*before.made} & {*after.made}, "nothing is made twice"
    assert tree(tmp_path / "a/dataset") == tree(tmp_path / "b/dataset")
    assert tree(tmp_path / "a/images") == tree(tmp_path / "b/images")
    assert found.made_now == len(before.made)


def test_a_finished_run_is_shown_as_it_is(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    before = tree(tmp_path / "out")
    _, editor = look(recipe)
    assert editor.made == []
    after = tree(tmp_path / "out")
    assert after.pop("preview.png")
    assert after == before


def test_the_sources_with_objects_come_first(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(4, 1))
    put(tmp_path / "data/labels/train/00.txt", "")
    put(tmp_path / "data/labels/train/02.txt", "")
    found, _ = look(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"), number=3)
    assert [source for source, _, _ in verdicts(found)][::2] == ["train/01", "train/03", "train/00"]


def test_every_condition_is_shown_though_the_recipe_gives_a_source_one(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", assign="one")
    found, first = look(recipe, number=4)
    assert len(found.images) == 8
    _, after = make(recipe)
    assert not {*first.made} & {*after.made}


def test_rejected_and_failed_are_said_and_a_broken_source_stops_nothing(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(2, 1))
    broken = tmp_path / "data/images/train/00.jpg"
    broken.write_bytes(broken.read_bytes()[:-400])
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=["night"], checks={"contrast": 1})
    found, _ = look(recipe)
    assert verdicts(found) == [("train/00", "night", "failed"), ("train/01", "night", "degenerate")]
    assert found.exit_code == 0
    colours = {tuple(pixel) for pixel in np.asarray(Image.open(found.path).convert("RGB")).reshape(-1, 3)}
    assert tuple(bytes.fromhex(MARKS[False][1:])) in colours
    assert tuple(bytes.fromhex(MARKS[True][1:])) not in colours


def test_exit_code_1_when_no_image_could_be_made(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(1, 1))
    broken = tmp_path / "data/images/train/00.jpg"
    broken.write_bytes(broken.read_bytes()[:-400])
    found, _ = look(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"))
    assert found.exit_code == 1


def test_a_run_folder_keeps_the_recipe_its_dataset_was_made_by(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    before = (tmp_path / "out/recipe.yaml").read_bytes()
    look(recipe, sets=["conditions.night.strength=0.9"])
    assert (tmp_path / "out/recipe.yaml").read_bytes() == before


def test_errors_name_what_is_wrong(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"strenght: unknown key.*Did you mean 'strength'"):
        look(recipe, "strenght=0.3")
    with pytest.raises(UsageError, match=r"must be 1\.0 or less"):
        look(recipe, "strength=3")
    with pytest.raises(UsageError, match="no such condition") as caught:
        look(recipe, conditions=("snow",))
    assert caught.value.hint == "its conditions: night, fog"
    with pytest.raises(DiffgenError, match="no source to edit"):
        look(recipe, sets=["select.share=0.000001"])
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_path_and_nothing_else(
    cli: Callable[..., Any], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = functools.partial(preview, make_worker=lambda: fake_worker(FakeEditor()))
    monkeypatch.setattr(previewing, "preview", fake)
    answer = cli("preview", recipe, "-n", 1, "--condition", "night", "--sweep", "strength=0.3,0.5")
    assert answer.code == 0, answer.err
    assert answer.out == f"{tmp_path / 'out/preview-night-strength=0.3,0.5.png'}\n"
    facts = json.loads(cli("preview", recipe, "-n", 1, "--condition", "night", "--json").out)
    assert facts["preview"] == str(tmp_path / "out/preview-night.png"), "two previews can be compared"
    (tile,) = facts["tiles"]
    assert (tile["source"], tile["condition"], tile["verdict"]) == ("train/00", "night", "accepted")
    assert {"structure", "shift_px", "strength", "job"} <= set(tile)


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
    worker = Worker(painter, LabelSchema(("0", "1"), None), {"device": "fake"}, SecondLook(find_magenta, {1: 7}))
    return preview(load_recipe(recipe), PreviewRequest(), make_worker=lambda: worker), drawn


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
    assert {f["verdict"] for f in (cell.facts() for cell in found.images) if f["job"] == first} == {"review"}
