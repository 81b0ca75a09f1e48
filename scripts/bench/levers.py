"""What the levers cost: processor seconds per image with and without them, alternating in one process.

    python -m scripts.bench.levers --dataset driving/day/data.yaml --limit 8

Processor time of one thread and not the clock's, so that other work on the machine does not decide. All levers: a strength
map, and detail transfer of objects and scene. An attempt more is an image more, and is not counted here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import yaml

from diffgen.recipe.load import load_recipe
from diffgen.run.session import Session
from diffgen.run.worker import Worker
from diffgen.run.worker_setup import Device, load_worker
from diffgen.types import Batch
from scripts.docs.tables import measured, write_table

LEVERS = {"objects": {"strength": 0.35, "detail": 0.8}, "detail": 0.3}


def batches(dataset: Path, folder: Path, limit: int, levers: dict[str, object]) -> tuple[list[Batch], Worker]:
    recipe = folder / f"{len(levers)}.yaml"
    fields = {
        "dataset": str(dataset.resolve()),
        "output": str(folder / "run"),
        "conditions": ["snow", "night"],
        **levers,
    }
    recipe.write_text(yaml.safe_dump(fields))
    session = Session.open(load_recipe(recipe), limit)
    worker = load_worker(session.model, Device("cpu", "float32", 1), session.dataset)
    return [Batch((item,)) for item in session.plan.items], worker


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--write", action="store_true", help="the figures into docs/fidelity.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plain, worker = batches(args.dataset, Path(folder), args.limit, {})
        pulled, _ = batches(args.dataset, Path(folder), args.limit, LEVERS)
        worker(plain[0]), worker(pulled[0])  # the first calls set things up
        seconds: dict[str, list[float]] = {"without": [], "with": []}
        for without, with_levers in zip(plain, pulled, strict=True):
            for name, batch in (("without", without), ("with", with_levers)):
                started = time.process_time()
                worker(batch)
                seconds[name].append(time.process_time() - started)
    ratios = [b / a for a, b in zip(seconds["without"], seconds["with"], strict=True)]
    figures = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    figures |= {"ratio": round(statistics.median(ratios), 3), "images": len(ratios)}
    print(json.dumps(figures))
    if args.write:
        rows = [f"| {figures['without']:.2f} | {figures['with']:.2f} | {figures['ratio']:.2f} |"]
        head = ["| without levers, s | with all, s | ratio |", "|---|---|---|"]
        about = measured(f"processor time of one thread a picture of 1280 × 720, median of {len(ratios)}, pocket")
        write_table(Path("docs/fidelity.md"), "cost", "\n".join([*head, *rows, "", about]), "scripts.bench.levers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
