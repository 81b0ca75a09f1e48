"""The study of what is accepted: pictures, sheets for two judges, and their answers against the verdicts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from diffgen.dataset.bars import find_bars
from scripts.bench import acceptance
from scripts.docs.tables import with_table
from tests.fakes import MODEL, make, photo, put, save

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The study's folder with a run of the fake editor in it."""
    for i in range(9):
        save(tmp_path / f"photos/images/{i}.jpg", photo(i, (160, 120)))
        put(tmp_path / f"photos/labels/{i}.txt", "3 0.5 0.5 0.2 0.2\n3 0.1 0.1 0.2 0.1 0.2 0.2\n")
    folder = tmp_path / "look"
    acceptance.main(["pictures", str(folder), "--group", f"day={tmp_path}/photos/images:4", "--share", "1"])
    recipe = folder / "recipe.yaml"
    fields = yaml.safe_load(recipe.read_text())
    names = ("snow", "night", "faint-fog")
    chosen = [c for c in fields["conditions"] if c.get("name", next(iter(c))) in names]
    for condition in chosen:
        (condition.get("night") or {}).update(skip_if=[])
    fake = {"model": MODEL, "editor": "instruct", "resolution": {"long_side": 64}}
    recipe.write_text(yaml.safe_dump({**fields, **fake, "conditions": chosen, "checks": {"effect": None}}))
    make(recipe)
    return folder


def test_pictures_of_each_group_and_some_between_bars(folder: Path) -> None:
    images = folder / "data/images/train"
    barred = [p for p in images.iterdir() if find_bars(np.asarray(Image.open(p)))]
    assert sorted(p.name for p in barred) == [f"bars{i:02}.jpg" for i in range(5)]
    assert sorted(p.name for p in images.iterdir() if p not in barred) == [f"day{i:02}.jpg" for i in range(4)]
    assert (folder / "data/labels/train/day00.txt").read_text() == "0 0.5 0.5 0.2 0.2\n", "boxes alone, of one class"


def test_the_judges_see_the_same_pairs_in_another_order_and_no_verdict(folder: Path) -> None:
    acceptance.main(["sheets", str(folder)])
    keys = [json.loads((folder / f"key{judge}.json").read_text()) for judge in acceptance.JUDGES]
    assert sorted(keys[0].values()) == sorted(keys[1].values())
    assert list(keys[0].values()) != list(keys[1].values())
    assert len(list((folder / "judge1").iterdir())) == -(-len(keys[0]) // acceptance.ON_A_PAGE)


def test_the_score_counts_verdicts_against_both_judges(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    acceptance.main(["sheets", str(folder)])
    images = {image.job: image for image in acceptance.open_run(folder / "out").images}
    for judge in acceptance.JUDGES:
        key = json.loads((folder / f"key{judge}.json").read_text())
        answers = {number: "there" if images[job].accepted else "broken" for number, job in key.items()}
        for number, job in key.items():
            night = images[job].condition == "night"
            if night and images[job].source.stem == "day00":
                answers[number] = "not there"  # both say so
            if night and images[job].source.stem == "day01" and judge == 1:
                answers[number] = "broken"  # one alone
        (folder / f"judge{judge}.json").write_text(json.dumps(answers))
    capsys.readouterr()
    acceptance.main(["score", str(folder)])
    said = capsys.readouterr().out
    assert said.startswith(f"1 of {len(images)} wrong\n  day00 night: accepted, judges ('not there', 'not there')")
    assert f"the same answer for {len(images) - 1} of {len(images)}" in said
    nights = [image for image in images.values() if image.condition == "night"]
    there = sum(image.accepted for image in nights if image.source.stem not in ("day00", "day01"))
    rejected = len(nights) - 2 - there  # which both judges call broken
    assert re.search(rf"\| night \| 9 \| {there} \| {rejected + 1} \| 1 \| 1 \| 0 \|", said)


def test_answers_that_do_not_fit_the_sheets_are_refused(folder: Path) -> None:
    acceptance.main(["sheets", str(folder)])
    for judge in acceptance.JUDGES:
        key = json.loads((folder / f"key{judge}.json").read_text())
        (folder / f"judge{judge}.json").write_text(json.dumps(dict.fromkeys(key, "there") | {"1": "maybe"}))
    with pytest.raises(ValueError, match="judge 1: no answer, or one that is not there, not there, broken: 1"):
        acceptance.main(["score", str(folder)])


def test_every_table_of_the_docs_has_one_place_and_a_script_that_writes_it() -> None:
    page = (ROOT / "docs/fidelity.md").read_text("utf-8")
    places = re.findall(r"<!-- written by `python -m (\S+) --write`: (.+) -->", page)
    assert len(places) == 7
    for script, name in places:
        source = (ROOT / f"{script.replace('.', '/')}.py").read_text("utf-8")
        assert f'"{name}"' in source
        assert "--write" in source
        assert "| a |" in with_table(page, name, "| a |", script)
