"""The report of a run of the shipped model on real photographs, in a browser."""

from __future__ import annotations

import json
from pathlib import Path

from tests.output.browser.chromium import Browser


def test_every_image_is_shown_beside_its_source_with_its_labels(browser: Browser, finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "dataset/manifest.jsonl").read_text().splitlines()[1:]]
    made = [row for row in rows if "job" in row]
    assert made
    browser.open(finished / "report.html")
    assert len(browser.all(".card")) >= len(made)
    assert browser.wait("return [...document.querySelectorAll('.card img')].every((i) => i.complete && i.naturalWidth)")
    browser.all(".card")[0].click()
    browser.shown()
    sizes = browser.js(
        "return [...document.querySelectorAll('#stage img')].map((i) => [i.naturalWidth, i.naturalHeight])"
    )
    assert len(sizes) == 2
    assert sizes[0] == sizes[1] != [0, 0], "source and edit lie on each other"
    facts = browser.text("dialog")
    (shown,) = [row for row in made if row["job"] in facts]
    assert shown["prompt"] in facts
    assert str(shown["seed"]) in facts
    labels = (finished / "dataset" / shown["image"].replace("images/", "labels/")).with_suffix(".txt").read_text()
    assert len(browser.all("#stage polygon.line")) == len(labels.splitlines())
