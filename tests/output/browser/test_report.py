"""The report as a person meets it: in a browser, from disk, by mouse and by keyboard."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffgen.checks.verdict import judge
from diffgen.commands.status import status
from diffgen.dataset.dataset import Dataset
from diffgen.output.contact_sheet import COLOURS
from diffgen.output.outcome import Outcome
from diffgen.output.report.page import write_report
from diffgen.plan.plan import plan_jobs
from diffgen.recipe.load import load_recipe
from diffgen.run.summary import summarise
from diffgen.types import Record
from tests.fakes import ROWS, make, make_dataset, model, photo, put, save, source, write_recipe
from tests.fakes_tasks import INSERT, REMOVE, manifest, work
from tests.output.browser.chromium import Browser
from tests.output.browser.conftest import EVIL, SIZE, Made, make_run
from tests.run.test_on_object_lost import lossy

LEFT, RIGHT, DOWN, UP, ENTER, ESCAPE, HOME = "\ue012", "\ue014", "\ue015", "\ue013", "\ue007", "\ue00c", "\ue011"


def choose(browser: Browser, control: str, value: str) -> None:
    """As a person does it: set a value, and the page hears of it."""
    browser.js(
        "const c = document.getElementById(arguments[0]); c.value = arguments[1];"
        "c.dispatchEvent(new Event('input', {bubbles: true}))",
        control,
        value,
    )


def cards(browser: Browser) -> list[str]:
    """What each card says, under the name of its row."""
    return list(
        browser.js(
            "return [...document.querySelectorAll('.card')].map((c) => c.closest('li').firstChild.textContent + '\\n' + c.innerText)"
        )
    )


def card(browser: Browser, *words: str) -> Any:
    """The first card that says all of these."""
    texts = cards(browser)
    return browser.all(".card")[next(i for i, text in enumerate(texts) if all(word in text for word in words))]


def press(browser: Browser, element: Any) -> None:
    browser.js("arguments[0].scrollIntoView({block: 'center'})", element)  # not under the bar of decisions
    element.click()


def open_card(browser: Browser, *words: str) -> None:
    press(browser, card(browser, *words))
    browser.shown()


def close(browser: Browser) -> None:
    """Leave the dialog, and wait until the page has taken note of it: the browser gives the focus back before."""
    browser.keys(ESCAPE)
    browser.wait("return !dialog.open && $('review').parentNode === document.body")


# --- the page


def test_it_shows_every_image_and_says_what_became_of_it(browser: Browser, run_folder: Made) -> None:
    browser.open(run_folder.page)
    texts = cards(browser)
    assert len(texts) == 10
    assert sum("accepted" in text for text in texts) == 4
    assert sum("rejected: structure" in text for text in texts) == 4
    assert sum("failed" in text for text in texts) == 2
    assert browser.text("#count") == "10 of 10 images, page 1 of 1"
    assert all(browser.js("return [...document.images].filter((i) => i.closest('.card')).map((i) => i.alt)"))
    browser.js("window.scrollTo(0, document.body.scrollHeight)")
    whole = (
        "return [...document.querySelectorAll('.card:not(.failed) img')].every((i) => i.complete && i.naturalWidth > 0)"
    )
    assert browser.wait(whole)
    _, asked = browser.drain()
    assert sum("/out/images/" in url for url in asked) >= 8, "they were asked for, and from the run folder"


def test_odd_text_is_shown_as_text(browser: Browser, run_folder: Made) -> None:
    browser.open(run_folder.page)
    assert any(EVIL.replace("/", "") in text for text in cards(browser))
    assert EVIL in browser.text("#class")
    assert EVIL in browser.text("#labels")
    open_card(browser, "<script>", "night")
    assert EVIL.replace("/", "") in browser.text("#title")
    assert EVIL in browser.text("#label-list")
    assert browser.js("return document.getElementById('before').naturalWidth") == SIZE[0]
    assert len(browser.all("script")) == 2


def test_the_policy_stops_what_comes_from_outside(browser: Browser, run_folder: Made) -> None:
    browser.open(run_folder.page)
    browser.js(
        "window.stopped = []; addEventListener('securitypolicyviolation', (e) => stopped.push(e.effectiveDirective));"
        "document.body.append(element('img', {src: 'http://127.0.0.1:9/x.png'}));"
        "const s = document.createElement('script'); s.textContent = 'window.boomed = 1'; document.body.append(s);"
    )
    browser.wait("return stopped.length === 2")
    assert sorted(browser.js("return stopped")) == ["img-src", "script-src-elem"]
    assert browser.js("return window.boomed") is None
    errors, _ = browser.drain()
    assert len(errors) == 2, "what was just tried, and nothing else"


def test_the_title_says_which_run_which_model_and_when(browser: Browser, run_folder: Made) -> None:
    browser.open(run_folder.page)
    written = datetime.datetime.fromtimestamp(run_folder.page.stat().st_mtime)
    when = f"{written.day} {written:%B %Y} at {written:%H:%M}"
    assert browser.driver.title == f"out, tests/fake – diffgen, {when}"
    assert browser.text("header h1") == "out"
    assert browser.text("header p") == f"tests/fake, night, fog, written on {when}"


# --- filters


@pytest.mark.parametrize(
    ("choices", "count"),
    [
        pytest.param({"condition": "night"}, 5, id="condition"),
        pytest.param({"verdict": "accepted"}, 4, id="accepted"),
        pytest.param({"verdict": "rejected"}, 4, id="rejected"),
        pytest.param({"verdict": "=structure"}, 4, id="reason"),
        pytest.param({"verdict": "=failed"}, 2, id="failed"),
        pytest.param({"class": "1", "condition": "fog"}, 3, id="class and condition"),
        pytest.param({"search": "POLY"}, 2, id="name"),
        pytest.param({"search": "nobody"}, 0, id="nothing"),
        pytest.param({"least": "0.2"}, 4, id="score from"),
        pytest.param({"most": "0.2"}, 4, id="score to"),
        pytest.param({"score": "registration", "least": "0", "most": "3"}, 4, id="another score"),
    ],
)
def test_filters(browser: Browser, run_folder: Made, choices: dict[str, str], count: int) -> None:
    browser.open(run_folder.page)
    for control, value in choices.items():
        choose(browser, control, value)
    if "score" in choices:
        assert 4 <= len(cards(browser)) <= 8
    else:
        assert len(cards(browser)) == count
    assert browser.text("#count").startswith(f"{len(cards(browser))} of 10 images")
    browser.find("#filters button[type=reset]").click()
    browser.wait("return document.querySelectorAll('.card').length === 10")


def test_by_object_size(browser: Browser, run_folder: Made) -> None:
    """At 320 × 240 px the boxes of 0.3 × 0.4 have 96 px a side, to a rounding: large. A class and a size are of one object."""
    browser.open(run_folder.page)
    choose(browser, "size", "small")
    assert not cards(browser)
    choose(browser, "size", "large")
    assert {text.partition("\n")[0] for text in cards(browser)} >= {"train/00", "train/01"}
    sizes = browser.js("return objectsIn(shown.find((i) => nameOf(i) === 'train/poly'))")
    assert sizes == [[0, "large"], [1, "large"]]


def test_a_row_has_its_source_in_front_and_its_conditions_side_by_side(browser: Browser, run_folder: Made) -> None:
    browser.open(run_folder.page)
    rows = browser.js(
        "return [...document.querySelectorAll('#gallery li')].map((li) => [li.firstChild.textContent,"
        "[...li.lastChild.children].map((c) => [c.tagName, c.querySelector('img').alt, c.getBoundingClientRect().y])])"
    )
    assert len(rows) == 5
    for name, parts in rows:
        (first, alt, y), *images = parts
        assert (first, alt) == ("FIGURE", f"source {name}")
        assert [words.split(" made of ")[0] for _, words, _ in images] == ["night", "fog"]
        assert {top for _, _, top in images} == {y}, "in one line"
    choose(browser, "condition", "fog")
    assert len(browser.all("#gallery figure")) == len(cards(browser)) == 5


@pytest.mark.parametrize("score", ["structure", "contrast"])
def test_sorting_by_a_score_that_the_cards_show(browser: Browser, run_folder: Made, score: str) -> None:
    browser.open(run_folder.page)
    choose(browser, "score", score)
    choose(browser, "condition", "fog")
    values = [float(text.rpartition(f"{score} ")[2]) for text in cards(browser) if f"{score} " in text.splitlines()[-1]]
    assert len(values) == 4
    for way, wanted in (("1", sorted(values)), ("-1", sorted(values, reverse=True))):
        choose(browser, "sort", way)
        texts = cards(browser)
        assert [float(text.rpartition(f"{score} ")[2]) for text in texts[:4]] == wanted
        assert "failed" in texts[4], "what has no score comes last"
    choose(browser, "condition", "")
    choose(browser, "sort", "1")
    rows = browser.js("return rows.map((r) => r.map((i) => jobs[arguments[0]][i]))", score)
    lowest = [min(row) for row in rows[:4]]
    assert lowest == sorted(lowest), "a source stands where its lowest image does"
    assert [row[0] for row in rows[:4]] == lowest


def test_search_by_job_id_and_typing(browser: Browser, run_folder: Made) -> None:
    browser.open(run_folder.page)
    browser.keys("/")
    browser.keys(run_folder.job("night", "poly")[:12])
    assert len(cards(browser)) == 1
    assert "poly" in cards(browser)[0]


# --- one image


def test_the_slider_shows_the_source_on_its_left_and_the_edit_on_its_right(
    browser: Browser, run_folder: Made, tmp_path: Path
) -> None:
    browser.open(run_folder.page)
    open_card(browser, "poly", "night")
    browser.keys("b")
    stage = browser.find("#stage")
    before = np.asarray(Image.open(run_folder.out.parent / "data/images/train/poly.png").convert("RGB")).astype(int)
    job = run_folder.job("night", "poly")
    after = np.asarray(Image.open(run_folder.out / f"images/{job[:2]}/{job}.jpg").convert("RGB")).astype(int)

    def is_like(x: float, y: float) -> str:
        pixels = browser.pixels(stage, tmp_path / "stage.png")
        shown = patch(pixels, x, y)
        return "source" if abs(shown - patch(before, x, y)).sum() < abs(shown - patch(after, x, y)).sum() else "edit"

    def patch(pixels: np.ndarray, x: float, y: float) -> np.ndarray:
        h, w = pixels.shape[:2]
        r = max(1, w // 80)
        return pixels[int(y * h) - r : int(y * h) + r, int(x * w) - r : int(x * w) + r].mean((0, 1))

    assert (is_like(0.3, 0.1), is_like(0.7, 0.1)) == ("source", "edit")
    browser.keys("s")
    assert (is_like(0.3, 0.1), is_like(0.7, 0.1)) == ("edit", "edit")
    browser.keys("s")
    assert (is_like(0.3, 0.1), is_like(0.7, 0.1)) == ("source", "source")
    browser.find("#slider").send_keys(HOME, *[RIGHT] * 45)
    assert browser.js("return document.getElementById('slider').value") == "45"
    assert "poly" in browser.text("#title"), "arrows on the slider move the slider"
    assert (is_like(0.3, 0.1), is_like(0.7, 0.1)) == ("source", "edit")


def test_dragging_on_the_picture_moves_the_slider(browser: Browser, run_folder: Made) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    browser.open(run_folder.page)
    open_card(browser, "poly", "night")
    stage = browser.find("#stage")
    width = stage.rect["width"]
    ActionChains(browser.driver).move_to_element(stage).click_and_hold().move_by_offset(
        int(width / 4), 0
    ).release().perform()
    assert 73 <= int(browser.js("return document.getElementById('slider').value")) <= 77


def corners(kind: str) -> list[list[tuple[float, float]]]:
    shapes = []
    for row in ROWS[kind]:
        values = [float(value) for value in row.split()[1:]]
        if kind == "detect":
            x, y, w, h = values
            shapes.append(
                [(x - w / 2, y - h / 2), (x + w / 2, y - h / 2), (x + w / 2, y + h / 2), (x - w / 2, y + h / 2)]
            )
        else:
            shapes.append(list(zip(values[::2], values[1::2], strict=True)))
    return shapes


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(("kind", "name"), [("detect", "train/01"), ("segment", "train/poly")])
def test_shapes_lie_where_the_labels_say(
    browser: Browser, run_folder: Made, tmp_path: Path, kind: str, name: str, width: int
) -> None:
    browser.open(run_folder.page, width=width)
    open_card(browser, name, "night")
    browser.keys("s")
    stage = browser.js(
        "const {x, y, width, height} = document.getElementById('stage').getBoundingClientRect(); return [x, y, width, height]"
    )
    assert stage[2] / stage[3] == pytest.approx(SIZE[0] / SIZE[1], rel=0.01)
    drawn = browser.js(
        "return [...document.querySelectorAll('#overlay polygon.line')].map((p) => [...p.points].map((q) => {"
        "const r = q.matrixTransform(p.getScreenCTM()); return [r.x, r.y]; }))"
    )
    assert len(drawn) == 2
    for shape, points in zip(corners(kind), drawn, strict=True):
        for (x, y), (left, top) in zip(shape, points, strict=True):
            assert abs(stage[0] + x * stage[2] - left) < 1
            assert abs(stage[1] + y * stage[3] - top) < 1
    pixels = browser.pixels(browser.find("#stage"), tmp_path / "stage.png")
    for i, shape in enumerate(corners(kind)):
        (x0, y0), (x1, y1) = shape[:2]
        column, row = round((x0 + x1) / 2 * pixels.shape[1]), round((y0 + y1) / 2 * pixels.shape[0])
        wanted = np.array([int(COLOURS[i][n : n + 2], 16) for n in (1, 3, 5)])
        near = pixels[row - 2 : row + 3, column - 2 : column + 3].reshape(-1, 3)
        assert np.abs(near - wanted).max(1).min() < 40, "the class's colour on the middle of an edge"
    assert browser.js("return document.querySelector('#overlay text').textContent") == "car"
    browser.keys("b")
    assert not browser.find("#overlay").is_displayed()


def test_zoom_and_pan_with_boxes(browser: Browser, run_folder: Made, tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    browser.open(run_folder.page)
    open_card(browser, "train/01", "night")
    assert browser.text("#zoom") == "1 ×"
    stage = browser.find("#stage")

    def places() -> tuple[list[float], list[float], list[float]]:
        """(x, y, w, h) on the screen of stage, source and the second object's box."""
        found = browser.js(
            "const box = (e) => { const r = e.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; };"
            "return [box(stage), box($('before')), box(document.querySelectorAll('#overlay polygon.line')[1])]"
        )
        return found[0], found[1], found[2]

    def box_lies_right() -> None:
        _, (x, y, w, h), drawn = places()
        assert np.allclose(drawn, [x + 0.6 * w, y + 0.5 * h, 0.3 * w, 0.4 * h], atol=3), "0.75 0.7 0.3 0.4"

    box_lies_right()
    browser.keys("+")
    browser.keys("+")
    assert browser.text("#zoom") == "2.3 ×"
    whole, picture, _ = places()
    assert picture[2] == pytest.approx(2.25 * whole[2], rel=0.01)
    middle = [(whole[i] + whole[i + 2] / 2 - picture[i]) / picture[i + 2] for i in (0, 1)]
    assert middle == pytest.approx([0.5, 0.5], abs=0.01), "the middle stays in the middle"
    box_lies_right()
    ActionChains(browser.driver).move_to_element(stage).click_and_hold().move_by_offset(60, 30).release().perform()
    assert np.allclose(np.subtract(places()[1], picture), [60, 30, 0, 0], atol=2), "it follows the hand"
    assert browser.js("return $('slider').value") == "50"
    box_lies_right()
    ActionChains(browser.driver).key_down("\ue008").send_keys(RIGHT).key_up("\ue008").perform()
    assert places()[1][0] < picture[0] + 60, "Shift and an arrow pan"
    assert "train/01" in browser.text("#title")
    browser.keys("0")
    assert np.allclose(places()[0], places()[1])
    press(browser, browser.all("#label-list button")[1])
    (sx, sy, sw, sh), _, (x, y, w, h) = places()
    assert h == pytest.approx(sh / 2, abs=3), "half of the stage for the object"
    assert sx < x < x + w < sx + sw + 1
    assert sy < y < y + h < sy + sh + 1
    box_lies_right()
    browser.js("lookAt({x: 0.6, y: 0.5, w: 0.1, h: 0.1})")
    (sx, sy, sw, sh), (x, y, w, h), _ = places()
    assert (x + 0.65 * w, y + 0.55 * h) == pytest.approx((sx + sw / 2, sy + sh / 2), abs=3), "its middle in the middle"
    zoom = browser.text("#zoom")
    browser.keys(RIGHT)
    assert "fog" in browser.text("#title")
    assert browser.text("#zoom") == zoom, "another condition of the source at the same place"
    ActionChains(browser.driver).scroll_from_origin(_origin(stage), 0, 2000).perform()
    assert browser.text("#zoom") == "1 ×"
    ActionChains(browser.driver).scroll_from_origin(_origin(stage), 0, -2000).perform()
    assert browser.text("#zoom") != "1 ×"
    browser.keys(RIGHT)
    assert browser.text("#zoom") == "1 ×", "another source is shown whole"
    for _ in range(12):
        browser.find("#in").click()
    assert browser.text("#zoom") == "32 ×"
    assert browser.find("#in").get_attribute("disabled")


