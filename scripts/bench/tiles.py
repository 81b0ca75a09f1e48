"""Do tiles leave seams? The luminance's step across the tiles' edges, compared with the steps elsewhere in the same picture.

    python -m scripts.bench.tiles --dataset driving/day/data.yaml --limit 6 --side 512 --out bench-tiles

Each picture is edited in tiles and, for comparison, in one piece. "seam": mean absolute step over the rows and columns where
a tile begins or ends, divided by that over all others; the same lines are measured in the source and in the picture made in
one piece, where nothing happens at them, so that tiles and one piece should be equal. "evenness": deviation, in grey levels,
of the brightness that tiles add to what one piece makes, over 32 × 18 areas; tiles brighter than their neighbours show.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import yaml

from diffgen.checks.structure import luminance
from diffgen.dataset.geometry import views_for, working_canvas
from diffgen.dataset.images import decode
from diffgen.files import image_path
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from diffgen.run.progress import choose
from diffgen.run.session import Session
from diffgen.types import Item
from scripts.docs.tables import measured, write_table


def made(
    folder: Path, dataset: Path, mode: str, side: int, conditions: list[str], limit: int
) -> list[tuple[Item, Path]]:
    recipe = folder / f"{mode}.yaml"
    fields = {
        "dataset": str(dataset.resolve()),
        "output": str((folder / mode).resolve()),
        "conditions": conditions,
        "resolution": {"mode": mode, **({"long_side": side} if mode == "tile" else {})},
        "checks": {"structure": None, "registration": None, "effect": None},
    }
    recipe.write_text(yaml.safe_dump(fields))
    loaded = load_recipe(recipe)
    if (summary := run(loaded, limit=limit, progress=choose(False))).stopped:
        sys.exit(summary.exit_code)
    plan = Session.open(loaded, limit).plan
    return [(item, image_path(folder / mode, item.job.id, "jpg")) for item in plan.items]


def step_ratio(plane: np.ndarray, lines: tuple[set[int], set[int]]) -> float:
    """Of a luminance (H, W): the mean step across the columns and rows in `lines`, over that across all others."""
    at, elsewhere = [], []
    for axis, chosen in zip((1, 0), lines, strict=True):
        steps = np.abs(np.diff(plane, axis=axis)).mean(1 - axis)
        marked = np.zeros(len(steps), bool)
        marked[[i - 1 for i in chosen if 0 < i <= len(steps)]] = True
        at.append(steps[marked])
        elsewhere.append(steps[~marked])
    return float(np.concatenate(at).mean() / np.concatenate(elsewhere).mean())


def areas(plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape
    rows, columns = height // 18, width // 32
    return plane[: 18 * rows, : 32 * columns].reshape(18, rows, 32, columns).mean((1, 3))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--conditions", nargs="+", default=["snow", "night", "fog", "rain"])
    parser.add_argument("--limit", type=int, default=6)
    parser.add_argument("--side", type=int, default=512, help="of a tile, in pixels")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--write", action="store_true", help="the table into docs/fidelity.md")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pieces = [made(args.out, args.dataset, mode, args.side, args.conditions, args.limit) for mode in ("tile", "fit")]
    found: dict[str, list[tuple[float, ...]]] = {}
    for (item, tiled), (_, whole) in zip(*pieces, strict=True):
        settings = item.job.settings
        plan = working_canvas(item.source.width, item.source.height, settings)
        views = views_for(plan, settings)
        ends = settings.long_side // settings.multiple * settings.multiple
        columns = {edge - plan.left for view in views for edge in (view.left, view.left + ends)}
        rows = {edge - plan.top for view in views for edge in (view.top, view.top + ends)}
        planes = [luminance(decode(Path(path).read_bytes())) for path in (item.source.path, tiled, whole)]
        added = areas(planes[1]) - areas(planes[2])
        ratios = [step_ratio(plane, (columns, rows)) for plane in planes]
        found.setdefault(settings.condition, []).append((len(views), *ratios, 255 * float(added.std())))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    lines = [
        "| condition | seam, source | seam, in tiles | seam, in one piece | evenness, grey levels |",
        "|---|---|---|---|---|",
    ]
    for name, row in medians.items():
        lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in row[1:4]) + f" | {row[4]:.1f} |")
    print("\n".join(lines))
    if args.write:
        about = measured(f"{args.limit} frames of 1280 × 720 in tiles of {args.side} px, pocket")
        write_table(Path("docs/fidelity.md"), "tiles", "\n".join([*lines, "", about]), "scripts.bench.tiles")
    (args.out / "tiles.json").write_text(json.dumps(medians, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
