"""Train the embedded model `pocket` from a folder of photographs, and export it as a diffusers folder.

    python -m scripts.pocket.train --photos photos/ --sources photos/sources.tsv --licence "CC BY" \\
        --work .train --out diffgen/models/pocket --minutes-vae 28 --minutes-unet 70

Stages: maps of each photograph, autoencoder, denoiser, export, evaluate. Every stage continues where it was
stopped. `--stage export` writes the newest checkpoint while another process is still training.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from scripts.pocket.check import check
from scripts.pocket.conditions import TEXTS
from scripts.pocket.export import export, start_from
from scripts.pocket.marks import Mark, load_marks
from scripts.pocket.pairs import map_photos
from scripts.pocket.photos import Photo, count_licences, list_photos, load_photos, say, split_photos, spread
from scripts.pocket.training import Budget, Mismatch
from scripts.pocket.unet import Settings, train_unet
from scripts.pocket.vae import train_vae

STAGES = ("maps", "vae", "unet", "export", "evaluate")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="folders of photographs")
    parser.add_argument("--sources", type=Path, help="table (tab-separated) with the columns file and licence")
    parser.add_argument("--licence", help="use only this licence, any version, e.g. 'CC BY' (never share-alike)")
    parser.add_argument(
        "--marks", type=Path, help="photographs to leave out; sky, ground and things of others (JSON lines)"
    )
    parser.add_argument("--work", type=Path, default=Path(".train"), help="checkpoints and caches")
    parser.add_argument(
        "--start", type=Path, help="exported folder to go on from, such as diffgen/models/pocket; else from nothing"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=TEXTS,
        help="conditions to teach; the others stay as --keep paints them",
    )
    parser.add_argument("--keep", type=Path, help="exported folder, by default that of --start; for --only")
    parser.add_argument("--out", type=Path, default=Path("diffgen/models/pocket"), help="diffusers folder to write")
    parser.add_argument(
        "--conditions", type=Path, default=Path("diffgen/recipe/conditions.yaml"), help="texts to train on as well"
    )
    parser.add_argument("--minutes-vae", type=float, default=28)
    parser.add_argument("--minutes-unet", type=float, default=70)
    parser.add_argument("--stage", choices=("all", *STAGES), default="all")
    parser.add_argument("--checkpoint-seconds", type=float, default=120)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--bfloat16", action="store_true", help="half as many steps again, where the device computes in it"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 2, help="all cores by default")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.keep = args.keep or args.start if args.only else None
    for option, model in (("--start", args.start), ("--keep", args.keep)):
        if model and not (model / "model_index.json").is_file():
            parser.error(f"{option} {model}: no exported model is there (no model_index.json)")
    if args.only and not args.keep:
        parser.error("--only: give --start or --keep, the model as which the other conditions stay")
    return args


def cpu_has_bfloat16() -> bool:
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def bfloat16(args: argparse.Namespace) -> bool:
    """Whether to compute in bfloat16: asked for, and not on a CPU without it, where a step would take 30 times as long."""
    if args.bfloat16 and args.device == "cpu" and not cpu_has_bfloat16():
        say("--bfloat16: this CPU does not compute in it; float32 instead")
        return False
    return args.bfloat16


def train_stages(
    args: argparse.Namespace, train: list[Photo], held: list[Photo], scenes: list[Photo], marks: dict[str, Mark]
) -> None:
    """The stages that write `--work` and `--out`; `scenes`: the photographs of `train` that the denoiser learns from."""
    if args.start:
        start_from(args.start, args.work)
    if args.stage in ("all", "maps", "unet"):
        maps = map_photos(scenes, marks, args.work, say)
    if args.stage in ("all", "vae"):
        budget = Budget(args.minutes_vae, args.checkpoint_seconds, args.device, args.seed)
        train_vae(train, held, args.work, budget, say)
    if args.stage in ("all", "unet"):
        budget = Budget(args.minutes_unet, args.checkpoint_seconds, args.device, args.seed)
        settings = Settings(budget, bfloat16(args), args.conditions, frozenset(args.only), args.keep)
        train_unet(scenes, maps, args.work, settings, say)
    if args.stage in ("all", "export"):
        export(args.work, args.out, args.conditions, say)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    try:
        photos = load_photos(list_photos(args.photos, args.sources, args.licence))
        marks, left_out = load_marks(args.marks)
    except (OSError, ValueError) as error:
        say(str(error))
        return 1
    if len(photos) < 20:
        say(f"{', '.join(map(str, args.photos))}: {len(photos)} usable photographs; at least 20 are needed")
        return 1
    train, held = split_photos(photos)
    say(f"{len(train)} photographs to train on, {len(held)} held out ({count_licences(photos)})")
    scenes = [photo for photo in train if photo.name not in left_out]
    if len(scenes) < len(train):
        say(f"the denoiser learns from {len(scenes)} of them")
    try:
        train_stages(args, train, held, scenes, marks)
    except Mismatch as error:
        say(str(error))
        return 1
    if args.stage in ("all", "evaluate"):
        long_side = min(512, max(max(photo.pixels.shape) for photo in held))
        check(args.out, spread(held, 8), long_side, args.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
