"""How well labels stay true, and what each lever does for it: naive, each lever alone, and all of them.

    python -m scripts.bench.fidelity --dataset driving/day/data.yaml --detector weights/yolo11n.pt --limit 40 --out bench

One run folder for everything: variants that share images make them once, and it goes on where it was stopped. Prints
tables and writes `fidelity.json`; `--write` puts the tables into docs/fidelity.md. Recall is of what the detector finds
in the source, by COCO's sizes, and counts an object that it finds in the picture or in its copy brought to the source's
brightness.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from diffgen import Image, load_recipe, open_run
from diffgen.checks.detections import COCO_SIZES, judged_recall, recall
from diffgen.checks.effect import judged_effect
from diffgen.checks.structure import judged_structure
from diffgen.run.loop import run
from diffgen.run.progress import choose
from scripts.docs.tables import measured, write_table

PAGE = Path("docs/fidelity.md")

LEVERS: dict[str, dict[str, Any]] = {
    "objects.strength": {"objects": {"strength": 0.35}},
    "detail": {"objects": {"detail": 0.8}, "detail": 0.3},
    "objects.restore": {"objects": {"restore": 0.7}},
    "attempts": {"attempts": 3},
}
SIZES = ("small", "medium", "large")


def variants() -> dict[str, dict[str, Any]]:
    together = {
        "objects": {"strength": 0.25, "detail": 0.8, "restore": 0.7},
        "detail": 0.3,
        "attempts": 3,
        "checks": {"recall": 0.9},
    }
    return {"naive": {}, **LEVERS, "all": together}


def measure(recipe: Path, limit: int) -> tuple[list[Image], float, int]:
    """(what became of each planned image, seconds, images made now)."""
    started = time.perf_counter()
    loaded = load_recipe(recipe)
    summary = run(loaded, limit=limit, progress=choose(False), notify=lambda text: print(text, file=sys.stderr))
    if summary.stopped:
        sys.exit(summary.exit_code)
    seconds = time.perf_counter() - started
    return list(open_run(loaded.output).images), seconds, summary.made_now


def row(images: list[Image]) -> dict[str, Any]:
    """The figures of one variant and condition; recall, shift and the rest are of accepted images."""
    accepted = [image for image in images if image.accepted]
    facts = [image.facts for image in accepted]
    pooled = {key: [v for fact in facts for v in fact.get(key, [])] for key in ("found", "found_matched", "found_px")}
    moved = [judged_effect(fact, images[0].condition) for fact in facts]
    figures: dict[str, Any] = {
        "images": len(images),
        "accepted": len(accepted) / len(images),
        "structure": _median([judged_structure(fact) for fact in facts]),
        "recall": recall(pooled),
        "recall_matched": judged_recall(pooled),
        "new_objects": _mean([fact.get("new_objects") for fact in facts]),
        "shift_p50": _median([fact["shift_px"] for fact in facts]),
        "shift_max": max((fact["shift_px"] for fact in facts), default=None),
        "effect": _median(moved),
        "saved": sum(image.attempt > 0 for image in accepted),
    }
    return figures | {f"matched_{size}": judged_recall(pooled, size) for size in SIZES if size in COCO_SIZES}


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


# Column of the table -> key of a figure. Recall is the matched one.
COLUMNS = {
    "accepted": "accepted", "structure": "structure", "recall": "recall_matched",
    **{size: f"matched_{size}" for size in SIZES}, "new": "new_objects", "shift, px": "shift_max", "effect": "effect",
    "retried": "saved",
}  # fmt: skip

Figures = dict[str, dict[str, dict[str, Any]]]  # variant -> condition -> figure


def table(figures: Figures) -> str:
    """Markdown: a row for each variant and condition."""
    lines = [f"| variant | condition | {' | '.join(COLUMNS)} |", f"|---|---|{'---|' * len(COLUMNS)}"]
    for variant, rows in figures.items():
        for condition, found in rows.items():
            cells = [found[key] for key in COLUMNS.values()]
            shown = ["–" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in cells]
            lines.append(f"| {variant} | {condition} | {' | '.join(shown)} |")
    return "\n".join(lines)


def targets(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown: our targets beside the figures of one variant, by condition."""

    def span(key: str) -> list[float]:
        return [row[key] for row in rows.values() if row[key] is not None]

    def said(values: list[float]) -> str:
        return f"{min(values):.2f}–{max(values):.2f}"

    images = sum(row["images"] for row in rows.values())
    accepted = sum(round(row["accepted"] * row["images"]) for row in rows.values())
    lowest = {size: span(f"matched_{size}") for size in SIZES}
    checks = [
        ("recall ≥ .95 of medium and large objects", said(lowest["medium"] + lowest["large"]),
         min(lowest["medium"] + lowest["large"]) >= 0.95),
        ("recall ≥ .85 of small ones", said(lowest["small"]), min(lowest["small"]) >= 0.85),
        ("at most .05 new confident objects a picture", said(span("new_objects")), max(span("new_objects")) <= 0.05),
        ("no accepted image shifted by more than .5 px", f"{max(span('shift_max')):.2f}", max(span("shift_max")) <= 0.5),
        ("95 % accepted within three attempts", f"{accepted} of {images}", accepted >= 0.95 * images),
    ]  # fmt: skip
    lines = [f"| {name} | {value} | {'yes' if met else '**no**'} |" for name, value, met in checks]
    return "\n".join(["| target | measured | met |", "|---|---|---|", *lines])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--detector", type=Path, required=True)
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--conditions", default="snow,night,fog,rain")
    parser.add_argument("--strength", type=float, help="of every condition; default: the presets'")
    parser.add_argument("--long-side", type=int, help="working size in px; default: the model's")
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variants", default=",".join(variants()))
    parser.add_argument("--write", action="store_true", help="the tables into docs/fidelity.md")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    names = args.conditions.split(",")
    conditions = [name if args.strength is None else {name: {"strength": args.strength}} for name in names]
    figures: Figures = {}
    seconds = {}
    for variant in args.variants.split(","):
        recipe = args.out / f"{variant}.yaml"
        fields = {
            "dataset": str(args.dataset.resolve()),
            "output": "run",
            "model": args.model,
            "conditions": conditions,
            "detector": str(args.detector.resolve()),
            "include_sources": "none",
            "resolution": {"long_side": args.long_side},
            **variants()[variant],
        }
        recipe.write_text(yaml.safe_dump(fields, sort_keys=False), "utf-8")
        judged, took, made = measure(recipe, args.limit)
        figures[variant] = {name: row([image for image in judged if image.condition == name]) for name in names}
        seconds[variant] = {"seconds": round(took, 1), "made": made}
        print(f"{variant}: {made} images made in {took:.0f} s", file=sys.stderr)
    (args.out / "fidelity.json").write_text(json.dumps({"figures": figures, "time": seconds}, indent=1) + "\n", "utf-8")
    print(table(figures))
    print(targets(figures["all"]) if "all" in figures else "")
    if args.write:
        about = measured(
            f"{args.limit} frames of 1280 × 720, {args.model}, {args.detector.stem}, {args.long_side or 'its'} px"
        )
        write_table(PAGE, "levers", f"{table(figures)}\n\n{about}", "scripts.bench.fidelity")
        write_table(PAGE, "targets", targets(figures["all"]), "scripts.bench.fidelity")
    return 0


if __name__ == "__main__":
    sys.exit(main())
