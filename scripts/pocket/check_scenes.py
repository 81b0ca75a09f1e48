"""What the pocket model does to driving pictures: what a detector still finds, and how real its conditions are in numbers.

    python -m scripts.pocket.check_scenes --frames driving/day --detector weights/yolo11n.pt \\
        --real night=driving/night --real fog=driving/fog

Recall: of the detector's boxes on the source (confidence .25), the share that it finds again (same class, IoU .5) on
the round trip, on JPEGs as a measure of what it loses without a visible change, on the edited picture, and on what the
renderer paints, which is what the model was taught and moves nothing.
Snow: on how much of the marked ground it lies, and of what is none.
Statistics: those of the edited pictures beside those of real pictures of the condition, as mean and deviation over pictures.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffgen.checks.detections import new_objects, recall, relative_recall
from diffgen.checks.detectors.ultralytics import Detector, load_detector
from diffgen.checks.statistics import condition_statistics
from scripts.pocket.check import Editor, picture, taught
from scripts.pocket.conditions import TEXTS
from scripts.pocket.filters import blur, luminance
from scripts.pocket.maps import MAP_NAMES, make_maps
from scripts.pocket.marks import load_marks
from scripts.pocket.photos import SUFFIXES, Photo, spread

SIZES = (0, 8, 12, 16, 24, 32, 96, 10_000)  # px, square root of a box's area
SNOW_PX, SNOW_LIGHT = 3, 0.15  # sigma; of 0..1
STATISTICS = ("luminance", "spread", "saturation", "min_channel", "gradient", "near_white")


def load(file: Path | io.BytesIO) -> Photo:
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB"))
    return Photo(getattr(file, "name", ""), "", torch.from_numpy(pixels.transpose(2, 0, 1).copy()))


def images_below(folder: Path, count: int) -> list[Path]:
    """`count` images spread over all below a folder, in path order."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    return spread(paths, count)


