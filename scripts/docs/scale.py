"""What a number of images takes: devices, hours, disk, files, memory. Writes the table of docs/scale.md.

    python -m scripts.docs.scale --write

From figures measured elsewhere, which are named here with where they stand; the speed of a GPU is an assumption until it is
measured, and the table says so.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diffgen.commands.plan_summary import BYTES_PER_PIXEL
from scripts.docs.tables import measured, write_table

PAGE = Path("docs/scale.md")
IMAGE = 1280 * 720 * BYTES_PER_PIXEL["jpg"]  # of a made picture, as `plan` reckons
RECORD = 700  # bytes of its line in the records, with 20 objects and no detector
READ = 0.1e6  # bytes of its source, which is read once for five conditions
OPENED = 540  # bytes of memory a record takes when the folder is opened (docs/performance.md)
PLANNED = 1.9e-5  # seconds to plan an image again, from the cache (docs/performance.md)
CPU = 5.8  # pictures a second of the embedded model on two cores at 640 px (docs/performance.md)
GPU = 10.0  # assumed: a 20-step Stable Diffusion 1.5 on one data-centre GPU
SIZES = (1e6, 1e8, 1e9)


def row(images: float, devices: int) -> str:
    hours = images / GPU / devices / 3600
    made, dataset = images * IMAGE / 1e12, images * IMAGE / 1e12
    cells = [
        f"{images:,.0f}", f"{devices}", f"{hours:,.0f}", f"{images / CPU / 3600 / 24:,.0f}",
        f"{made:,.1f} + {dataset:,.1f}", f"{3 * images / 1e6:,.0f} M", f"{images * RECORD / 1e9:,.0f}",
        f"{devices * GPU * (IMAGE + READ / 5) / 1e6:,.1f}", f"{images * OPENED / 1e9:,.1f}", f"{images * PLANNED / 60:,.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def table() -> str:
    head = [
        "images", "GPUs", "hours", "days on two cores, pocket", "TB, images + dataset", "files", "GB of records",
        "MB/s to and from the folder", "GB of memory a worker", "minutes to plan again",
    ]  # fmt: skip
    rows = [row(images, devices) for images, devices in zip(SIZES, (8, 64, 512), strict=True)]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *rows])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="the table into docs/scale.md")
    text = table()
    if parser.parse_args().write:
        write_table(PAGE, "sizes", f"{text}\n\n{measured('by calculation')}", "scripts.docs.scale")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
