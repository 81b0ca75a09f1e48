"""Claims: how workers share the lanes of a plan without a scheduler, on any shared file system.

A worker claims a lane by creating claims/LANE, which only one can (O_EXCL), and touches it while it works. A claim that
was not touched for STALE_SECONDS belongs to a dead worker and may be taken. Ages use the clock of the file system, so the
clocks of two machines may differ; STALE_SECONDS is longer than network file systems cache attributes. If two workers make
the same lane anyway, no harm is done: see `united`.

Each worker also claims its own name, so that no other takes it, and so that others know who is there.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from diffgen.files import disk_errors

BEAT_SECONDS = 20.0
STALE_SECONDS = 180.0
_WORKER = "worker-"


class Claims:
    """What one worker has claimed. Leaving `with` releases it."""

    def __init__(self, folder: Path, worker: str) -> None:
        self._folder = folder / "claims"
        self._worker = worker
        self._held: set[Path] = set()
        self._end = threading.Event()
        self._beat: threading.Thread | None = None

    def __enter__(self) -> Claims:
        with disk_errors(self._folder):
            self._folder.mkdir(exist_ok=True)
        self._beat = threading.Thread(target=self._keep_alive, name="claims", daemon=True)
        self._beat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._beat is not None:
            self._beat.join()
        for path in list(self._held):
            self._free(path)

    def take(self, lane: int) -> bool:
        """Claim a lane; False if a living worker has it. Raises DiffgenError if nothing can be written."""
        return self._take(f"{lane:08d}")

    def release(self, lane: int) -> None:
        """Give a lane back that `take` gave, finished or not."""
        self._free(self._folder / f"{lane:08d}")

    def take_name(self) -> bool:
        """Claim the worker's name; False if a living worker has it."""
        return self._take(f"{_WORKER}{self._worker}")

    def note_plan(self, plan: str) -> None:
        """Tell the others what this worker makes, once it has begun."""
        with disk_errors(self._folder):
            (self._folder / f"{_WORKER}{self._worker}").write_text(self._text(plan=plan), "utf-8")

    def at_another(self, plan: str) -> list[str]:
        """The names of the other living workers that have begun another plan."""
        living = [json.loads(text) for text, _ in self._living(_WORKER)]
        return [one["worker"] for one in living if one["worker"] != self._worker and one.get("plan", plan) != plan]

    def elsewhere(self) -> list[str]:
        """Workers on other machines that were active within STALE_SECONDS; this machine's lock may not see them."""
        here = socket.gethostname()
        return [text for text, _ in self._living(_WORKER) if json.loads(text).get("host") != here]

    def _living(self, prefix: str) -> Iterator[tuple[str, Path]]:
        """(text, path) of the claims that are not stale."""
        if not self._folder.is_dir():
            return
        now = None
        for path in sorted(self._folder.glob(f"{prefix}*")):
            with suppress(OSError, ValueError):
                text, touched = path.read_text("utf-8"), path.stat().st_mtime
                json.loads(text)
                now = self._now() if now is None else now
                if now - touched < STALE_SECONDS:
                    yield text, path

    def _take(self, name: str) -> bool:
        path = self._folder / name
        with disk_errors(self._folder):
            if not self._create(path) and not (self._put_aside(path) and self._create(path)):
                return False
        self._held.add(path)
        return True

    def _free(self, path: Path) -> None:
        self._held.discard(path)
        with suppress(OSError):  # a claim that stays is stale in a while
            path.unlink(missing_ok=True)

    def _create(self, path: Path) -> bool:
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as file:
            file.write(self._text())
        return True

    def _text(self, **more: str) -> str:
        return json.dumps({"worker": self._worker, "host": socket.gethostname(), "pid": os.getpid(), **more})

    def _put_aside(self, path: Path) -> bool:
        """Move a dead worker's claim out of the way; returns whether it is gone."""
        aside = path.with_name(f"{path.name}.{self._worker}")
        try:
            seen = path.stat()
            if self._now() - seen.st_mtime < STALE_SECONDS:
                return False
            os.rename(path, aside)
            taken = aside.stat()
        except FileNotFoundError:  # it was released, or another worker was faster
            return True
        if (taken.st_ino, taken.st_mtime_ns) != (seen.st_ino, seen.st_mtime_ns):
            with suppress(OSError):  # another worker had taken it meanwhile: it is that one's claim
                os.link(aside, path)
        aside.unlink()
        return True

    def _now(self) -> float:
        """The time of the file system."""
        clock = self._folder / f"clock.{self._worker}"
        clock.write_bytes(b"")
        os.utime(clock)  # also on systems where writing nothing leaves the time
        now = clock.stat().st_mtime
        clock.unlink()
        return now

    def _keep_alive(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            for path in list(self._held):
                with suppress(OSError):
                    os.utime(path)


def free_claims_of(folder: Path, worker: str) -> None:
    """Free what a worker has claimed that is known to be dead."""
    for path in (folder / "claims").glob("*"):
        with suppress(OSError, ValueError):
            if json.loads(path.read_text("utf-8")).get("worker") == worker:
                path.unlink()
