"""How far pocket models are from their teacher, on photographs that they were not trained on and on some that they were.

    python -m scripts.pocket.check_fit --photos photos/ --sources photos/sources.tsv --licence "CC BY" \\
        --marks scripts/pocket/marks.jsonl --model diffgen/models/pocket --model .train/model

Mean |model - renderer| (0-255) by condition, from the same noise, severity 65. Only marked photographs count: the
renderer has to know where sky and ground are. Equal distances on both halves mean that more can be learned; different
ones, that the trained-on half was learned by heart.
Below it, of the lamps and windows that the renderer lights by night, the share that shine: their light is at least half of
the renderer's; and the share of the picture, in thousandths, that is bright where the renderer has no light near.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from scripts.pocket.check import Editor, picture, taught
from scripts.pocket.conditions import TEXTS
from scripts.pocket.maps import MAP_NAMES, make_maps
from scripts.pocket.marks import LIGHTS, Mark, load_marks
from scripts.pocket.photos import Photo, list_photos, load_photos, split_photos, spread

SEVERITY = 65
LIT = 0.1  # of 0..1: what the renderer makes brighter by as much, in the brightest channel, is lit
STRAY = 0.3  # brighter than anything that the renderer has within STRAY_PX
STRAY_PX = 17


def distances(photos: list[Photo], marks: dict[str, Mark], edits: list[Editor], long_side: int) -> torch.Tensor:
    """(models, conditions): mean over the photographs, in grey levels of 255."""
    sums = torch.zeros(len(edits), len(TEXTS))
    for photo in photos:
        image = picture(photo, long_side)
        maps = make_maps(image, marks[photo.name])
        for k, (name, text) in enumerate(TEXTS.items()):
            target = taught(image, maps, name, SEVERITY)
            for i, edit in enumerate(edits):
                sums[i, k] += (edit(image, f"{text}, severity {SEVERITY}") - target).abs().mean() * 255
    return sums / len(photos)


def lights(
    photos: list[Photo], marks: dict[str, Mark], edits: list[Editor], long_side: int
) -> tuple[np.ndarray, np.ndarray]:
    """(how many lights of each kind the renderer lights (kinds,); by model how many of them shine and, last, what is bright
    where it should not be, as a share of all pixels (models, kinds + 1))."""
    lit, shine = np.zeros(len(LIGHTS)), np.zeros((len(edits), len(LIGHTS) + 1))
    kinds = [MAP_NAMES.index(kind) for kind in LIGHTS]
    for photo in photos:
        image = picture(photo, long_side)
        maps = make_maps(image, marks[photo.name])
        dark = maps.clone()
        dark[kinds] = 0
        base, target = (taught(image, planes, "night", SEVERITY).amax(0) for planes in (dark, maps))
        near = F.max_pool2d(target[None], STRAY_PX, 1, STRAY_PX // 2)[0]
        made = [edit(image, f"{TEXTS['night']}, severity {SEVERITY}").amax(0) for edit in edits]
        for i, night in enumerate(made):
            shine[i, -1] += float((night > near + STRAY).float().mean()) / len(photos)
        for k, kind in enumerate(kinds):
            count, labels = cv2.connectedComponents((maps[kind].numpy() > 0.5).astype(np.uint8), connectivity=4)
            for j in range(1, count):
                there = torch.from_numpy(labels == j)
                gain = float((target - base)[there].mean())
                if gain > LIT:
                    lit[k] += 1
                    shine[:, k] += [float((night - base)[there].mean()) > gain / 2 for night in made]
    return lit, shine


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument("--sources", type=Path)
    parser.add_argument("--licence")
    parser.add_argument("--marks", type=Path, required=True)
    parser.add_argument("--model", type=Path, action="append", required=True, help="may be given more than once")
    parser.add_argument("--count", type=int, default=20, help="photographs of each half")
    parser.add_argument("--long-side", type=int, default=448)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        marks, _ = load_marks(args.marks)
    except (OSError, ValueError) as error:
        parser.error(f"--marks: {error}")
    train, held = split_photos(load_photos(list_photos(args.photos, args.sources, args.licence)))
    edits = [Editor(model) for model in args.model]
    halves = []
    for half, photos in (("held out", held), ("trained on", train)):
        some = spread([photo for photo in photos if photo.name in marks], args.count)
        if not some:
            parser.error(f"{args.marks} has no mark of a photograph {half}")
        halves.append((f"{half:11}{len(some):3}", some))
    print(f"{'':28}" + " ".join(f"{name:>8}" for name in TEXTS) + "     mean")
    for half, some in halves:
        for model, row in zip(args.model, distances(some, marks, edits, args.long_side), strict=True):
            cells = " ".join(f"{value:8.1f}" for value in [*row.tolist(), row.mean().item()])
            print(f"{half} {str(model)[-12:]:12} {cells}")
    print(f"{'':28}" + " ".join(f"{kind:>14}" for kind in LIGHTS) + "   stray, ‰")
    for half, some in halves:
        lit, shine = lights(some, marks, edits, args.long_side)
        for model, row in zip(args.model, shine, strict=True):
            shares = [f"{hits:.0f} of {all:.0f}" for hits, all in zip(row[:-1], lit, strict=True)]
            cells = " ".join(f"{share:>14}" for share in shares)
            print(f"{half} {str(model)[-12:]:12} {cells}{1000 * row[-1]:11.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
