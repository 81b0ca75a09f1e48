"""A worker process without torch: `python -m tests.run.worker_driver RECIPE (NAME/N | --shard I/N) LOG SECONDS [BUG_AT]`.

Writes the ids of the jobs that it is asked for into LOG; SECONDS is what a batch takes; at batch BUG_AT it has a bug.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from diffgen.checks import statistics
from diffgen.editing.editor import EditBatch
from diffgen.errors import DiffgenError
from diffgen.plan import batches as cutting
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from diffgen.run.part import read_shard, read_worker
from diffgen.run.progress import Lines
from tests.fakes import fake_worker
from tests.fakes_attempts import Melting

cutting.LANE = int(os.environ.get("LANE", "3"))
if "NO_FLOCK" in os.environ:  # as on a network file system without locks

    def _no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl.flock = _no_locks  # type: ignore[assignment]
statistics.LONG_SIDE = 96  # as in the tests' own process


@dataclass
class Logging(Melting):
    log: Path | None = None
    bug_at: int = -1

    def begin(self, batch: EditBatch) -> None:
        assert self.log is not None
        with self.log.open("a") as file:
            file.write("".join(f"{job.id}\n" for job in batch.jobs))
        if len(self.batches) == self.bug_at:
            raise IndexError("a bug")


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main(recipe: str, part: str, log: str, seconds: str, bug_at: str = "-1") -> int:
    editor = Logging(seconds=float(seconds), log=Path(log), bug_at=int(bug_at))
    shard = part.removeprefix("--shard=")
    own = read_shard(shard) if shard != part else read_worker(part)
    try:
        summary = run(
            load_recipe(Path(recipe)), make_worker=lambda: fake_worker(editor), part=own,
            progress=Lines(sys.stderr, as_json=True, every=0.05), notify=say,
        )  # fmt: skip
    except DiffgenError as error:
        say(f"error: {error.message}")
        return error.exit_code
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
