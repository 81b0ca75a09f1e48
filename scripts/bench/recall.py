"""How well the recall check tells lost objects from a detector's flicker, by the confidence that counts as found again.

    python -m scripts.bench.recall --frames driving/day --detector yolo11n.pt --limit 24

Of what the detector finds in each frame with `detections.CONFIDENT` or more, the share that it finds again from each floor
on: in copies that lost nothing a label is about (JPEGs, noise, the embedded model's round trip: should be 1), and, of every
third object, where those were painted over, blurred away, or everything was moved or mirrored (should be 0).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from diffgen.checks.detections import CONFIDENT, FOUND_AGAIN, Detection, confident, match, relative_recall
from diffgen.checks.detectors.ultralytics import load_detector
from diffgen.dataset.images import Pixels
from scripts.docs.tables import measured, write_table
from scripts.pocket.check import Editor, picture
from scripts.pocket.check_scenes import as_jpeg, images_below, load, pixels_of

FLOORS = (0.25, 0.2, 0.15, 0.125, 0.1, 0.05)
EVERY = 3
SIZES = (8, 12, 16, 24, 32, 96)  # px, square root of an object's area
ROUND_TRIP = "pocket's round trip"
PAGE = Path("docs/fidelity.md")
MOVED = 0.04  # of the width

Paint = Callable[[Pixels, tuple[int, int, int, int]], Pixels]


def emptied(pixels: Pixels, box: tuple[int, int, int, int]) -> Pixels:
    """Upper and lower border of the box, as what to paint it with: their mean colour."""
    x0, y0, x1, y1 = box
    return np.concatenate([pixels[max(0, y0 - 2) : y0 + 1, x0:x1], pixels[y1 - 1 : y1 + 2, x0:x1]]).mean((0, 1))


def blurred(pixels: Pixels, box: tuple[int, int, int, int]) -> Pixels:
    x0, y0, x1, y1 = box
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(12)))[y0:y1, x0:x1]


def without(pixels: Pixels, objects: Sequence[Detection], paint: Paint) -> Pixels:
    """A copy in which `objects` are painted over."""
    copy = pixels.copy()
    height, width = pixels.shape[:2]
    for found in objects:
        x0, y0, x1, y1 = (round(v) for v in np.array(found.box) * (width, height, width, height))
        copy[y0:y1, x0:x1] = paint(pixels, (x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)))
    return copy


def versions(image: torch.Tensor, chosen: Sequence[Detection], edit: Editor) -> dict[str, Pixels]:
    pixels = pixels_of(image)
    noise = np.random.default_rng(0).normal(0, 2, pixels.shape)
    return {
        **{f"JPEG {quality}": pixels_of(as_jpeg(image, quality)) for quality in (95, 90, 75)},
        "noise of 2 grey levels": (pixels + noise).round().clip(0, 255).astype(np.uint8),
        ROUND_TRIP: pixels_of(edit.round_trip(image)),
        "painted over *": without(pixels, chosen, emptied),
        "blurred away *": without(pixels, chosen, blurred),
        "moved *": np.roll(pixels, round(MOVED * pixels.shape[1]), 1),
        "mirrored *": pixels[:, ::-1].copy(),
    }


def floors_table(hits: dict[str, dict[float, list[bool]]]) -> str:
    """Markdown: a row for each version of the frames, by the confidence that counts as found again."""
    lines = [f"| | {' | '.join(f'{floor:g}' for floor in FLOORS)} |", "|---|" + "---|" * len(FLOORS)]
    for name, row in hits.items():
        shown = name.replace(" *", f", every third ({len(row[FOUND_AGAIN])})")
        cells = [f"**{np.mean(row[f]):.2f}**" if f == FOUND_AGAIN else f"{np.mean(row[f]):.2f}" for f in FLOORS]
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sizes_table(sides: Sequence[float], found: Sequence[bool]) -> str:
    """Markdown: of the objects of each size, how many are found again after the round trip."""
    lines = ["| px at the working size | objects | found again |", "|---|---|---|"]
    for low, high in zip((0, *SIZES), (*SIZES, None), strict=True):
        these = [hit for side, hit in zip(sides, found, strict=True) if low <= side and (high is None or side < high)]
        if these:
            lines.append(f"| {f'{low}–{high}' if high else f'over {low}'} | {len(these)} | {np.mean(these):.2f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--detector", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=Path("diffgen/models/pocket"))
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--long-side", type=int, default=640)
    parser.add_argument("--write", action="store_true", help="the tables into docs/fidelity.md")
    args = parser.parse_args(argv)
    torch.set_num_threads(2)
    detect, edit = load_detector(args.detector, "cpu", confidence=min(FLOORS)), Editor(args.model)
    hits: dict[str, dict[float, list[bool]]] = {}
    sides: list[float] = []
    for path in images_below(args.frames, args.limit):
        image = picture(load(path), args.long_side)
        reference = confident(detect([pixels_of(image)])[0])
        height, width = image.shape[1:]
        sides += relative_recall(reference, [], (width, height))["found_px"]
        for name, version in versions(image, reference[::EVERY], edit).items():
            (made,) = detect([version])
            for floor in FLOORS:
                found = match(reference, [box for box in made if box.score >= floor])
                chosen = found[::EVERY] if name.endswith("*") else found
                hits.setdefault(name, {}).setdefault(floor, []).extend(chosen)
    again = floors_table(hits)
    small = sizes_table(sides, hits[ROUND_TRIP][FOUND_AGAIN])
    print(f"{again}\n\n{small}")
    if args.write:
        about = measured(
            f"{args.limit} frames at {args.long_side} px, {args.detector.stem}; objects of {CONFIDENT} or more"
        )
        write_table(PAGE, "found again", f"{again}\n\n{about}", "scripts.bench.recall")
        write_table(PAGE, "small objects", f"{small}\n\n{about}", "scripts.bench.recall")
    return 0


if __name__ == "__main__":
    sys.exit(main())