def _origin(element: Any) -> Any:
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    return ScrollOrigin.from_element(element)


def test_scores_are_held_against_their_thresholds(browser: Browser, run_folder: Made) -> None:
    browser.open(run_folder.page)
    for condition, word, count in (("fog", "below", 1), ("night", "at least", 0)):
        open_card(browser, "train/00", condition)
        assert f"({word} 0.2)" in browser.text("#facts")
        assert "registration" not in browser.text("#facts") or "(at most 3)" in browser.text("#facts")
        assert "(at least 0.02)" in browser.text("#facts"), "contrast"
        missed = browser.js("return [...document.querySelectorAll('#facts .bad')].map((e) => e.textContent)")
        assert sum(text.startswith("structure") for text in missed) == count
        close(browser)


def test_facts_of_an_image(browser: Browser, run_folder: Made) -> None:
    browser.open(run_folder.page)
    open_card(browser, "train/00", "fog")
    said = browser.text("#facts")
    job = next(job for job in run_folder.editor.made if job in said)
    for word in ("structure", "strength 0.6, steps", "seed", "tests/fake", f"diffgen reproduce {run_folder.out} {job}"):
        assert word in said
    assert browser.text("#verdict-text") == "rejected: structure"
    assert browser.text("#label-list").split() == ["car", "(lost)", *ROWS["detect"][0].split()]
    close(browser)
    open_card(browser, "torn", "night")
    assert "decode" in browser.text("#facts")
    assert browser.find("#reject").get_attribute("disabled")
    browser.keys("k")
    assert browser.text("#verdict-text") == "failed", "what failed to be made cannot be kept"
    browser.drain()  # the picture that does not decode


