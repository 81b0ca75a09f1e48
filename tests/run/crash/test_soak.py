"""Ten thousand jobs, killed two hundred times: by one process, by four, by shards whose number changes, and by Ray.

Each must end with the dataset of one process that was never killed, and may have made no job twice beyond what the killed
ones had in hand.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from diffgen.commands.export import export
from diffgen.errors import DiffgenError
from diffgen.plan import batches as cutting
from diffgen.recipe.load import load_recipe
from diffgen.run.executors.local import OVERLAP
from diffgen.run.executors.processes import Command, run_processes
from diffgen.run.loop import run
from diffgen.run.part import Part
from diffgen.run.together import run_together
from tests.fakes import make_dataset, tree, write_recipe

pytestmark = pytest.mark.slow

SOURCES, VARIANTS, BATCH, LANE, KILLS = 200, 10, 16, 8, 50  # few sources: those that are read are kept, and take memory
CONDITIONS = ["night", "fog", "snow", "rain", "dusk"]


@pytest.fixture(scope="module", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        patch.setenv("LANE", str(LANE))
        patch.setattr(cutting, "LANE", LANE)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("soak") / "data", counts=(SOURCES, 2), size=(48, 32))


def recipe_for(root: Path, data: Path) -> Path:
    fields = {"conditions": CONDITIONS, "variants": VARIANTS, "batch_size": BATCH, "attempts": 2}
    return write_recipe(root / "r.yaml", data, root / "out", **fields)


def driver(recipe: Path, part: str) -> list[str]:
    return [sys.executable, "-m", "tests.run.worker_driver", str(recipe), part, str(recipe.parent / "made.log"), "0"]


def spawned(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(arguments, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One process, never killed; its memory must not grow with the images it makes."""
    root = tmp_path_factory.mktemp("whole")
    recipe = recipe_for(root, data)
    process = spawned(driver(recipe, "w0/1"))
    sizes = []
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status")
        try:
            text = status.read_text()
        except (FileNotFoundError, ProcessLookupError):
            break
        if "VmRSS" in text and (root / "out/records-w0.jsonl").exists():
            sizes.append(int(text.split("VmRSS:")[1].split()[0]) / 1024)
        time.sleep(0.25)
    assert process.wait() == 0
    export(load_recipe(root / "out"))
    middle, last = max(sizes[: len(sizes) // 2]), max(sizes[-len(sizes) // 4 :])
    assert last - middle < 60, f"{middle:.0f} MiB in the middle, {last:.0f} at the end"  # records: a few kB an image
    return tree(root / "out/dataset")


def check(root: Path, whole: dict[str, str], kills: int) -> None:
    assert tree(root / "out/dataset") == whole
    counts = Counter((root / "made.log").read_text().split())
    assert len(counts) >= SOURCES * len(CONDITIONS) * VARIANTS
    assert sum(count - 1 for count in counts.values()) <= kills * (OVERLAP + 1) * BATCH


def test_one_process(data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    recipe, moments, kills = recipe_for(tmp_path, data), random.Random(1), 0
    while True:
        process = spawned(driver(recipe, f"w{kills % 3}/1"))  # another name: the last one's claim is not stale yet
        try:
            assert process.wait(timeout=moments.uniform(2, 4 + 0.2 * kills) if kills < KILLS else 600) == 0
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            shutil.rmtree(tmp_path / "out/claims", ignore_errors=True)  # what three minutes would do
    export(load_recipe(tmp_path / "out"))
    check(tmp_path, whole, kills)


def test_four_processes(data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    recipe, moments = recipe_for(tmp_path, data), random.Random(2)
    kills, over = 0, threading.Event()

    def kill() -> None:
        nonlocal kills
        while not over.wait(moments.uniform(0.5, 2)) and kills < KILLS:
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            if len(children) > 1:
                os.kill(int(moments.choice(children)), signal.SIGKILL)
                kills += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        while True:
            commands = [Command(f"w{i}", driver(recipe, f"w{i}/4")) for i in range(4)]
            try:
                summary = run_together(load_recipe(recipe), partial(run_processes, commands), fetch=False)
            except DiffgenError as error:
                assert "workers died" in error.message
                continue
            if summary.exit_code == 0:
                break
    finally:
        over.set()
        killer.join()
    check(tmp_path, whole, kills)


def test_shards_whose_number_changes(data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    """Without locks, as some network file systems are; a killed shard is started again as a scheduler would."""
    recipe, moments, kills = recipe_for(tmp_path, data), random.Random(3), 0
    environment = {**os.environ, "NO_FLOCK": "1"}
    for count in (3, 5, 2):
        left = {f"{i}/{count}" for i in range(1, count + 1)}
        while left:
            said = {shard: (tmp_path / f"said-{shard.replace('/', '-')}.txt") for shard in left}
            running = {
                shard: subprocess.Popen(driver(recipe, f"--shard={shard}"), env=environment, stderr=path.open("w"))
                for shard, path in said.items()
            }
            wait = moments.uniform(3, 6)
            time.sleep(wait if kills < KILLS and count != 2 else 0)
            for shard, process in running.items():
                if count != 2 and kills < KILLS and moments.random() < 0.7 and process.poll() is None:
                    process.kill()
                    kills += 1
                code = process.wait(timeout=900)
                assert code in (0, -signal.SIGKILL), said[shard].read_text()
                left -= {shard} if code == 0 else set()
            shutil.rmtree(tmp_path / "out/claims", ignore_errors=True)  # what three minutes would do
            if count != 2 and kills >= KILLS // 2 * (1 + (count == 5)):
                break  # the number of shards is changed in the middle
    export(load_recipe(tmp_path / "out"))
    check(tmp_path, whole, kills)


def test_ray_whose_workers_are_killed(data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from diffgen.run.executors import ray as ours
    from tests.fakes import fake_worker
    from tests.run.worker_driver import Logging

    cluster = ours.connect(None)
    recipe, moments, pids = recipe_for(tmp_path, data), random.Random(4), tmp_path / "pids"
    pids.mkdir()
    kills, over = 0, threading.Event()

    def work(name: str, progress: Any) -> None:
        (pids / name).write_text(str(os.getpid()))
        editor = Logging(log=recipe.parent / "made.log")
        run(load_recipe(recipe), make_worker=lambda: fake_worker(editor), part=Part(name), progress=progress)

    def kill() -> None:
        nonlocal kills
        while not over.wait(moments.uniform(0.5, 2)) and kills < KILLS:
            for path in moments.sample(sorted(pids.iterdir()), k=min(1, len(list(pids.iterdir())))):
                pid = int(path.read_text())
                path.unlink()
                try:
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
                except ProcessLookupError:
                    pass

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        while True:
            executor = partial(ours.run_ray, cluster, work, ours.places(cluster, 4))
            try:
                if run_together(load_recipe(recipe), executor, fetch=False).exit_code == 0:
                    break
            except DiffgenError as error:
                assert "workers died" in error.message
    finally:
        over.set()
        killer.join()
        cluster.shutdown()
    check(tmp_path, whole, kills)
