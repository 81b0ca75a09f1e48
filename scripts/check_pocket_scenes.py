"""What the pocket model does to driving pictures: what a detector still finds, and how real its conditions are in numbers.

    python scripts/check_pocket_scenes.py --frames driving/day --detector weights/yolo11n.pt \\
        --real night=driving/night --real fog=driving/fog

Recall: of the detector's boxes on the source (confidence .25), the share that it finds again (same class, IoU .5) on the
round trip, on the edited picture, and on what the renderer paints, which is what the model was taught and moves nothing.
Statistics: those of the edited pictures beside those of real pictures of the condition, as mean and deviation over pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from check_pocket import TEXTS, Editor, picture
from PIL import Image
from pocket_maps import luminance, make_maps
from pocket_photos import SUFFIXES, Photo
from pocket_render import render

Boxes = tuple[np.ndarray, np.ndarray]  # (n, 4) x0 y0 x1 y1 in px; (n,) class ids
LARGE_PX = 32  # square root of a box's area, COCO's border between small and medium
STATISTICS = ("luminance", "spread", "saturation", "min-channel", "gradient", "near-white")


def load(path: Path) -> Photo:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return Photo(path.name, "", torch.from_numpy(pixels.transpose(2, 0, 1).copy()))


def images_below(folder: Path, count: int) -> list[Path]:
    """`count` images spread over all below a folder, in path order."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    step = max(1, len(paths) // count)
    return paths[::step][:count]


class Detector:
    """An Ultralytics detector; nothing is downloaded."""

    def __init__(self, weights: Path) -> None:
        os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false")
        from ultralytics import YOLO

        if not weights.is_file():
            raise SystemExit(f"{weights}: there is no such file")

        self.model = YOLO(weights)

    def __call__(self, image: torch.Tensor) -> Boxes:
        bgr = (image.flip(0).permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
        (found,) = self.model.predict(np.ascontiguousarray(bgr), conf=0.25, imgsz=640, verbose=False)
        return found.boxes.xyxy.cpu().numpy(), found.boxes.cls.cpu().numpy().astype(int)


def found_again(reference: Boxes, made: Boxes) -> np.ndarray:
    """(n,) bool: each reference box that a box of its class overlaps by half; each made box serves once."""
    boxes, classes = reference
    free = list(range(len(made[0])))
    hit = np.zeros(len(boxes), bool)
    for i, box in enumerate(boxes):
        scores = [_iou(box, made[0][j]) if made[1][j] == classes[i] else 0.0 for j in free]
        if scores and max(scores) >= 0.5:
            hit[i] = True
            del free[int(np.argmax(scores))]
    return hit


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def statistics(image: torch.Tensor) -> list[float]:
    """STATISTICS of (3, H, W) in 0..1, at 480 px on the long side."""
    scale = 480 / max(image.shape[-2:])
    size = [round(n * scale) for n in image.shape[-2:]]
    small = F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)
    light = luminance(small)[0]
    high, low = small.amax(0), small.amin(0)
    dx, dy = light[:-1].diff(dim=1), light[:, :-1].diff(dim=0)
    return [
        light.mean().item(),
        light.std().item(),
        ((high - low) / high.clamp_min(1e-3)).mean().item(),
        low.mean().item(),
        torch.sqrt(dx**2 + dy**2).mean().item(),
        ((low > 0.7).float()[size[0] // 2 :]).mean().item(),
    ]


def recall_table(images: list[torch.Tensor], edit: Editor, detect: Detector, severity: int) -> dict[str, list[float]]:
    """Row -> [recall of all boxes, of those over 32 px, new boxes a picture]."""
    hits: dict[str, list[np.ndarray]] = {}
    new: dict[str, int] = {}
    large = []
    for image in images:
        reference = detect(image)
        boxes = reference[0]
        large.append(np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])) > LARGE_PX)
        maps = make_maps(image)
        versions = {"round trip": edit.round_trip(image)}
        noise = torch.randn(16, image.shape[1] // 4, image.shape[2] // 4, generator=torch.Generator().manual_seed(0))
        for name, text in TEXTS.items():
            versions[name] = edit(image, f"{text}, severity {severity}")
            versions[f"{name} rendered"] = render(name, image, maps, severity / 100, noise)[0]
        for name, version in versions.items():
            made = detect(version)
            hit = found_again(reference, made)
            hits.setdefault(name, []).append(hit)
            new[name] = new.get(name, 0) + len(made[0]) - int(hit.sum())
    is_large = np.concatenate(large)
    print(f"recall against the source: {len(is_large)} boxes, {is_large.sum()} over {LARGE_PX} px, severity {severity}")
    table = {}
    for name, found in hits.items():
        hit = np.concatenate(found)
        table[name] = [float(hit.mean()), float(hit[is_large].mean()), new[name] / len(images)]
        print(f"{name:18} all {table[name][0]:.3f}  >{LARGE_PX} px {table[name][1]:.3f}  new {table[name][2]:.2f}")
    return table


def statistics_table(
    images: list[torch.Tensor], edit: Editor, real: dict[str, Path], severity: int, count: int
) -> dict[str, dict[str, list[float]]]:
    """Condition -> made, real and deviation of the real, by STATISTICS."""
    table = {}
    print(f"{'':10}" + "".join(f"{name:>22}" for name in STATISTICS))
    for name, folder in real.items():
        made = np.array([statistics(edit(image, f"{TEXTS[name]}, severity {severity}")) for image in images])
        there = np.array([statistics(load(path).pixels.float() / 255) for path in images_below(folder, count)])
        mean, deviation = there.mean(0), there.std(0)
        table[name] = {"made": made.mean(0).tolist(), "real": mean.tolist(), "deviation": deviation.tolist()}
        cells = [
            f"{m:.3f} / {r:.3f}±{d:.3f}{'' if abs(m - r) <= d else ' !'}"
            for m, r, d in zip(made.mean(0), mean, deviation, strict=True)
        ]
        print(f"{name:10}" + "".join(f"{cell:>22}" for cell in cells))
    return table


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, required=True, help="folder of daylight pictures")
    parser.add_argument("--detector", type=Path, help="Ultralytics weights")
    parser.add_argument("--real", action="append", default=[], metavar="CONDITION=FOLDER")
    parser.add_argument("--model", type=Path, default=Path("diffgen/pocket"))
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--long-side", type=int, default=640)
    parser.add_argument("--severity", type=int, default=65)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    images = [picture(load(path), args.long_side) for path in images_below(args.frames, args.count)]
    if args.detector:  # the two pictures that every Ultralytics installation has
        import ultralytics

        assets = Path(ultralytics.__file__).parent / "assets"
        images += [picture(load(assets / name), args.long_side) for name in ("bus.jpg", "zidane.jpg")]
    edit = Editor(args.model)
    figures: dict[str, object] = {"severity": args.severity, "pictures": len(images)}
    real = {name: Path(folder) for name, _, folder in (text.partition("=") for text in args.real)}
    if real:
        frames = images[: args.count]
        figures["statistics"] = statistics_table(frames, edit, real, args.severity, 4 * args.count)
    if args.detector:
        figures["recall"] = recall_table(images, edit, Detector(args.detector), args.severity)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
