"""How far pocket models are from their teacher, on photographs that they were not trained on and on some that they were.

    python scripts/check_pocket_fit.py --photos photos/ --sources photos/sources.tsv --licence "CC BY" \\
        --marks scripts/pocket_marks.jsonl --model diffgen/pocket --model .train/model

Mean |model - renderer| (0-255) by condition, from the same noise, severity 65. Only marked photographs count: the renderer
has to know where sky and ground are. What is alike on both halves is not learned yet; what is apart was learned by heart.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from check_pocket import TEXTS, Editor, picture, taught
from pocket_maps import make_maps
from pocket_marks import Mark, load_marks
from pocket_photos import Photo, list_photos, load_photos, split_photos, spread

SEVERITY = 65


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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
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
    print(f"{'':28}" + " ".join(f"{name:>8}" for name in TEXTS) + "     mean")
    for half, photos in (("held out", held), ("trained on", train)):
        marked = [photo for photo in photos if photo.name in marks]
        some = spread(marked, args.count)
        if not some:
            parser.error(f"{args.marks} has no mark of a photograph {half}")
        for model, row in zip(args.model, distances(some, marks, edits, args.long_side), strict=True):
            cells = " ".join(f"{value:8.1f}" for value in [*row.tolist(), row.mean().item()])
            print(f"{half:11}{len(some):3} {str(model)[-12:]:12} {cells}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
