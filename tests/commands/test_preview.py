"""The picture before the run: what it makes, what it leaves for the run to make, and what is drawn."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffgen import preview as previewing
from diffgen.errors import DiffgenError, UsageError
from diffgen.labels import parse_labels
from diffgen.preview import Preview, preview
from diffgen.recipe import load_recipe
from diffgen.sheet import COLOURS, GAP, LINE, MARKS, Tile, contact_sheet
from diffgen.sweeps import Look, Sweep, read_sweep
from tests.fakes import ROWS, FakeEditor, fake_worker, make, make_dataset, put, tree, write_recipe

TILE = 420  # pixels


def look(recipe: Path, *sweeps: str, editor: Any = None, sets: Sequence[str] = (), **options: Any) -> Any:
    """(preview, the editor, which knows what it was asked)."""
    editor = editor or FakeEditor()
    wanted = Look(sweeps=tuple(read_sweep(text) for text in sweeps), **options)
    return preview(load_recipe(recipe, sets), wanted, make_worker=lambda: fake_worker(editor)), editor


def verdicts(found: Preview) -> list[tuple[str, str, str]]:
    return [(f["source"], f["condition"], f["verdict"]) for f in (cell.facts() for cell in found.cells)]


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


def test_swept_values_are_columns_and_each_condition_a_row(recipe: Path) -> None:
    found, editor = look(recipe, "strength=0.3,0.5", "objects.strength=0,0.2", number=1)
    assert [cell.settings for cell in found.cells][:4] == [
        {"strength": 0.3, "objects.strength": 0},
        {"strength": 0.3, "objects.strength": 0.2},
        {"strength": 0.5, "objects.strength": 0},
        {"strength": 0.5, "objects.strength": 0.2},
    ]
    used = [(cell.item.job.settings.strength, cell.item.job.settings.object_strength) for cell in found.cells]
    assert used == 2 * [(0.3, 0), (0.3, 0.2), (0.5, 0), (0.5, 0.2)]
    assert len(editor.made) == 8
    picture = Image.open(found.path)
    assert picture.width == 5 * TILE + 4 * GAP
    assert picture.height == 2 * (TILE * 48 // 64 + 3 * LINE + 3) + GAP


@pytest.mark.parametrize(
    ("sweep", "field", "value"),
    [
        ("guidance=3", "guidance", 3.0),
        ("steps=7", "steps", 7),
        ("detail=0.4", "detail", 0.4),
        ("objects.detail=0.9", "object_detail", 0.9),
        ("image_guidance=1.2", "image_guidance", 1.2),
        ("scheduler=euler", "scheduler", "euler"),
    ],
)
def test_any_field_of_a_condition_can_be_swept(recipe: Path, sweep: str, field: str, value: Any) -> None:
    found, _ = look(recipe, sweep, number=1, conditions=("night",))
    assert getattr(found.cells[0].item.job.settings, field) == value


def test_a_prompt_is_swept_by_quoted_texts(recipe: Path) -> None:
    found, _ = look(recipe, 'instruction="dusk, no lamps","dawn"', number=1, conditions=("night",))
    assert [cell.item.job.prompt for cell in found.cells] == ["dusk, no lamps", "dawn"]


def test_a_swept_threshold_makes_one_image_and_judges_it_twice(recipe: Path) -> None:
    found, editor = look(recipe, "checks.contrast=0,1", number=1, conditions=("night",))
    assert [verdict for _, _, verdict in verdicts(found)] == ["accepted", "degenerate"]
    assert len(set(editor.made)) == len(editor.made)
    assert len({cell.item.job.id for cell in found.cells}) == 1


def test_the_recipes_own_value_in_a_sweep_is_made_in_the_runs_own_batch(recipe: Path) -> None:
    own = load_recipe(recipe).recipe.conditions[0].strength
    _, editor = look(recipe, f"strength=0.2,{own}", number=2, conditions=("night",))
    _, after = make(recipe)
    assert not {*editor.made} & {*after.made}
    alone = FakeEditor()
    make(recipe, alone, sets=["output=elsewhere"])
    assert [batch for batch in alone.batches if batch in editor.batches], "in the company that a run gives it"


def test_swept_images_are_extra_until_clean(cli: Callable[..., Any], recipe: Path, tmp_path: Path) -> None:
    look(recipe, "strength=0.2,0.3", number=2, conditions=("night",))
    assert make(recipe)[0].planned == 8
    assert json.loads(cli("clean", tmp_path / "out", "--json").out)["images"] == 4


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
    assert len(found.cells) == 8
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


def test_keypoints_are_drawn_as_dots() -> None:
    (person,) = parse_labels(ROWS["pose"][1].encode(), 2, (2, 3))
    sheet = np.asarray(
        contact_sheet([[Tile(np.zeros((300, 400, 3), np.uint8), "", (person,))]], ["car", "person"], 400)
    )
    picture, colour = sheet[-300:], bytes.fromhex(COLOURS[1][1:])
    dotted = (picture == list(colour)).all(-1)
    assert dotted[180, 280], "at 0.7, 0.6"
    assert not dotted[0:5, 0:5].any(), "the second is not marked as seen"


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


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("strength", "field=value"),
        ("strength=", "field=value"),
        ("=1", "field=value"),
        ("share=0.5", "says which images there are"),
        ("strength=[", "--sweep"),
    ],
)
def test_a_sweep_that_is_none(text: str, word: str) -> None:
    with pytest.raises(UsageError, match=word.replace("--", "")):
        read_sweep(text)


def test_values_of_a_sweep_are_yaml() -> None:
    assert read_sweep("detail=0, 0.5,null") == Sweep("detail", (0, 0.5, None))


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


def test_a_tile_shows_the_score_that_decided(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = []
    monkeypatch.setattr(
        previewing, "contact_sheet", lambda rows, names: captions.extend(rows) or contact_sheet(rows, names)
    )
    found, _ = look(recipe, "strength=0,1", number=1, conditions=("night",), sets=["checks.happened=0.1"])
    still, dark = (cell.facts() for cell in found.cells)
    assert (still["verdict"], dark["verdict"]) == ("unchanged", "accepted")
    assert still["happened"] < 0.1 <= dark["happened"]
    assert {"contrast", "new_objects", "clip"} <= set(still)
    ((_, tile, _),) = captions
    assert f"happened {still['happened']:.2f}" in tile.caption
    assert f"contrast {still['contrast']:.2f}" in tile.caption


def test_a_field_that_is_swept_twice_is_refused(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--sweep strength: given twice"):
        look(recipe, "strength=0.3", "strength=0.4")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_path_and_nothing_else(
    cli: Callable[..., Any], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = functools.partial(preview, make_worker=lambda: fake_worker(FakeEditor()))
    monkeypatch.setattr(previewing, "preview", fake)
    answer = cli("preview", recipe, "-n", 1, "--condition", "night", "--sweep", "strength=0.3,0.5")
    assert answer.code == 0, answer.err
    assert answer.out == f"{tmp_path / 'out/preview.png'}\n"
    facts = json.loads(cli("preview", recipe, "-n", 1, "--condition", "night", "--json").out)
    assert facts["preview"] == str(tmp_path / "out/preview.png")
    (tile,) = facts["tiles"]
    assert (tile["source"], tile["condition"], tile["verdict"]) == ("train/00", "night", "accepted")
    assert {"structure", "shift_px", "strength", "job"} <= set(tile)
