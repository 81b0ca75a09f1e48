"""Measure an exported pocket model on held-out photographs; the figures of docs/pocket.md come from here.

    python -m scripts.pocket.check --photos photos/ --sources photos/sources.tsv --licence "CC BY"

Prints a table: round trip, seconds per picture, how far each condition moves the picture at five severities and whether
that grows, how much of the picture the seed decides, and how well edges stay where they were. `--sheet` writes a picture.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from diffusers.utils import logging
from PIL import Image
from torchvision.transforms.functional import to_pil_image, to_tensor

from scripts.pocket.conditions import TEXTS
from scripts.pocket.model import LATENT_CHANNELS
from scripts.pocket.photos import Photo, list_photos, load_photos, split_photos, spread
from scripts.pocket.render import render

LEVELS = (5, 35, 65, 85, 100)
TIMED = ((512, 512, 1), (1024, 576, 1), (1280, 736, 1), (512, 512, 2), (512, 512, 4))  # (width, height, steps)


def picture(photo: Photo, long_side: int) -> torch.Tensor:
    """(3, H, W) in 0..1, sides multiples of 32, long side about `long_side`."""
    image = photo.pixels[None].float() / 255
    scale = long_side / max(image.shape[-2:])
    size = [max(32, round(n * scale / 32) * 32) for n in image.shape[-2:]]
    return F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)


class Editor:
    """An exported model as a function: picture (3, H, W) in 0..1, text -> picture."""

    def __init__(self, model: Path) -> None:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.pipe = DiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32)
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.unet.to(memory_format=torch.channels_last)
        self.pipe.vae.to(memory_format=torch.channels_last)

    def __call__(self, image: torch.Tensor, text: str, seed: int = 0, steps: int = 1) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        made = self.pipe(
            text, image=to_pil_image(image), num_inference_steps=steps, guidance_scale=1.0, generator=generator
        )
        return to_tensor(made.images[0])

    def round_trip(self, image: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            latents = self.pipe.vae.encode(image[None] * 2 - 1).latents
            return (self.pipe.vae.decode(latents).sample[0] * 0.5 + 0.5).clamp(0, 1)


def taught(image: torch.Tensor, maps: torch.Tensor, condition: str, severity: int) -> torch.Tensor:
    """What the renderer makes of the picture (3, H, W) from the noise that Editor draws for seed 0."""
    size = image.shape[1] // 4, image.shape[2] // 4
    noise = torch.randn(LATENT_CHANNELS, *size, generator=torch.Generator().manual_seed(0))
    return render(condition, image, maps, severity / 100, noise)[0]


def edge_agreement(source: torch.Tensor, made: torch.Tensor) -> float:
    """Mean cosine between gradient directions where the source has clear edges, sign left out; 1 = all stayed."""

    def gradient(image: torch.Tensor) -> torch.Tensor:
        grey = F.avg_pool2d(image.mean(0, keepdim=True), 3, 1, 1)
        return torch.stack((grey[0, :-1, 1:] - grey[0, :-1, :-1], grey[0, 1:, :-1] - grey[0, :-1, :-1]))

    a, b = gradient(source), gradient(made)
    strong = a.norm(dim=0) > 0.05
    cosine = (a * b).sum(0).abs() / (a.norm(dim=0) * b.norm(dim=0) + 1e-4)
    return cosine[strong].mean().item()


def check(model: Path, held: list[Photo], long_side: int = 512, threads: int = 2, sheet: Path | None = None) -> None:
    """Print the figures of a model on photographs that it was not trained on."""
    torch.set_num_threads(threads)
    images = [picture(photo, long_side) for photo in held]
    edit = Editor(model)
    psnr = [-10 * torch.log10(F.mse_loss(edit.round_trip(image), image)).item() for image in images]
    print(f"round trip at {long_side} px: {sum(psnr) / len(psnr):.2f} dB over {len(psnr)} held-out photographs")
    # Sizes far beyond the photographs' would take most of the time of a short check.
    for width, height, steps in (timed for timed in TIMED if timed[0] <= 2.5 * long_side):
        image = F.interpolate(images[0][None], size=(height, width), mode="bilinear")[0]
        edit(image, TEXTS["night"])
        seconds = []
        for seed in range(3):
            began = time.perf_counter()
            edit(image, TEXTS["night"], seed, steps)
            seconds.append(time.perf_counter() - began)
        print(f"{steps} step(s): {sorted(seconds)[1]:.2f} s per {width} x {height} picture, {threads} threads")

    print("condition  change (mean |difference|, 0-255) at severity " + ", ".join(map(str, LEVELS)), end="")
    print("  grows  between seeds  edges kept at 65")
    rows = [[image] for image in images]
    for name, text in TEXTS.items():
        changes, grows, seeds, edges = torch.zeros(len(LEVELS)), 0, 0.0, 0.0
        for row, image in zip(rows, images, strict=True):
            made = [edit(image, f"{text}, severity {level}") for level in LEVELS]
            moved = torch.stack([(m - image).abs().mean() * 255 for m in made])
            changes += moved / len(images)
            grows += int((moved.diff() > 0).sum())
            seeds += (edit(image, f"{text}, severity 65", seed=1) - made[2]).abs().mean().item() * 255 / len(images)
            edges += edge_agreement(image, made[2]) / len(images)
            row.append(made[2])
        levels = "  ".join(f"{value:5.1f}" for value in changes.tolist())
        print(f"{name:9}  {levels}  {grows}/{len(images) * (len(LEVELS) - 1)}  {seeds:.1f}  {edges:.2f}")
    if sheet:
        lines = [torch.cat([F.interpolate(c[None], size=(192, 256), mode="area")[0] for c in row], 2) for row in rows]
        Image.fromarray((torch.cat(lines, 1).clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()).save(sheet)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument("--sources", type=Path)
    parser.add_argument("--licence")
    parser.add_argument("--model", type=Path, default=Path("diffgen/models/pocket"))
    parser.add_argument("--count", type=int, default=8, help="held-out photographs to measure")
    parser.add_argument("--long-side", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sheet", type=Path, help="also write source and conditions, a row a photograph, as PNG")
    args = parser.parse_args(argv)
    _, held = split_photos(load_photos(list_photos(args.photos, args.sources, args.licence)))
    check(args.model, spread(held, args.count), args.long_side, args.threads, args.sheet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
