"""How long a newcomer waits for the first image: a whole `diffgen run` of one photograph in a process of its own.

    sync; echo 3 > /proc/sys/vm/drop_caches   # as root, before it: else the first is as warm as the others
    python -m scripts.bench.cold

Prints one JSON line: seconds of each of three runs, imports and report included, each into a new folder and without a
cache of diffgen's. Only the first can have been cold for the system.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.demo import write_dataset

RUNS = 3
RECIPE = """
dataset: {data}
output: out
model: pocket
conditions: [snow]
"""


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    seconds = []
    with tempfile.TemporaryDirectory() as name:
        data = write_dataset(Path(name) / "data")
        for i in range(RUNS):
            folder = Path(name) / str(i)
            folder.mkdir()
            (folder / "r.yaml").write_text(RECIPE.format(data=data), encoding="utf-8")
            environment = {**os.environ, "DIFFGEN_CACHE": str(folder / "cache")}
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "diffgen", "run", "r.yaml", "--limit", "1"],
                cwd=folder, env=environment, capture_output=True, text=True,
            )  # fmt: skip
            seconds.append(round(time.monotonic() - began, 1))
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                return 1
    print(json.dumps({"seconds": seconds}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
