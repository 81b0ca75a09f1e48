"""Several processes on one run folder end as one does, whoever dies, and make nothing twice beyond what was in hand."""

from __future__ import annotations

import json
import os
import random
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
from diffgen.errors import DiffgenError, UsageError
from diffgen.plan import batches as cutting
from diffgen.recipe.load import load_recipe
from diffgen.run.executors.local import OVERLAP
from diffgen.run.executors.processes import Command, commands_for, run_processes
from diffgen.run.loop import run
from diffgen.run.part import read_shard
from diffgen.run.session import Session
from diffgen.run.store.claims import Claims
from diffgen.run.store.store import RunStore
from diffgen.run.summary import summary_text
from diffgen.run.together import run_together
from tests.fakes import fake_worker, make, make_dataset, read_records, tree, write_recipe
from tests.fakes_attempts import Melting
from tests.run.disturbed import no_worker

BATCH = 3


@pytest.fixture(scope="module", autouse=True)
def _short_lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(cutting, "LANE", 3)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("many") / "data", counts=(24, 2))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The dataset of one process that was not interrupted."""
    root = tmp_path_factory.mktemp("whole")
    summary, _ = make(recipe_for(root, data), Melting())
    assert summary.planned > summary.accepted > summary.saved > 0
    return tree(root / "out/dataset")


def recipe_for(root: Path, data: Path, **fields: Any) -> Path:
    return write_recipe(root / "r.yaml", data, root / "out", batch_size=BATCH, attempts=3, **fields)


def driver(recipe: Path, part: str, seconds: float = 0.0, bug_at: int = -1) -> list[str]:
    log = recipe.parent / "made.log"
    return [sys.executable, "-m", "tests.run.worker_driver", str(recipe), part, str(log), str(seconds), str(bug_at)]


def workers(recipe: Path, count: int, seconds: float = 0.0, bug_at: int = -1) -> list[Command]:
    return [Command(f"w{i}", driver(recipe, f"w{i}/{count}", seconds, bug_at)) for i in range(count)]


def made_more_than_once(root: Path) -> int:
    counts = Counter((root / "made.log").read_text().split())
    return sum(count - 1 for count in counts.values())


def together(recipe: Path, commands: list[Command], **options: Any) -> Any:
    return run_together(load_recipe(recipe), partial(run_processes, commands), fetch=False, **options)


@pytest.mark.parametrize("count", [1, 3])
def test_workers_end_as_one_process_does(count: int, data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, data)
    summary = together(recipe, workers(recipe, count, 0.02))
    assert tree(tmp_path / "out/dataset") == whole
    assert made_more_than_once(tmp_path) == 0
    assert (summary.exit_code, summary.pending) == (0, 0)
    assert summary.made_now == len(read_records(tmp_path / "out"))
    if count > 1:
        assert len(list((tmp_path / "out").glob("records-w*.jsonl"))) > 1, "one did it all"
    assert not list((tmp_path / "out").glob("claims/*"))
    again = run(load_recipe(recipe), make_worker=no_worker)
    assert (again.made_now, again.accepted) == (0, summary.accepted)
    assert together(recipe, workers(recipe, count)).made_now == 0, "a finished run starts nobody"


def test_a_killed_worker_s_work_is_taken_over(data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, data)
    said: list[str] = []

    def kill_one() -> None:
        rng = random.Random(1)
        for _ in range(2):
            time.sleep(rng.uniform(1.5, 2.5))
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            if children:
                os.kill(int(rng.choice(children)), signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    summary = together(recipe, workers(recipe, 4, 0.25), notify=said.append)
    killer.join()
    assert tree(tmp_path / "out/dataset") == whole
    assert summary.exit_code == 0
    died = sum("died (SIGKILL)" in line for line in said)
    assert died >= 1
    assert made_more_than_once(tmp_path) <= died * OVERLAP * BATCH


def test_shards_whose_number_changes_end_as_one_process_does(data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, data)
    first = run(load_recipe(recipe), make_worker=lambda: fake_worker(Melting()), part=read_shard("1/2"))
    assert first.exit_code == 0
    assert first.made_now > 0
    assert first.pending > 0
    assert not (tmp_path / "out/dataset").exists()
    assert "shard1of2 is done" in summary_text(first)
    processes = [subprocess.Popen(driver(recipe, f"--shard={i}/3", 0.02)) for i in (1, 2, 3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert made_more_than_once(tmp_path) == 0
    export(load_recipe(tmp_path / "out"))
    assert tree(tmp_path / "out/dataset") == whole


def on_machine(name: str, command: list[str]) -> list[str]:
    """The command with a host name and process numbers of its own, as on another machine."""
    namespaces = ["--user", "--map-root-user", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return ["unshare", *namespaces, "sh", "-c", f'hostname {name}; "$@"', "sh", *command]


def claimed_by(folder: Path) -> list[dict[str, Any]]:
    """What living and dead workers say of themselves."""
    return [json.loads(text) for path in folder.glob("claims/worker-*") if (text := path.read_text())]


def test_two_machines_without_locks_of_which_one_dies(data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    if subprocess.run(on_machine("probe", ["true"]), capture_output=True, check=False).returncode:
        pytest.skip("no namespaces here")
    recipe, environment = recipe_for(tmp_path, data), {**os.environ, "NO_FLOCK": "1"}
    north = subprocess.Popen(on_machine("north", driver(recipe, "--shard=1/2", 0.5)), env=environment)
    south = subprocess.Popen(on_machine("south", driver(recipe, "--shard=2/2", 0.2)), env=environment)
    log = tmp_path / "made.log"
    while not log.exists() or len(log.read_text().split()) < 12 or len(claimed_by(tmp_path / "out")) < 2:
        assert (north.poll(), south.poll()) == (None, None)
        time.sleep(0.02)
    first, second = claimed_by(tmp_path / "out")
    assert {first["host"], second["host"]} == {"north", "south"}
    assert first["pid"] == second["pid"], "numbers that tell nothing apart"
    north.kill()
    assert north.wait() == -signal.SIGKILL
    assert south.wait() == 0
    long_ago = time.time() - 1000  # a claim of the dead becomes stale
    for path in (tmp_path / "out/claims").glob("*"):
        os.utime(path, (long_ago, long_ago))
    again = subprocess.run(on_machine("east", driver(recipe, "--shard=1/2")), env=environment, check=False)
    assert again.returncode == 0
    assert made_more_than_once(tmp_path) <= OVERLAP * BATCH
    export(load_recipe(tmp_path / "out"))
    assert tree(tmp_path / "out/dataset") == whole


def test_every_lane_is_of_one_shard() -> None:
    for count in (1, 2, 7):
        parts = [read_shard(f"{i}/{count}") for i in range(1, count + 1)]
        assert all(sum(part.has(lane) for part in parts) == 1 for lane in range(100))
        assert len({part.worker for part in parts}) == count


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "a/b", "-1/2", "1/2/3", ""])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not of the form I/N"):
        read_shard(text)


def test_a_bug_in_a_worker_ends_all_and_says_whose_it_was(data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, data)
    commands = [*workers(recipe, 2, 0.3)[:1], *workers(recipe, 2, 0.3, bug_at=2)[1:]]
    with pytest.raises(DiffgenError, match=r"w1 failed: .*IndexError: a bug"):
        together(recipe, commands)
    assert read_records(tmp_path / "out"), "what was made is kept"
    assert together(recipe, workers(recipe, 2)).exit_code == 0


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python cannot leave the working directory out")
def test_files_of_the_working_directory_are_no_modules_of_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("queue", "random", "tempfile"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user')\n")
    monkeypatch.chdir(tmp_path)
    command = commands_for(["--help"], 1, None)[0]
    done = subprocess.run(
        command.arguments, env={**os.environ, **command.environment}, capture_output=True, text=True, check=False
    )
    assert "a file of the user" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert commands_for([], 1, ["2"])[0].environment["CUDA_VISIBLE_DEVICES"] == "2"
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "PYTHONSAFEPATH" not in commands_for([], 1, None)[0].environment


def test_all_workers_dead_is_one_error(data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, data)
    dead = [Command(f"w{i}", [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) for i in range(2)]
    with pytest.raises(DiffgenError, match="all 2 workers died"):
        together(recipe, dead)


def test_workers_of_another_recipe_are_refused(data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, data)
    process = subprocess.Popen(driver(recipe, "w0/2", 0.5), stderr=subprocess.DEVNULL)
    try:
        claim = tmp_path / "out/claims/worker-w0"
        while not claim.exists() or "plan" not in claim.read_text():  # it has not begun
            time.sleep(0.05)
            assert process.poll() is None
        other = write_recipe(tmp_path / "other.yaml", data, tmp_path / "out", batch_size=BATCH, seed=9)
        with pytest.raises(UsageError, match="1 workers are making images of another recipe"):
            run(load_recipe(other), make_worker=lambda: fake_worker(Melting()), part=read_shard("1/2"))
        with pytest.raises(DiffgenError, match="another worker named w0"):
            RunStore(tmp_path / "out", "jpg", "w0", shared=True)
        with pytest.raises(DiffgenError, match="another diffgen is writing there"):
            export(load_recipe(tmp_path / "out"))
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143


def test_one_that_has_not_begun_makes_nothing_else_yet(tmp_path: Path) -> None:
    """Workers that start at once see each other before the first has said what it makes."""
    RunStore(tmp_path, "jpg").close()
    with Claims(tmp_path, "north") as north, Claims(tmp_path, "south") as south:
        assert north.take_name()
        assert south.take_name()
        assert south.at_another("plan") == []
        north.note_plan("plan")
        assert south.at_another("plan") == []
        assert south.at_another("other") == ["north"]
        assert north.at_another("plan") == []


def test_workers_of_another_machine_are_seen_where_its_lock_is_not(tmp_path: Path) -> None:
    RunStore(tmp_path, "jpg").close()
    with Claims(tmp_path, "far") as far:
        assert far.take_name()
        RunStore(tmp_path, "jpg", "near", shared=True).close()
        claim = tmp_path / "claims/worker-far"
        claim.write_text(json.dumps({"worker": "far", "host": "elsewhere", "pid": 1}))
        with pytest.raises(DiffgenError, match="1 workers on other machines were active there"):
            RunStore(tmp_path, "jpg")
        os.utime(claim, (0, 0))  # it died long ago
        RunStore(tmp_path, "jpg").close()
        far._held.clear()


def test_a_file_system_without_locks_is_enough_for_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffgen.run.store import store as storing

    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(storing.fcntl, "flock", no_locks)
    with RunStore(tmp_path, "jpg", "a", shared=True) as a, RunStore(tmp_path, "jpg", "b", shared=True) as b:
        assert a.claims().take(0)
        assert not b.claims().take(0)
    with pytest.raises(DiffgenError, match="cannot lock files"):
        RunStore(tmp_path, "jpg")


def test_run_json_keeps_what_each_worker_writes(tmp_path: Path) -> None:
    RunStore(tmp_path, "jpg").close()

    def write(name: str) -> None:
        with RunStore(tmp_path, "jpg", name, shared=True) as store:
            for i in range(20):
                store.environment({"worker": name, "number": i})

    threads = [threading.Thread(target=write, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads((tmp_path / "run.json").read_text())["environments"]) == 80


def test_stopping_stops_them_all_and_the_next_run_goes_on(data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, data)
    first = together(recipe, workers(recipe, 2, 0.3), max_minutes=0.05)
    assert (first.exit_code, first.stopped) == (4, "max-minutes")
    assert first.made_now > 0
    summary = together(recipe, workers(recipe, 2))
    assert summary.exit_code == 0
    assert tree(tmp_path / "out/dataset") == whole
    assert made_more_than_once(tmp_path) == 0, "SIGTERM lets a worker finish what it has in hand"


def test_the_commands_of_workers_and_of_gpus() -> None:
    two = commands_for(["r.yaml"], 2, None)
    assert [command.name for command in two] == ["worker0", "worker1"]
    assert two[1].arguments[-2:] == ["--as-worker", "worker1/2"]
    gpus = commands_for(["r.yaml"], 0, ["0", "3"])
    assert [dict(command.environment) for command in gpus] == [
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "3"},
    ]
    assert "cuda" in gpus[0].arguments


def test_a_job_that_two_made_has_one_image_and_its_record(data: Path, tmp_path: Path) -> None:
    """As when a claim was taken for stale whose worker was only slow, on another device."""
    recipe = recipe_for(tmp_path, data)
    make(recipe, Melting())
    session = Session.open(load_recipe(recipe))
    before = read_records(tmp_path / "out")
    with RunStore(tmp_path / "out", "jpg", "slow", shared=True) as store:
        from diffgen.types import Record, Result

        job = next(iter(before))
        store.commit([Result(Record(job, "made", before[job].facts, "0" * 64), b"other bytes")])
    from diffgen.run.store.images import read_present

    assert read_present(tmp_path / "out", "jpg")[job].sha256 == before[job].sha256
    assert session.outcome(read_present(tmp_path / "out", "jpg")).finished
