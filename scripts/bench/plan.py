"""How long `diffgen plan` takes for a large dataset: cold, and with cached digests; and its memory.

    python -m scripts.bench.plan --sources 100000

Makes a dataset of hard links to a few small pictures with a label file each (so that every digest differs), five
conditions, and runs the command line in processes of their own. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.docs.tables import measured, write_table

RECIPE = """
dataset: data.yaml
output: out
model: {hub: bench/none, revision: "0000000000000000000000000000000000000000", native: 512, multiple: 8}
editor: instruct
conditions: [snow, night, fog, rain, dusk]
"""


def make(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for split, share in (("train", count), ("val", max(1, count // 100))):
        pictures = []
        for i in range(8):
            path = folder / f"{split}{i}.jpg"
            Image.fromarray(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)).save(path, quality=50)
            pictures.append(path)
        for i in range(share):
            image = folder / "images" / split / f"{i // 1000:03}" / f"{i:06}.jpg"
            label = folder / "labels" / split / f"{i // 1000:03}" / f"{i:06}.txt"
            if i % 1000 == 0:
                image.parent.mkdir(parents=True)
                label.parent.mkdir(parents=True)
            os.link(pictures[i % len(pictures)], image)
            label.write_text(f"0 0.5 0.5 0.{i % 9 + 1} 0.2\n1 0.3 0.{i % 89 + 10} 0.1 0.{i + 1:07}\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [car, person]\n")
    (folder / "recipe.yaml").write_text(RECIPE)


def timed(folder: Path) -> tuple[float, int]:
    """Seconds of one `plan`, and how many images it plans."""
    environment = {**os.environ, "DIFFGEN_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "diffgen", "plan", str(folder / "recipe.yaml"), "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return time.perf_counter() - started, json.loads(done.stdout)["images"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, action="append")
    parser.add_argument("--write", action="store_true", help="the table into docs/performance.md")
    args = parser.parse_args()
    lines = ["| sources | images | first time, s | again, s | MiB |", "|---|---|---|---|---|"]
    for count in args.sources or [100_000]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make(folder, count)
            cold, images = timed(folder)
            assert images == 5 * count, "the pictures are not what a plan edits"
            cached = sorted(timed(folder)[0] for _ in range(3))[1]
            memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        row = {"sources": count, "images": images, "cold_s": round(cold, 1), "cached_s": round(cached, 1)}
        print(json.dumps({**row, "memory_mb": round(memory), "cpus": os.cpu_count()}))
        lines.append(f"| {count:,} | {images:,} | {cold:.1f} | {cached:.1f} | {memory:.0f} |")
    if args.write:
        write_table(
            Path("docs/performance.md"),
            "plan",
            "\n".join([*lines, "", measured("a process each")]),
            "scripts.bench.plan",
        )


if __name__ == "__main__":
    main()
