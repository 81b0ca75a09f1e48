"""How long report.html takes to be written, and to be seen, by the number of its images.

    python -m scripts.bench.report --images 5000 --write

Two conditions over sources of 1280 × 720 with 20 labels each; the pictures are hard links to three (a file system may allow
65,000 of one). Needs the commands chromium and chromedriver. Times in the browser are medians of five loads: first paint,
and the gallery with its filters.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffgen.files import image_path
from diffgen.output.outcome import Outcome
from diffgen.output.report.page import NAME, write_report
from diffgen.recipe.load import load_recipe
from diffgen.run.session import Session
from diffgen.run.summary import summarise
from diffgen.types import Record
from scripts.docs.report_picture import chromium
from scripts.docs.tables import measured, write_table

RECIPE = """
dataset: data.yaml
output: out
model: {hub: bench/none, revision: "0000000000000000000000000000000000000000", native: 512, multiple: 8}
editor: instruct
conditions: [{night: {skip_if: []}}, {fog: {skip_if: []}}]
"""
LOADS = 5
SEEN = """
const [page] = performance.getEntriesByType('navigation');
const paint = performance.getEntriesByName('first-contentful-paint')[0];
return document.querySelectorAll('.card').length && paint ? [paint.startTime, page.domInteractive] : null;
"""


def make(folder: Path, images: int) -> Outcome:
    """A judged run of so many images, with the files that its page links to."""
    rng = np.random.default_rng(0)
    for name in ("train", "val", "made"):  # a file in two splits would not be edited
        noise = Image.fromarray(rng.integers(0, 255, (90, 160, 3), dtype=np.uint8)).resize((1280, 720))
        noise.save(folder / f"{name}.jpg", quality=95)
    for split, count in (("train", images // 2), ("val", 1)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for i in range(count):
            os.link(folder / f"{split}.jpg", folder / f"images/{split}/{i:06}.jpg")
            boxes = rng.uniform((0.1, 0.1, 0.005, 0.005), (0.9, 0.9, 0.2, 0.2), (20, 4)).round(6)
            rows = (f"{n % 2} {' '.join(map(str, box))}\n" for n, box in enumerate(boxes))
            (folder / f"labels/{split}/{i:06}.txt").write_text("".join(rows))
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [car, person]\n")
    (folder / "recipe.yaml").write_text(RECIPE)
    session = Session.open(load_recipe(folder / "recipe.yaml"))
    session.folder.mkdir()
    session.write_recipe()
    records = {}
    for item in session.plan.items:
        facts = {"contrast": 0.2, "shift_px": 0.1, "shift_peak": 0.5, "structure_image": 0.7, "sides_px": [31.5] * 20}
        facts["structure"] = rng.uniform(0, 0.8, 20).round(3).tolist()
        records[item.job.id] = Record(item.job.id, "made", facts, sha256="0" * 64)
        place = image_path(session.folder, item.job.id, "jpg")
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / "made.jpg", place)
    assert len(records) == images, "the pictures are not what a plan edits"
    return Outcome.of(session.folder, session.recipe, session.plan, {}, records)


def seen(driver: Any, page: Path) -> tuple[float, float]:
    """Seconds until the first paint, and until the gallery can be used."""
    loads = []
    for _ in range(LOADS):
        driver.get("about:blank")
        driver.get(page.as_uri())
        while (times := driver.execute_script(SEEN)) is None:
            time.sleep(0.05)
        loads.append(times)
    paint, ready = (statistics.median(times) / 1000 for times in zip(*loads, strict=True))
    return paint, ready


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, action="append")
    parser.add_argument("--write", action="store_true", help="the table into docs/performance.md")
    args = parser.parse_args()
    lines = ["| images | MB | written, s | first paint, s | gallery, s |", "|---|---|---|---|---|"]
    driver = chromium()
    try:
        for count in args.images or [5000]:
            with tempfile.TemporaryDirectory() as name:
                outcome = make(Path(name), count)
                started = time.perf_counter()
                write_report(outcome, summarise(outcome).to_dict(), {})
                spent, page = time.perf_counter() - started, outcome.folder / NAME
                paint, ready = seen(driver, page)
                megabytes = page.stat().st_size / 1e6
                lines.append(
                    f"| {len(outcome.entries):,} | {megabytes:.1f} | {spent:.1f} | {paint:.2f} | {ready:.2f} |"
                )
            print(lines[-1])
    finally:
        driver.quit()
    if args.write:
        table = "\n".join([*lines, "", measured("two conditions, 20 labels a source, headless Chromium from disk")])
        write_table(Path("docs/performance.md"), "report", table, "scripts.bench.report")


if __name__ == "__main__":
    main()
