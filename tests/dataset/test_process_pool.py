"""Work in copies of this process: complete, in spite of copies that die, and without leaving any behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffgen.dataset import dataset as sources
from diffgen.dataset import forked as forks
from diffgen.dataset.forked import CHUNK, can_fork, forked
from tests.dataset.reading import read
from tests.fakes import make_dataset

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="copies are made on Linux only")


def test_copies_can_be_made_here() -> None:
    assert can_fork()


def test_every_job_is_done_once() -> None:
    assert sorted(forked(lambda i: i * i, range(5, 505))) == [(i, i * i) for i in range(5, 505)]


def test_what_a_dying_copy_owes_is_left_out() -> None:
    parent = os.getpid()

    def work(i: int) -> int:
        if i == 7:
            assert os.getpid() != parent
            os.kill(os.getpid(), signal.SIGKILL)
        return i

    found = dict(forked(work, range(4 * CHUNK * (os.cpu_count() or 1))))
    assert 7 not in found
    assert all(found[i] == i for i in found)


def test_facts_are_the_same_from_copies_and_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_dataset(tmp_path, counts=(6, 3))
    monkeypatch.setenv("DIFFGEN_CACHE", str(tmp_path / "one"))
    threads = read(data)
    monkeypatch.setattr(sources, "MANY", 0)
    monkeypatch.setenv("DIFFGEN_CACHE", str(tmp_path / "two"))
    assert read(data).sources == threads.sources


def test_no_copy_outlives_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, time\n"
        "from diffgen.dataset.forked import forked\n"
        "def work(i):\n"
        "    if i < 8: open(f'{os.environ[\"PIDS\"]}/{os.getpid()}', 'w').close()\n"
        "    time.sleep(0.01)\n"
        "    return 'x' * 4000\n"
        "for _ in forked(work, range(100000)): time.sleep(1)\n"
    )
    pids = tmp_path / "pids"
    pids.mkdir()
    parent = subprocess.Popen([sys.executable, script], env={**os.environ, "PIDS": str(pids)})
    deadline = time.monotonic() + 240
    while not list(pids.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    copies = [int(path.name) for path in pids.iterdir()]
    assert copies
    while any(map(_alive, copies)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_alive, copies))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return False
    return state != "Z"


def test_no_more_processes_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refused)
    assert list(forks.forked(lambda i: i, range(10))) == []
