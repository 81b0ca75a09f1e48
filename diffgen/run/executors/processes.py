"""Runs several workers as processes on this machine, each the same command with its own part.

They share the run folder and nothing else: each claims lanes, makes them and commits. A worker that dies is not replaced:
the others take over its lanes. A worker that fails with an error ends them all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffgen.errors import DiffgenError
from diffgen.run.progress import Progress
from diffgen.run.store.claims import free_claims_of

POLL_SECONDS = 0.2
LAST_LINES = 20  # of what a worker says, for the message when it fails


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a worker: its name, its arguments, and additions to this process's environment."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


class _Process:
    """A running worker and its output."""

    def __init__(self, command: Command, say: Callable[[str], None]) -> None:
        self.name = command.name
        self.progress: dict[str, int] = {}
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self._say = say
        self.process = subprocess.Popen(
            command.arguments, env={**os.environ, **command.environment}, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, name=self.name, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith('{"progress"'):
                self.progress = json.loads(line)["progress"]
            else:
                self.last.append(line.rstrip())
                self._say(f"{self.name}: {line.rstrip()}")

    def close(self) -> None:
        self._reader.join(timeout=5)
        if self.process.stderr is not None:
            self.process.stderr.close()

    def ended(self) -> int | None:
        """The process's exit code, negative for a signal; None while it runs."""
        code = self.process.poll()
        if code is not None:
            self._reader.join(timeout=5)
        return code


def run_processes(
    commands: Sequence[Command], folder: Path, progress: Progress, total: int, notify: Callable[[str], None],
    stopping: Callable[[], bool],
) -> list[str]:  # fmt: skip
    """Run the workers until all have ended; `total` are the images to make. Returns the names of those that died.

    Once `stopping` returns True, the workers finish their current batch and stop. Raises DiffgenError if one fails, or none
    is left.
    """
    workers = [_Process(command, notify) for command in commands]
    running, died, told = list(workers), [], False
    try:
        while running:
            if stopping() and not told:
                told = True
                for worker in running:
                    worker.process.send_signal(signal.SIGTERM)
            for worker in list(running):
                code = worker.ended()
                if code is None:
                    continue
                running.remove(worker)
                if code < 0 and not told:
                    died.append(worker.name)
                    free_claims_of(folder, worker.name)
                    notify(f"{worker.name} died ({signal.Signals(-code).name}); the other workers take over its images")
                elif code > 0 and not told:
                    said = [line for line in worker.last if line.startswith("error:")] or list(worker.last)[-2:]
                    raise DiffgenError(f"{worker.name} failed: {' '.join(said) or f'exit code {code}'}", "see above")
            _show(progress, workers, total)
            time.sleep(POLL_SECONDS)
    finally:
        for worker in running:
            worker.process.terminate()
        for worker in workers:
            worker.process.wait()
            worker.close()
    if died and len(died) == len(workers):
        raise DiffgenError(
            f"all {len(died)} workers died", "see the machine's log; run the same command again to resume"
        )
    return died


def _show(progress: Progress, workers: Sequence[_Process], total: int) -> None:
    known = [worker.progress for worker in workers if worker.progress]
    made, accepted = (sum(each[key] for each in known) for key in ("made", "accepted"))
    condition = f"{len(known)} workers"
    progress.update(made, max(total, made), accepted, condition)


def commands_for(options: Sequence[str], workers: int, gpus: Sequence[str] | None) -> list[Command]:
    """The commands of the workers, one per GPU if `gpus` is given; `options` are passed to all of them."""
    count = workers if gpus is None else len(gpus)
    shared = [sys.executable, "-m", "diffgen", "run", *options]
    # A queue.py in the working directory is no module of a worker, unless it is one of this process. From Python 3.11 on.
    usual = {} if {"", os.getcwd()} & set(sys.path) else {"PYTHONSAFEPATH": "1"}
    commands = []
    for i in range(count):
        name = f"worker{i}" if gpus is None else f"gpu{gpus[i]}"
        device = [] if gpus is None else ["--device", "cuda"]
        environment = usual if gpus is None else usual | {"CUDA_VISIBLE_DEVICES": gpus[i]}
        commands.append(Command(name, [*shared, *device, "--as-worker", f"{name}/{count}"], environment))
    return commands