def pixels_of(image: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray((image.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy())


def as_jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    """The picture after JPEG compression: what a detector loses by a change that nobody sees."""
    file = io.BytesIO()
    Image.fromarray(pixels_of(image)).save(file, "JPEG", quality=quality)
    return load(file).pixels.float() / 255


def recall_table(
    images: list[torch.Tensor], maps: list[torch.Tensor], edit: Editor, detect: Detector, severity: int
) -> dict[str, dict[str, float | None]]:
    """Version -> recall of all boxes and by SIZES, confident new boxes a picture, and "off": mean |model - renderer| of 255
    from the same noise."""
    pooled: dict[str, dict[str, list[float]]] = {}
    new: dict[str, int] = {}
    off: dict[str, list[float]] = {name: [] for name in TEXTS}
    for image, planes in zip(images, maps, strict=True):
        source = pixels_of(image)
        (reference,) = detect([source])
        versions = {f"JPEG {quality}": as_jpeg(image, quality) for quality in (95, 90)}
        versions["round trip"] = edit.round_trip(image)
        for name, text in TEXTS.items():
            versions[name] = edit(image, f"{text}, severity {severity}")
            versions[f"{name} rendered"] = taught(image, planes, name, severity)
            off[name].append(float((versions[name] - versions[f"{name} rendered"]).abs().mean()) * 255)
        for name, version in versions.items():
            (made,) = detect([pixels_of(version)])
            facts = relative_recall(reference, made, (source.shape[1], source.shape[0]))
            for key, values in facts.items():
                pooled.setdefault(name, {}).setdefault(key, []).extend(values)
            new[name] = new.get(name, 0) + len(new_objects(reference, made, []))
    print(f"recall against the source, severity {severity}, {len(pooled['round trip']['found'])} boxes:")
    table: dict[str, dict[str, float | None]] = {}
    for name, facts in pooled.items():
        over = [hit for hit, side in zip(facts["found"], facts["found_px"], strict=True) if side > 32]
        shares: dict[str, float | None] = {"all": recall(facts), ">32 px": sum(over) / max(1, len(over))}
        for low, high in itertools.pairwise(SIZES):
            hits = [h for h, side in zip(facts["found"], facts["found_px"], strict=True) if low <= side < high]
            shares[f"{low}-{high} px ({len(hits)})"] = sum(hits) / len(hits) if hits else None
        table[name] = {**shares, "new": new[name] / len(images)}
        if name in off:
            table[name]["off"] = sum(off[name]) / len(images)
        print(f"{name:18}", "  ".join(f"{k} {'–' if v is None else f'{v:.3f}'}" for k, v in table[name].items()))
    return table


def snow_lies(images: list[torch.Tensor], maps: list[torch.Tensor], edit: Editor, severity: int) -> dict[str, float]:
    """Share of the marked ground that turns white, and of the things (neither ground nor sky nor plants) that do, as seen
    over SNOW_PX px: as light as the renderer has it, less SNOW_LIGHT, and lighter than that by SNOW_LIGHT."""
    shares = []
    for image, planes in zip(images, maps, strict=True):
        named = dict(zip(MAP_NAMES, planes, strict=True))
        versions = edit(image, f"{TEXTS['snow']}, severity {severity}"), taught(image, planes, "snow", severity)
        made, rendered = (blur(luminance(version), SNOW_PX)[0] for version in versions)
        ground = named["ground"] > 0.9
        things = named["ground"] + named["sky"] + named["plants"] + named["caps"] < 0.1
        white, strays = made > rendered - SNOW_LIGHT, made > rendered + SNOW_LIGHT
        if ground.any() and things.any():
            shares.append((float(white[ground].float().mean()), float(strays[things].float().mean())))
    of_ground, of_things = (sum(part) / len(shares) for part in zip(*shares, strict=True))
    print(f"snow lies on {of_ground:.3f} of the ground and {of_things:.3f} of the things, {len(shares)} pictures")
    return {"ground": of_ground, "things": of_things}


def statistics_table(
    images: list[torch.Tensor], edit: Editor, real: dict[str, Path], severity: int, count: int
) -> dict[str, dict[str, list[float]]]:
    """Condition -> made, real and deviation of the real, by STATISTICS."""
    table: dict[str, dict[str, list[float]]] = {}

    def of(pixels: np.ndarray) -> list[float]:
        found = condition_statistics(pixels)
        return [found[name] for name in STATISTICS]

    print(f"{'':10}" + "".join(f"{name:>22}" for name in STATISTICS))
    for name, folder in real.items():
        made = np.array([of(pixels_of(edit(image, f"{TEXTS[name]}, severity {severity}"))) for image in images])
        there = np.array([of(pixels_of(load(path).pixels.float() / 255)) for path in images_below(folder, count)])
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
    parser.add_argument(
        "--marks", type=Path, help="their sky and ground for the renderer, as in scripts/pocket/marks.py"
    )
    parser.add_argument("--detector", type=Path, help="Ultralytics weights")
    parser.add_argument("--real", action="append", default=[], metavar="CONDITION=FOLDER")
    parser.add_argument("--model", type=Path, default=Path("diffgen/models/pocket"))
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--long-side", type=int, default=640)
    parser.add_argument("--severity", type=int, default=65)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    marks, _ = load_marks(args.marks)
    paths = images_below(args.frames, args.count)
    if args.detector:  # the two pictures that every Ultralytics installation has
        import ultralytics

        assets = Path(ultralytics.__file__).parent / "assets"
        paths += [assets / "bus.jpg", assets / "zidane.jpg"]
    images = [picture(load(path), args.long_side) for path in paths]
    edit = Editor(args.model)
    figures: dict[str, object] = {"severity": args.severity, "pictures": len(images)}
    real = {name: Path(folder) for name, _, folder in (text.partition("=") for text in args.real)}
    if real:
        frames = images[: args.count]
        figures["statistics"] = statistics_table(frames, edit, real, args.severity, 4 * args.count)
    seen = [marks.get(path.name) for path in paths]
    if any(seen) or args.detector:
        maps = [make_maps(image, mark) for image, mark in zip(images, seen, strict=True)]
    if any(seen):
        figures["snow"] = snow_lies(images, maps, edit, args.severity)
    if args.detector:
        figures["recall"] = recall_table(images, maps, edit, load_detector(args.detector, "cpu"), args.severity)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
