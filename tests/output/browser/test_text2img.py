"""The report of a run without sources: what was made, what the detector found, what is to be reviewed."""

from __future__ import annotations

from pathlib import Path

from tests.fakes_text2img import make, write
from tests.output.browser.chromium import Browser
from tests.output.browser.test_report import cards, choose, open_card


def test_pictures_without_a_source_show_what_was_found_and_what_to_review(browser: Browser, tmp_path: Path) -> None:
    summary, _ = make(write(tmp_path, text2img={"width": 320, "height": 240}))
    assert summary.to_review
    browser.open(tmp_path / "out/report.html")
    assert len(cards(browser)) == 12
    choose(browser, "verdict", "weak")
    assert len(cards(browser)) == summary.to_review
    assert all("accepted, to be reviewed" in text for text in cards(browser))
    choose(browser, "class", "0")
    assert len(cards(browser)) == summary.to_review
    open_card(browser, "car")
    assert browser.js("return document.getElementById('before').hidden")
    assert browser.js("return document.getElementById('after').naturalWidth") == 320
    assert len(browser.all("#overlay polygon.line")) == 2
    assert "0 0.3 0.4 0.4 0.4" in browser.text("#label-list")
    browser.keys("k")
    assert browser.text("#verdict-text") == "accepted; kept by hand"
    choose(browser, "verdict", "weak")
    browser.wait(f"return shown.length === {summary.to_review - 1}")
