"""Numbered pictures of the pocket model without names, for judging by eye; the key is a file of its own.

    python -m scripts.pocket.blind_look --frames driving/day --photos photos/ \\
        --sources photos/sources.tsv --licence "CC BY" --out look

Writes `sheet1.png` … with 12 numbered pictures each, and `key.json`, which is not to be opened before the answers are
written down. Half of the pictures are made of `--frames`, half of held-out photographs; those that `--marks` leaves out, of
nights and halls and the like, are no sources.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from scripts.pocket.check import Editor, picture
from scripts.pocket.check_scenes import images_below, load
from scripts.pocket.conditions import TEXTS
from scripts.pocket.marks import load_marks
from scripts.pocket.photos import list_photos, load_photos, split_photos

ON_A_SHEET, COLUMNS = 12, 3
TILE = (512, 320)  # (width, height)


def tile(image: torch.Tensor, number: int) -> Image.Image:
    """The picture fitted into TILE, on grey, with its number."""
    scale = min(TILE[0] / image.shape[2], TILE[1] / image.shape[1])
    size = (round(image.shape[1] * scale), round(image.shape[2] * scale))
    small = F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
    pixels = (small.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    canvas = Image.new("RGB", (TILE[0] + 4, TILE[1] + 22), (128, 128, 128))
    canvas.paste(Image.fromarray(pixels), ((TILE[0] - size[1]) // 2, 20))
    ImageDraw.Draw(canvas).text((4, 2), str(number), fill="white", font=ImageFont.load_default(size=16))
    return canvas


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument("--sources", type=Path)
    parser.add_argument("--licence")
    parser.add_argument("--marks", type=Path)
    parser.add_argument("--model", type=Path, default=Path("diffgen/models/pocket"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--severity", type=int, default=65)
    parser.add_argument("--long-side", type=int, default=640)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(2)
    rng = np.random.default_rng(args.seed)
    _, held = split_photos(load_photos(list_photos(args.photos, args.sources, args.licence)))
    _, left_out = load_marks(args.marks)
    held = [photo for photo in held if photo.name not in left_out]
    half = args.count // 2
    sources = [load(path) for path in images_below(args.frames, half)]
    sources += [held[i % len(held)] for i in range(args.count - half)]
    names = [list(TEXTS)[i % len(TEXTS)] for i in range(args.count)]
    order, kinds = rng.permutation(args.count), rng.permutation(args.count)
    edit = Editor(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    key, tiles = {}, []
    for number, (i, k) in enumerate(zip(order, kinds, strict=True), 1):
        image = picture(sources[i], args.long_side)
        tiles.append(tile(edit(image, f"{TEXTS[names[k]]}, severity {args.severity}", seed=number), number))
        key[number] = names[k]
    for page in range(0, args.count, ON_A_SHEET):
        some = tiles[page : page + ON_A_SHEET]
        width, height = some[0].size
        sheet = Image.new("RGB", (COLUMNS * width, -(-len(some) // COLUMNS) * height), (128, 128, 128))
        for j, one in enumerate(some):
            sheet.paste(one, (j % COLUMNS * width, j // COLUMNS * height))
        sheet.save(args.out / f"sheet{page // ON_A_SHEET + 1}.png")
    (args.out / "key.json").write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
