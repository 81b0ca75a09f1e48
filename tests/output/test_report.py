"""What the report says, without a browser: its numbers, that any text is safe in it, and when it is written."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest

from diffgen.commands.export import export
from diffgen.commands.status import status
from diffgen.editing.editor import EditBatch
from diffgen.output.report.statistics import BINS, SCORES, histogram
from diffgen.recipe.load import load_recipe
from tests.fakes import FakeEditor, make, make_dataset, photo, put, save, tree, write_recipe
from tests.fakes_attempts import Melting, run_it
from tests.output.report_page import report

EVIL = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(1)>\u2028&amp;"


def test_columns_hold_every_image_and_each_source_once(recipe: Path, tmp_path: Path) -> None:
    _, editor = make(recipe)
    data = report(tmp_path / "out").data
    jobs, sources = data["jobs"], data["sources"]
    assert sorted(jobs["id"]) == sorted(editor.made)
    assert {len(column) for column in jobs.values()} == {8}
    assert {len(column) for column in sources.values()} == {4}
    assert sources["name"] == ["train/00", "train/01", "train/02", "train/03"]
    assert sources["label"][1] == "0 0.3 0.4 0.3 0.4\n1 0.75 0.7 0.3 0.4"
    assert data["reasons"] == [""]
    assert len(data["prompts"]) < 8
    records = [json.loads(line) for line in (tmp_path / "out/records-0.jsonl").read_text().splitlines()]
    facts = {record["id"]: record["facts"] for record in records if "id" in record}
    for job, shift in zip(jobs["id"], jobs["registration"], strict=True):
        assert shift == facts[job]["shift_px"]


def test_numbers_of_labels_have_four_digits(recipe: Path, tmp_path: Path) -> None:
    put(tmp_path / "data/labels/train/00.txt", "0 0.333333333 0.40000 3e-1 4.0e-1 \r\n\n")
    make(recipe)
    assert report(tmp_path / "out").data["sources"]["label"][0] == "0 0.3333 0.4 0.3 0.4"


def test_counts_per_condition_and_class(tmp_path: Path) -> None:
    summary, _, _ = run_it(tmp_path, "out", 3)
    page = report(tmp_path / "out")
    jobs = page.data["jobs"]
    accepted = [page.data["conditions"][c] for c, v in zip(jobs["condition"], jobs["verdict"], strict=True) if v == 0]
    assert summary.saved
    later = [attempt for attempt, v in zip(jobs["attempt"], jobs["verdict"], strict=True) if v == 0 and attempt]
    assert len(later) == summary.saved
    for name in ("night", "fog"):
        (row,) = page.rows(name)
        assert row[:3] == ["12", "12", str(accepted.count(name))]
        assert sum(map(int, row[3].split(" / "))) == accepted.count(name)
    assert page.rows("car")[0][0] == "24"
    assert page.rows("person")[0][0] == "12", "every second picture holds one, under two conditions"
    for name, count in (("car", 12), ("person", 6)):
        planned, _, taken, _, *parts, _ = page.rows(name)[0]
        assert parts == [f"{part.split(' ')[0]} of {count}" for part in parts], "a cell for each condition"
        assert (sum(int(part.split(" ")[0]) for part in parts), planned) == (int(taken), str(2 * count))
    assert page.rows("car")[0][4:6] == [f"{accepted.count(name)} of 12" for name in ("night", "fog")]
    assert f"{summary.saved} accepted on a retry" in page.texts["li"]


def test_labels_before_and_after_by_class_and_size(tmp_path: Path) -> None:
    """Boxes of 0.3 × 0.4: at 64 × 48 px 19 px a side, small; at 640 × 480 px 192 px, large."""
    data = make_dataset(tmp_path / "data", counts=(3, 1))
    save(tmp_path / "data/images/train/01.jpg", photo(1, (640, 480)))
    off = {"structure": None, "registration": None, "contrast": None}
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=["night"], checks=off)
    make(recipe)
    page = report(tmp_path / "out")
    assert page.rows("car")[-1] == ["3 → 5", "0 → 0", "1 → 2", "4 → 7"]
    assert page.rows("person")[-1] == ["0 → 0", "0 → 0", "1 → 2", "1 → 2"]
    export(load_recipe(recipe, ["include_sources=none"]))
    assert report(tmp_path / "out").rows("car")[-1][-1] == "4 → 4", "val is carried over, train is not"


def test_a_histogram_counts_all_and_shows_the_threshold() -> None:
    drawn = histogram(SCORES[0], [0.5, 0.51, 1.0], [-0.5, 0.1], 0.25)
    assert len(drawn.bars) == BINS
    assert sum(a for a, _ in drawn.bars) == 3
    assert drawn.bars[0] == (0, 1)
    assert drawn.bars[-1] == (1, 0)
    assert drawn.bars[BINS // 2] == (2, 0)
    assert drawn.mark == 0.25
    assert "5 values from -0.5 to 1, median 0.5, threshold: at least 0.25" in drawn.text
    assert max(y + height for _, _, y, height in drawn.rects) <= 30.01
    wide = histogram(SCORES[1], [1.0], [], 10.0)
    assert wide.mark == 0.5
    assert histogram(SCORES[1], [], [1.0], None).mark is None


def test_reasons_failures_and_the_review_are_told(recipe: Path, tmp_path: Path) -> None:
    image = tmp_path / "data/images/train/01.jpg"
    image.write_bytes(image.read_bytes()[:-400])
    _, editor = make(recipe)
    export(load_recipe(recipe), put(tmp_path / "given.yaml", f"{editor.made[0]}: reject\n"))
    data = report(tmp_path / "out").data
    words = [data["reasons"][v] for v in data["jobs"]["verdict"]]
    assert sorted(words) == ["", "", "", "", "", "failed", "failed", "review"]
    assert all("decode" in text for text in data["errors"].values())
    assert [words[int(i)] for i in data["errors"]] == ["failed", "failed"]
    assert data["review"] == {editor.made[0]: "reject"}


def test_recipe_versions_and_how_to_reproduce_are_told(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    page = report(tmp_path / "out")
    assert page.texts["pre"][0] == (tmp_path / "out/recipe.yaml").read_text("utf-8")
    assert page.texts["pre"][1] == "device: fake\n"
    assert "diffgen reproduce OUT JOB_ID" in (tmp_path / "out/report.html").read_text()


def test_the_page_grows_little_with_each_image(tmp_path: Path) -> None:
    sizes = []
    for count in (2, 12):
        root = tmp_path / str(count)
        recipe = write_recipe(root / "r.yaml", make_dataset(root / "data", counts=(count, 1)), root / "out")
        make(recipe, sets=["assign=one"])
        sizes.append(len(report(root / "out").texts["script"][0]))
    assert (sizes[1] - sizes[0]) / 10 < 250, "bytes for an image, its source and its label"


def test_text_from_files_stays_text(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(2, 1), names=[EVIL, "person", "half"])
    save(tmp_path / "data/images/train/<script>'\u2028 \"&.jpg", photo(5))
    put(tmp_path / "data/labels/train/<script>'\u2028 \"&.txt", "0 0.5 0.5 0.4 0.4\n")
    own = {"name": "own", "prompt": f"night {EVIL} {{objects}}", "strength": 0.5}
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=[own]))
    page = report(tmp_path / "out")
    assert [attributes for tag, attributes in page.elements if tag == "script"] == [
        {"type": "application/json", "id": "data"},
        {},
    ]
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert "<" not in page.texts["script"][0]
    assert "\u2028" not in page.texts["script"][0]
    assert page.data["names"] == [EVIL, "person", "half"]
    assert any(EVIL in prompt for prompt in page.data["prompts"])
    assert any("<script>'" in name for name in page.data["sources"]["name"])
    assert page.rows(EVIL)


@pytest.mark.parametrize("stem", ["a#b", "what?", "100%25 %", "雪 – ночь", "c:d", "\udcff\udc80", "new\nline", "'\""])
def test_paths_lead_to_the_files(tmp_path: Path, stem: str) -> None:
    data = make_dataset(tmp_path / "da ta#", counts=(0, 1), train="images/train")
    folder = tmp_path / "da ta#/images/train"
    save(folder / "x.jpg", photo(9))
    os.rename(folder / "x.jpg", os.path.join(os.fsencode(folder), os.fsencode(f"{stem}.jpg")))
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=["night"]))
    found = report(tmp_path / "out").data
    url = f"{found['folders'][0]}/{found['sources']['file'][0]}"
    assert re.fullmatch(r"[\w./%~-]+", url, re.ASCII), "nothing that ends a path or begins a scheme"
    assert os.path.exists(os.path.join(os.fsencode(tmp_path / "out"), unquote_to_bytes(url)))
    job = found["jobs"]["id"][0]
    assert (tmp_path / f"out/images/{job[:2]}/{job}.{found['format']}").is_file()


def test_the_policy_allows_this_script_and_nothing_from_outside(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    page = report(tmp_path / "out")
    (policy,) = [attributes["content"] or "" for _, attributes in page.elements if attributes.get("http-equiv")]
    for kind, text in (("script-src", page.texts["script"][1]), ("style-src", page.texts["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|\*|unsafe", policy)
    for _, attributes in page.elements:
        for key in ("src", "href", "style"):
            assert not (attributes.get(key) or "").startswith(("http", "//")), attributes
        assert "style" not in attributes, "the policy forbids style attributes"


def test_it_is_written_anew_only_when_it_says_something_else(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(recipe)
    first = (out / "report.html").stat().st_ino
    make(recipe)
    export(load_recipe(out))
    assert (out / "report.html").stat().st_ino == first
    text = (out / "report.html").read_text()
    export(load_recipe(out, ["checks.contrast=1"]))
    assert (out / "report.html").read_text() != text
    export(load_recipe(out, ["checks.contrast=0.02"]))
    assert (out / "report.html").read_text() == text
    (out / "report.html").unlink()
    status(load_recipe(out))
    assert not (out / "report.html").exists()
    export(load_recipe(out))
    assert (out / "report.html").read_text() == text


def test_the_same_run_elsewhere_gives_the_same_page(tmp_path: Path) -> None:
    for name in ("a", "b"):
        root = tmp_path / name
        recipe = write_recipe(root / "r.yaml", make_dataset(root / "data"), root / "out")
        put(recipe, recipe.read_text().replace(f"{root}/", ""))
        make(recipe)
    assert (tmp_path / "a/out/report.html").read_bytes() == (tmp_path / "b/out/report.html").read_bytes()
    assert str(tmp_path) not in (tmp_path / "a/out/report.html").read_text()


def test_no_page_without_a_dataset(recipe: Path, tmp_path: Path) -> None:
    """Whoever interrupts a run wants it to end."""

    class Interrupted(FakeEditor):
        def begin(self, batch: EditBatch) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(recipe, Interrupted())
    assert not (tmp_path / "out/report.html").exists()


def test_a_page_of_rejected_images_alone(recipe: Path, tmp_path: Path) -> None:
    make(recipe, Melting(), sets=["checks.contrast=1"])
    page = report(tmp_path / "out")
    assert page.rows("night")[0][:3] == ["4", "4", "0"]
    assert set(page.data["jobs"]["verdict"]) == {1}
    assert tree(tmp_path / "out")["report.html"]
