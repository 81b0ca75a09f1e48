"""How long a run folder takes to be opened again, and how much memory, by the number of its records.

    python -m scripts.bench.records --records 1000000 --write

Writes records as a run does, in batches with their trailers, with facts as large as those of a street picture, and empty
files for the images. Opens the folder in a process of its own, as `diffgen run` does for a run that is to go on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from diffgen.files import image_path
from diffgen.run.store.records import record_file, trailer_line
from diffgen.types import Record, canonical
from scripts.docs.tables import measured, write_table

PAGE = Path("docs/performance.md")
BATCH = 16
X = hashlib.sha256(b"x").hexdigest()  # of each image
FACTS = {
    "after": [0.151, 0.091, 0.314, 0.117, 0.017, 0.001, 0.104, 0.043, 0.304],
    "before": [0.411, 0.241, 0.252, 0.352, 0.035, 0.151, 0.404, 0.043, 0.804],
    "change": 61.23, "contrast": 0.0912, "luminance": 0.1512, "shift_peak": 0.913, "shift_px": 0.05, "strength": 0.7,
    "sides_px": [31.5] * 20, "structure": [0.712] * 20, "structure_image": 0.745,
}  # fmt: skip

OPEN = """
import resource, sys, time
from pathlib import Path
from diffgen.run.store.store import RunStore
started = time.perf_counter()
with RunStore(Path(sys.argv[1]), "jpg") as store:
    spent, count = time.perf_counter() - started, len(store.done)
print(spent, count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def write(folder: Path, count: int) -> None:
    for i in range(256):
        (folder / f"images/{i:02x}").mkdir(parents=True)
    with record_file(folder, "0").open("wb") as file:
        for first in range(0, count, BATCH):
            ids = [
                f"{(i * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128:032x}"
                for i in range(first, min(first + BATCH, count))
            ]
            records = [Record(job, "made", FACTS, X, seconds=0.6, environment="abc") for job in ids]
            lines = "".join(f"{record.to_json()}\n" for record in records).encode()
            file.write(lines + trailer_line(len(records), lines) + b"\n")
            for job in ids:
                image_path(folder, job, "jpg").write_bytes(b"x")
    state = {"format": 2, "edit_version": 3, "environments": {}, "batch_size": BATCH, "threads": 1}
    (folder / "run.json").write_text(canonical(state), encoding="utf-8")


def opened(folder: Path) -> tuple[float, int, float]:
    """(seconds, records that need no work, MiB)."""
    environment = {**os.environ, "DIFFGEN_CACHE": str(folder.parent / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(folder)], env=environment, check=True, capture_output=True, text=True
    )
    seconds, count, memory = done.stdout.split()
    return float(seconds), int(count), float(memory)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, action="append")
    parser.add_argument("--write", action="store_true", help="the table into docs/performance.md")
    args = parser.parse_args()
    lines = ["| records | opened again, s | MiB |", "|---|---|---|"]
    for count in args.records or [100_000, 1_000_000]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name, "run")
            folder.mkdir()
            started = time.perf_counter()
            write(folder, count)
            print(f"written in {time.perf_counter() - started:.0f} s", file=sys.stderr)
            first = opened(folder)
            seconds, _, memory = opened(folder)
            print(
                json.dumps(
                    {"records": count, "first_s": round(first[0], 1), "s": round(seconds, 1), "mb": round(memory)}
                )
            )
            lines.append(f"| {count:,} | {seconds:.1f} | {memory:.0f} |")
    if args.write:
        about = measured("records of pictures with 20 objects")
        write_table(PAGE, "records", "\n".join([*lines, "", about]), "scripts.bench.records")
    return 0


if __name__ == "__main__":
    sys.exit(main())