def test_by_keyboard_alone(browser: Browser, run_folder: Made) -> None:
    browser.open(run_folder.page)
    focused = "return document.activeElement.dataset.i ?? document.activeElement.id"
    browser.js("document.querySelector('.card').focus()")
    browser.keys(RIGHT)
    browser.keys(RIGHT)
    assert browser.js(focused) == "2"
    browser.keys(LEFT)
    browser.keys(DOWN)
    places = browser.js(
        "return cards().map((c) => [c.dataset.i, c.getBoundingClientRect().x, c.getBoundingClientRect().y])"
    )
    (_, x, y), below = places[1], {i: (x, y) for i, x, y in places}[browser.js(focused)]
    assert below[1] == min(line for _, _, line in places if line > y), "the next line"
    assert abs(below[0] - x) == min(abs(left - x) for _, left, line in places if line == below[1])
    browser.keys(UP)
    browser.keys(ENTER)
    browser.shown()
    titles = [browser.text("#title")]
    for key in (RIGHT, RIGHT, LEFT):
        browser.keys(key)
        titles.append(browser.text("#title"))
    assert len(set(titles)) == 3
    assert titles[1] == titles[3]
    close(browser)
    assert browser.js(focused) == "2", "the focus returns to the image that was shown last"
    assert len(browser.all('.card[tabindex="0"]')) == 1


