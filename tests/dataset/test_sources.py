"""Reading sources in processes: complete, in spite of workers that die, and without leaving any behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from diffgen.dataset import sources
from diffgen.dataset.formats import Found
from diffgen.dataset.sources import CHUNK
from tests.dataset.reading import read
from tests.fakes import make_dataset

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")

TEST_PROCESS = os.getpid()


def entries(count: int) -> list[Found]:
    return [Found("train", f"{i}.jpg", "/images", None) for i in range(count)]


def name_and_process(entry: Found) -> dict[str, Any]:
    return {"name": entry.image, "process": os.getpid()}


def killed_at_200(entry: Found) -> dict[str, Any]:
    if entry.image == "200.jpg" and os.getpid() != TEST_PROCESS:
        os.kill(os.getpid(), signal.SIGKILL)
    return name_and_process(entry)


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MANY", 0)
    # Threads that other tests left idle do not count: they hold no lock.
    count = threading.active_count
    left_over = count() - 1
    monkeypatch.setattr(threading, "active_count", lambda: count() - left_over)


def test_every_source_is_read_once_and_in_order_by_other_processes() -> None:
    found = list(sources._side_by_side(name_and_process, entries(500)))
    assert [one["name"] for one in found] == [f"{i}.jpg" for i in range(500)]
    assert TEST_PROCESS not in {one["process"] for one in found}
    assert multiprocessing.active_children() == []


def test_what_a_killed_worker_does_not_deliver_is_read_by_threads() -> None:
    found = list(sources._side_by_side(killed_at_200, entries(20 * CHUNK)))
    assert [one["name"] for one in found] == [f"{i}.jpg" for i in range(20 * CHUNK)]
    assert found[200]["process"] == TEST_PROCESS
    assert multiprocessing.active_children() == []


def test_facts_are_the_same_from_processes_and_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_dataset(tmp_path, counts=(6, 3))
    monkeypatch.setenv("DIFFGEN_CACHE", str(tmp_path / "one"))
    processes = read(data)
    monkeypatch.setattr(sources, "MANY", 2000)
    monkeypatch.setenv("DIFFGEN_CACHE", str(tmp_path / "two"))
    assert read(data).sources == processes.sources


def test_nothing_is_forked_beside_other_threads() -> None:
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    try:
        found = list(sources._side_by_side(name_and_process, entries(3)))
    finally:
        stop.set()
        other.join()
    assert {one["process"] for one in found} == {TEST_PROCESS}


@pytest.mark.parametrize("allowed", [0, 1])
def test_no_more_processes_is_no_error(allowed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fork, forked = os.fork, []

    def limited() -> int:
        if len(forked) == allowed:
            raise BlockingIOError("Resource temporarily unavailable")
        forked.append(True)
        return fork()

    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "fork", limited)
    assert len(list(sources._side_by_side(name_and_process, entries(10)))) == 10
    deadline = time.monotonic() + 60
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_no_worker_outlives_its_parent(tmp_path: Path, number: signal.Signals, code: int) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, signal, time\n"
        "from diffgen.dataset import sources\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it\n"
        "def work(entry):\n"
        "    open(f'{os.environ[\"PIDS\"]}/{os.getpid()}', 'w').close()\n"
        "    time.sleep(0.01)\n"
        "    return {}\n"
        "sources.MANY = 0\n"
        "try:\n"
        "    for _ in sources._side_by_side(work, range(100000)): pass\n"
        "except KeyboardInterrupt:\n"
        "    raise SystemExit(130)\n"
    )
    pids = tmp_path / "pids"
    pids.mkdir()
    # A session of its own, so that SIGINT reaches parent and workers, as Ctrl-C does.
    parent = subprocess.Popen(
        [sys.executable, script], env={**os.environ, "PIDS": str(pids)}, start_new_session=True, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 240
    while not list(pids.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.kill() if number == signal.SIGKILL else os.killpg(parent.pid, number)
    _, said = parent.communicate(timeout=60)
    workers = [int(path.name) for path in pids.iterdir()]
    assert (parent.returncode, said) == (code, b"")
    assert workers
    while any(map(_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_alive, workers))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return False
    return state != "Z"
