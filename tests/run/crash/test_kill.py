"""Killed at any moment, a run that is started again ends with the dataset of one that never stopped.

Children are forked, not spawned: fifty starts of Python would take longer than what they prove. The worker is torch-free;
its editor makes the last bits of each image depend on the whole batch, as floating point does, so that byte-equality
proves that resumed runs make the same batches.
"""

from __future__ import annotations

import errno
import io
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from diffgen.editing.editor import EditBatch
from diffgen.errors import DiffgenError
from diffgen.plan import batches as cutting
from diffgen.run.executors.local import OVERLAP
from diffgen.run.summary import Summary
from tests.fakes import FakeEditor, make, make_dataset, read_records, tree, write_recipe
from tests.fakes_attempts import Melting

# Many processes one after the other: minutes on a machine with other work.
pytestmark = pytest.mark.slow

BATCH = 3
ATTEMPTS = 3  # some images are rejected at first, and some for good


@dataclass
class LoggingEditor(Melting):
    """Writes down the jobs it is asked for, where a kill cannot take it back."""

    log: Path | None = None

    def begin(self, batch: EditBatch) -> None:
        assert self.log is not None
        with self.log.open("a") as file:
            file.write("".join(f"{job.id}\n" for job in batch.jobs))


@pytest.fixture(scope="module", autouse=True)
def _short_lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A plan of several lanes; and a cache for the fixtures of the module, which are made before those of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(cutting, "LANE", 3)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("crash") / "data", counts=(12, 2))


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run: its dataset, how many images were accepted, and how many made."""

    files: dict[str, str]
    accepted: int
    jobs: int


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    root = tmp_path_factory.mktemp("whole")
    summary, editor = again(recipe_for(root, data, root / "out"))
    assert summary.planned > summary.accepted > summary.saved > 0
    assert len(editor.made) > summary.planned
    return Whole(tree(root / "out/dataset"), summary.accepted, len(editor.made))


def recipe_for(root: Path, data: Path, out: Path) -> Path:
    return write_recipe(root / f"{out.name}.yaml", data, out, batch_size=BATCH, attempts=ATTEMPTS)


def again(recipe: Path) -> tuple[Summary, FakeEditor]:
    return make(recipe, Melting())


def in_child(work: Callable[[], Any]) -> int:
    """Run `work` in a forked child; returns its pid. The child never comes back."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_fifty_random_moments(seed: int, data: Path, whole: Whole, tmp_path: Path) -> None:
    moments = random.Random(seed)
    kills = runs = 0
    while kills < 50:
        runs += 1
        out, log = tmp_path / f"out{runs}", tmp_path / f"log{runs}"
        recipe = recipe_for(tmp_path, data, out)
        killed_here = 0
        while True:
            pid = in_child(lambda: make(recipe, LoggingEditor(seconds=0.03, log=log)))  # noqa: B023 the child runs now
            time.sleep(moments.uniform(0.02, 0.5 + 0.1 * killed_here))  # on a busy machine it must get on, too
            os.kill(pid, signal.SIGKILL)
            if ended(pid) == 0:
                break
            killed_here += 1
        kills += killed_here
        summary, editor = again(recipe)
        assert (summary.accepted, editor.made) == (whole.accepted, [])
        assert tree(out / "dataset") == whole.files
        made = Counter(log.read_text().split())
        assert len(made) == whole.jobs
        # What a kill can cost is the batches in hand: one on the device, the others being checked, encoded or committed.
        assert made.total() - whole.jobs <= killed_here * OVERLAP * BATCH


CALLS = ("replace", "fsync", "link", "truncate", "rmdir", "unlink", "mkdir", "symlink", "open")


def at_call(number: int, then: Callable[[str, Any], None], patch: pytest.MonkeyPatch) -> list[int]:
    """Let the calls of `CALLS` be counted in the returned list, and `then` happen before the one with `number`."""
    count = [0]

    def wrap(name: str) -> None:
        place = io if name == "open" else os
        real = getattr(place, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if name != "open" or set(str(kwargs.get("mode", args[1] if len(args) > 1 else "r"))) & set("wa+"):
                count[0] += 1
                if count[0] == number:
                    then(name, args)
            return real(*args, **kwargs)

        patch.setattr(place, name, wrapped)

    for name in CALLS:
        wrap(name)
    return count


@pytest.fixture(scope="module")
def writes(data: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many of these calls an uninterrupted run makes."""
    root = tmp_path_factory.mktemp("count")
    recipe = recipe_for(root, data, root / "out")
    with pytest.MonkeyPatch.context() as patch:
        count = at_call(0, lambda *_: None, patch)
        _, editor = again(recipe)
    assert count[0] > 3 * len(editor.made)
    return count[0]


def die_torn(name: str, args: Any) -> None:
    """SIGKILL; what was being forced to disk is only half there."""
    if name == "fsync":
        size = os.fstat(args[0]).st_size
        if not os.path.isdir(f"/proc/self/fd/{args[0]}"):
            os.ftruncate(args[0], size // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_in_the_middle_of_every_third_write(data: Path, whole: Whole, writes: int, tmp_path: Path) -> None:
    for number in range(1, writes + 1, 3):
        out = tmp_path / f"out{number}"
        recipe = recipe_for(tmp_path, data, out)

        def work(number: int = number, recipe: Path = recipe) -> None:
            with pytest.MonkeyPatch.context() as patch:
                at_call(number, die_torn, patch)
                again(recipe)

        assert ended(in_child(work)) == -signal.SIGKILL
        committed = len(read_records(out))
        summary, editor = again(recipe)
        assert summary.accepted == whole.accepted
        assert len(editor.made) <= whole.jobs - max(0, committed - BATCH)
        assert summary.repaired == []
        assert tree(out / "dataset") == whole.files, f"killed at call {number} of {writes}"


def test_every_second_write_made_to_fail_once(data: Path, whole: Whole, writes: int, tmp_path: Path) -> None:
    """A full disk at each of them: one clear error, and the next run ends as if nothing had happened."""

    def full(name: str, args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for number in range(1, writes + 1, 2):
        out = tmp_path / f"out{number}"
        recipe = recipe_for(tmp_path, data, out)
        with pytest.MonkeyPatch.context() as patch:
            at_call(number, full, patch)
            try:
                again(recipe)
            except DiffgenError as error:
                assert "No space left" in error.message, f"call {number} of {writes}"
                assert error.hint
            else:  # only clearing away, and sharing instead of copying, may go wrong without harm
                assert tree(out / "dataset") == whole.files
        summary, _ = again(recipe)
        assert summary.accepted == whole.accepted
        assert tree(out / "dataset") == whole.files, f"failed at call {number} of {writes}"


def test_what_follows_the_last_whole_batch_is_made_again(data: Path, whole: Whole, tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, data, tmp_path / "out")
    again(recipe)
    records = tmp_path / "out/records-0.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    first = len(lines) - 1 - json.loads(lines[-1])["commit"]
    last = lines[first:-1]
    for tail in ("", last[0], "".join(last), "".join(last) + lines[-1][:9], "".join(last)[:-30]):
        records.write_text("".join(lines[:first]) + tail)
        summary, editor = again(recipe)
        assert (summary.accepted, summary.repaired) == (whole.accepted, [])
        assert sorted(editor.made) == sorted(json.loads(line)["id"] for line in last)
        assert tree(tmp_path / "out/dataset") == whole.files