# --- review


def download(browser: Browser, folder: Path) -> Path:
    """Press the button, and wait for the file."""
    browser.find("#save").click()
    name = browser.text("#honour").rpartition("/")[2]
    for _ in range(1200):
        if (folder / name).is_file() and (folder / name).stat().st_size:
            break
        browser.driver.execute_async_script("setTimeout(arguments[0], 50)")
    return folder / name


def in_sight(browser: Browser, selector: str) -> bool:
    """Whether an element's middle is what a person would press there."""
    return bool(
        browser.js(
            "const e = document.querySelector(arguments[0]), {x, y, width, height} = e.getBoundingClientRect();"
            "return e.contains(document.elementFromPoint(x + width / 2, y + height / 2))",
            selector,
        )
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_decisions_and_their_download_are_always_in_sight(browser: Browser, run_folder: Made, width: int) -> None:
    browser.open(run_folder.page, width=width, height=844)
    assert browser.text("#decided") == "No decisions yet"
    assert browser.find("#save").get_attribute("disabled")
    for place in ("0", "document.body.scrollHeight"):
        browser.js(f"scrollTo(0, {place})")
        assert in_sight(browser, "#save")
        assert in_sight(browser, "#decided")
    open_card(browser, "train/00", "night")
    browser.keys("r")
    assert in_sight(browser, "#save")
    assert browser.text("#decided") == "1 decision not exported yet"
    browser.js("dialog.scrollTo(0, dialog.scrollHeight)")
    assert in_sight(browser, "#save")
    close(browser)
    browser.js("scrollTo(0, 0)")
    assert in_sight(browser, "#save")


def test_the_bar_of_decisions_hides_nothing_that_has_the_focus(
    browser: Browser, run_folder: Made, tmp_path: Path
) -> None:
    browser.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.open(run_folder.page, width=390, height=600)
    press(browser, browser.find("#choose-all"))
    browser.find("#selection [data-word=reject]").click()
    download(browser, tmp_path)
    browser.js("scrollTo(0, 0); cards()[0].focus()")
    high = browser.js("return document.getElementById('review').offsetHeight")
    assert high > 150, "all that it can say"
    for _ in range(6):
        browser.keys(RIGHT)
        assert browser.js("return document.activeElement.getBoundingClientRect().bottom") <= 600 - high


def test_a_download_that_is_not_the_last_word_is_not_offered(
    browser: Browser, run_folder: Made, tmp_path: Path
) -> None:
    browser.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.open(run_folder.page)
    assert not browser.find("#then").is_displayed()
    browser.js("cards()[0].focus()")
    browser.keys("r")
    download(browser, tmp_path)
    assert browser.find("#then").is_displayed()
    browser.keys("u")
    browser.js("cards()[0].focus()")
    browser.keys("k")
    assert not browser.find("#then").is_displayed()


def test_many_are_selected_and_rejected_at_once(browser: Browser, run_folder: Made) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    browser.open(run_folder.page)
    assert not browser.find("#selection").is_displayed()
    choose(browser, "condition", "night")
    browser.find("#choose-all").click()
    assert browser.text("#chosen") == "5 selected"
    browser.find("#selection [data-word=reject]").click()
    assert sum("rejected by hand" in text for text in cards(browser)) == 4
    assert browser.text("#decided") == "4 decisions not exported yet", "what failed cannot be decided on"
    browser.find("#filters button[type=reset]").click()
    browser.wait("return cards().length === 10")
    assert sum("rejected by hand" in text for text in cards(browser)) == 4
    choose(browser, "condition", "fog")
    assert not browser.find("#selection").is_displayed(), "what no filter shows is not selected"
    boxes = browser.all(".row input")
    assert browser.js("return arguments[0].getAttribute('aria-label')", boxes[0]).startswith("select fog made of ")
    boxes[0].click()
    ActionChains(browser.driver).key_down("\ue008").click(boxes[3]).key_up("\ue008").perform()
    assert browser.text("#chosen") == "4 selected", "Shift selects all up to it"
    boxes[1].click()
    assert browser.js("return [...chosen].length") == 3
    browser.js("cards()[4].focus()")
    browser.keys("x")
    assert browser.text("#chosen") == "4 selected"
    browser.keys("k")
    made = browser.js("return [...chosen].filter((i) => !failed(i)).length")
    assert sum("kept by hand" in text for text in cards(browser)) == made >= 3
    browser.js("cards()[1].focus()")
    browser.keys("r")
    assert sum("kept by hand" in text for text in cards(browser)) == made, "a key on another image is about that one"
    browser.find("#choose-none").click()
    assert not browser.find("#selection").is_displayed()


def test_a_review_goes_through_the_export(browser: Browser, cli: Callable[..., Any], tmp_path: Path) -> None:
    made = make_run(tmp_path)
    browser.open(made.page)
    night = made.job("night", "train/00")
    browser.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    open_card(browser, "train/00", "night")
    browser.keys("r")
    assert browser.text("#verdict-text") == "accepted; rejected by hand"
    browser.keys(RIGHT)
    browser.keys("k")
    assert browser.text("#verdict-text") == "rejected: structure; kept by hand"
    browser.keys(RIGHT)
    browser.keys("r")
    browser.keys("u")
    close(browser)
    assert browser.text("#decided") == "2 decisions not exported yet"
    choose(browser, "verdict", "decided")
    assert len(cards(browser)) == 2
    browser.reload()
    assert browser.text("#decided") == "2 decisions not exported yet", "they outlive the tab"
    given = download(browser, tmp_path)
    assert given.read_text().startswith("# ")
    command = f"diffgen export {made.out} --review ~/Downloads/{given.name}"
    assert browser.text("#honour") == command, "where the browser puts it"
    answer = cli("export", made.out, "--review", given)
    assert answer.code == 0, answer.err
    summary = status(load_recipe(made.out))
    assert (summary.accepted, summary.rejected) == (4, {"review": 1, "structure": 3})
    assert night not in (made.out / "dataset/manifest.jsonl").read_text()
    browser.reload()
    assert browser.text("#decided") == "2 decisions, exported"
    assert sum("\nrejected by hand" in text for text in cards(browser)) == 1
    browser.js("document.querySelector('.card').focus()")
    browser.keys("u")
    assert browser.text("#decided") == "1 decision not exported yet", "what the run folder holds can be taken back"


def test_decisions_without_storage_last_as_long_as_the_page(browser: Browser, run_folder: Made) -> None:
    gone = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
    script = browser.cdp("Page.addScriptToEvaluateOnNewDocument", source=gone)["identifier"]
    try:
        browser.open(run_folder.page)
        browser.js("document.querySelector('.card').focus()")
        browser.keys("r")
        assert "rejected by hand" in cards(browser)[0]
        browser.find("#theme").click()
        assert browser.js("return document.documentElement.dataset.theme") == "dark"
        browser.reload()
        assert "rejected by hand" not in cards(browser)[0]
    finally:
        browser.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


# --- looks


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2) of a computed `rgb(r, g, b)`."""
    channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_be_read(browser: Browser, run_folder: Made, scheme: str) -> None:
    browser.open(run_folder.page, scheme=scheme)
    paper = browser.js("return getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    pairs = browser.js(
        "const back = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;"
        "if (c !== 'rgba(0, 0, 0, 0)') return c; } };"
        "return [...document.querySelectorAll('main *, header *')].filter((e) => e.checkVisibility() && !e.disabled &&"
        "[...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())).map((e) => [getComputedStyle(e).color, back(e), e.outerHTML.slice(0, 80)])"
    )
    assert len(pairs) > 50
    for ink, ground, what in pairs:
        high, low = sorted((luminance(ink), luminance(ground)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, what
    browser.find("#theme").click()
    assert browser.js("return getComputedStyle(document.body).backgroundColor") != paper
    browser.reload()
    assert browser.js("return getComputedStyle(document.body).backgroundColor") != paper, "the choice is kept"


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_runs_out_of_the_page(browser: Browser, run_folder: Made, width: int) -> None:
    browser.open(run_folder.page, width=width, height=844)
    browser.js("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.js("return document.documentElement.scrollWidth") <= width
    open_card(browser, "train/00", "night")
    assert (
        browser.js("return dialog.scrollWidth <= dialog.clientWidth && dialog.getBoundingClientRect().width") <= width
    )


def test_controls_have_names(browser: Browser, run_folder: Made) -> None:
    browser.open(run_folder.page)
    open_card(browser, "train/00", "night")
    names = browser.js(
        "return [...document.querySelectorAll('button, input, select')].map((c) =>"
        "(c.getAttribute('aria-label') || c.textContent.trim() || [...(c.labels ?? [])].map((l) => l.textContent.trim()).join(' ')))"
    )
    assert len(names) > 15
    assert all(names)
    assert all(
        browser.js("return [...document.querySelectorAll('svg.histogram')].map((s) => s.getAttribute('aria-label'))")
    )


# --- large runs


def test_five_thousand_images_open_and_can_be_gone_through(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "out"
    image = save(tmp_path / "one.jpg", photo(1))
    sources = tuple(source(i, path=str(image), label=f"{ROWS['detect'][0]}\n".encode()) for i in range(2500))
    sources += (source(9999, split="val", path=str(image)),)
    dataset = Dataset(tmp_path, ("car", "person"), {}, sources)
    loaded = load_recipe(write_recipe(tmp_path / "r.yaml", tmp_path / "data.yaml", out))
    plan = plan_jobs(loaded.recipe, dataset, model())
    facts = {
        "contrast": 0.2,
        "shift_px": 0.1,
        "shift_peak": 0.5,
        "structure": [0.8],
        "sides_px": [15.0],
        "structure_image": 0.7,
    }
    records = {}
    for n, item in enumerate(plan.items):
        records[item.job.id] = Record(item.job.id, "made", {**facts, "structure": [round(n / 5000, 3)]}, sha256="0")
        place = out / f"images/{item.job.id[:2]}/{item.job.id}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(image, place)
    put(out / "recipe.yaml", loaded.to_yaml(out))
    outcome = Outcome.of(out, loaded.recipe, plan, {}, records)
    assert sum(judge(r, loaded.recipe.checks).accepted for r in records.values()) == sum(
        e.accepted for e in outcome.entries
    )
    write_report(outcome, summarise(outcome).to_dict(), {})
    browser.open(out / "report.html")
    assert browser.text("#count") == "5000 of 5000 images, page 1 of 105"
    assert len(browser.all("#gallery li")) == 24
    assert len(browser.all(".card")) == 48
    browser.js("window.scrollTo(0, document.body.scrollHeight)")
    assert browser.wait("return scrollY > 500")
    browser.js("const p = document.getElementById('page'); p.value = 105; p.dispatchEvent(new Event('change'))")
    assert len(browser.all(".card")) == 5000 - 104 * 48
    browser.find("#back").click()
    open_card(browser, "train/")
    for _ in range(48):
        browser.keys(RIGHT)
    close(browser)
    assert browser.text("#count").endswith("page 105 of 105"), "the gallery follows what was shown"
    choose(browser, "least", "0.9")
    assert browser.text("#count").startswith(f"{sum(r.facts['structure'][0] >= 0.9 for r in records.values())} of 5000")
    choose(browser, "search", "0000")
    assert len(browser.all(".card")) < 48
    choose(browser, "search", "")
    choose(browser, "least", "")
    choose(browser, "sort", "-1")
    assert "structure 1" in cards(browser)[0]
    browser.find("#choose-all").click()
    browser.find("#selection [data-word=reject]").click()
    assert browser.text("#decided") == "5000 decisions not exported yet"


def test_keypoints_are_dots(browser: Browser, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(2, 1), kind="pose", size=SIZE)
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"), keypoints=(2, 3))
    browser.open(tmp_path / "out/report.html")
    open_card(browser, "train/01", "night")
    drawn = browser.js(
        "return [...document.querySelectorAll('#overlay circle')].map((c) => [+c.getAttribute('cx'), +c.getAttribute('cy')])"
    )
    seen = [(0.2, 0.3), (0.4, 0.5), (0.7, 0.6)]  # the fourth is not marked as seen
    assert np.allclose(drawn, np.array(seen) * SIZE)
    assert len(browser.all("#overlay polygon.line")) == 2
    dots = browser.js(
        "const s = document.getElementById('stage').getBoundingClientRect();"
        "return [...document.querySelectorAll('#overlay circle')].map((c) => c.getBoundingClientRect()).map((r) => "
        "[(r.x + r.width / 2 - s.x) / s.width, (r.y + r.height / 2 - s.y) / s.height, r.width])"
    )
    assert np.allclose([dot[:2] for dot in dots], seen, atol=0.01)
    assert all(4 <= dot[2] <= 10 for dot in dots)


def test_inserted_and_removed_objects_are_drawn_as_the_label_file_says(browser: Browser, tmp_path: Path) -> None:
    """What was inserted has a box, a line in the list and a place in the filter; what was removed is a broken line."""
    work(tmp_path, INSERT, name="with")
    work(tmp_path, {key: value for key, value in REMOVE.items() if key != "classes"}, name="without")
    browser.open(tmp_path / "with/report.html")
    choose(browser, "class", "1")
    assert len(cards(browser)) == len(manifest(tmp_path, "with"))
    browser.all(".card")[0].click()
    browser.shown()
    row = manifest(tmp_path, "with")[0]["added_rows"][0]
    x, y, w, h = (float(number) for number in row.split()[1:])
    (*_, last) = browser.js(
        "return [...document.querySelectorAll('#overlay polygon.line')].map((p) => [...p.points].map((q) => [q.x, q.y]))"
    )
    assert np.allclose(np.array(last)[[0, 2]] / (160, 96), [[x - w / 2, y - h / 2], [x + w / 2, y + h / 2]], atol=1e-3)
    assert "person (label added)" in browser.text("#label-list li:last-child")
    assert browser.js("return document.querySelector('#overlay polygon.dropped')") is None
    browser.open(tmp_path / "without/report.html")
    browser.all(".card")[0].click()
    browser.shown()
    assert not browser.all("#overlay polygon.line:not(.dropped)")
    assert "(label removed)" in browser.text("#label-list")


def test_what_became_of_a_labelled_object_is_said(browser: Browser, tmp_path: Path) -> None:
    lossy(tmp_path, "kept", objects={"restore": 0.5})
    browser.open(tmp_path / "kept/report.html")
    browser.all(".card")[0].click()
    browser.shown()
    lines = browser.all("#label-list li")
    assert "(restored)" in lines[0].text
    assert "(" not in lines[1].text
