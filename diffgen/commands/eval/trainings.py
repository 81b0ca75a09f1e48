"""The trainings of an evaluation as jobs: named by what goes into them, run one a device, and done once.

`trainings/KEY/` holds `last.pt` when a detector is trained, and `DIGEST.json` for each test set that it has looked at; a
training of two stages `stage-1.pt`, too. A killed stage starts again; finished work is never repeated.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffgen.errors import DiffgenError, printable
from diffgen.files import write_atomically
from diffgen.types import canonical, digest_of
from diffgen.version import installed_version

ZERO_SHOT = "zero-shot"
# Ultralytics' own defaults otherwise. `nbs` is the batch size, so that each batch is a step: with the default of 64 a small
# batch would be collected over several. No early stop, no other epochs than asked for. What is FIXED is not for users.
FIXED = (
    "data", "model", "seed", "val", "nbs", "project", "name", "exist_ok", "resume", "device", "patience", "fraction",
    "classes", "time", "plots", "deterministic", "save", "single_cls", "cfg", "task", "mode", "pretrained",
)  # fmt: skip
DEFAULTS: dict[str, Any] = {"epochs": 10, "imgsz": 640, "batch": 16, "workers": 2}
PACKAGES = str(Path(__file__).parents[3])  # the folder that diffgen was imported from


@dataclass(frozen=True, slots=True)
class Training:
    """A detector to train on an arm with a seed; the given weights themselves for ZERO_SHOT."""

    arm: str
    seed: int
    key: str
    data: tuple[str, ...] = ()  # the arm's data.yaml; several are stages, in order; none for ZERO_SHOT


def training_key(weights: str, arm: str, seed: int, size: int, options: Mapping[str, Any]) -> str:
    """The name of a training: a hash of the digests of weights and arm, the seed, the options, and Ultralytics' version."""
    versions = [installed_version(package) for package in ("ultralytics", "torch")]
    return digest_of(canonical([weights, arm, seed, size, dict(options), versions]))[:32]


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file.read())
        )


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how detectors are trained and tested. `tests` are name -> (digest, data.yaml)."""

    folder: Path
    weights: Path
    size: int
    options: Mapping[str, Any]
    tests: Mapping[str, tuple[str, Path]]
    command: tuple[str, ...] = (sys.executable, "-m", "diffgen.commands.eval.trainer")

    def trained(self, training: Training) -> bool:
        return not training.data or (self._place(training) / "last.pt").is_file()

    def seconds(self, training: Training) -> float | None:
        """How long the training took; None if it is not done, or was none."""
        return self._spent(training) if self.trained(training) else None

    def _spent(self, training: Training) -> float | None:
        """Seconds of the stages that are trained."""
        try:
            return float((self._place(training) / "seconds").read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def missing(self, training: Training) -> dict[str, tuple[str, Path]]:
        """The test sets that the detector has not looked at."""
        return {name: test for name, test in self.tests.items() if not self._result(training, test[0]).is_file()}

    def done(self, training: Training) -> bool:
        return not self.missing(training)

    def found(self, training: Training, name: str) -> dict[str, Any]:
        """What the detector found on a test set; see `trainer`."""
        read: dict[str, Any] = json.loads(self._result(training, self.tests[name][0]).read_text("utf-8"))
        return read

    def _place(self, training: Training) -> Path:
        return self.folder / "trainings" / training.key

    def _result(self, training: Training, test: str) -> Path:
        return self._place(training) / f"{test[:16]}.json"

    def work(self, training: Training, device: str, stopping: Callable[[], bool] = lambda: False) -> None:
        """Train and test one detector, skipping what is already done. Raises DiffgenError if its process fails."""
        place, missing, jobs = self._place(training), self.missing(training), self._jobs(training, device)
        place.mkdir(parents=True, exist_ok=True)
        if not jobs:
            return
        for job in jobs:
            started = time.monotonic()
            if not self._call(place, job, stopping):
                return
            if "data" in job:
                spent = (self._spent(training) or 0) + time.monotonic() - started
                write_atomically(place / "seconds", f"{spent:.1f}\n")
        part = place / "found.json"
        found = json.loads(part.read_text("utf-8"))
        for name, (digest, _) in missing.items():
            write_atomically(self._result(training, digest), json.dumps(found[name]))
        part.unlink()

    def _jobs(self, training: Training, device: str) -> list[dict[str, Any]]:
        """The remaining work, one entry per process: the untrained stages; the last one also runs the tests."""
        place, missing = self._place(training), self.missing(training)
        tests = {name: str(data) for name, (_, data) in missing.items()}
        shared = {"device": device, "size": self.size, "results": str(place / "found.json"), "own": bool(training.data)}
        if self.trained(training):
            trained = place / "last.pt" if training.data else self.weights
            return [{**shared, "weights": str(trained), "tests": tests}] if missing else []
        jobs, weights = [], self.weights
        for number, data in enumerate(training.data, 1):
            last = number == len(training.data)
            checkpoint = place / ("last.pt" if last else f"stage-{number}.pt")
            if not checkpoint.is_file():
                train = {"data": data, "seed": training.seed, "options": dict(self.options), "last": str(checkpoint)}
                jobs.append({**shared, **train, "weights": str(weights), "tests": tests if last else {}})
            weights = checkpoint
        return jobs

    def _call(self, place: Path, job: Mapping[str, Any], stopping: Callable[[], bool]) -> bool:
        """Run a job in a process of its own, whose talk goes to log.txt. False if it was ended because of `stopping`."""
        path = place / "job.json"
        write_atomically(path, json.dumps(job, indent=1))
        # The modules of this process, wherever they come from, but not the working directory: `python -m` adds it, and a
        # user's random.py there would come before Python's own. So the child works in its own folder, too. A session of its
        # own, as Ctrl-C is the parent's to handle.
        entries = [os.path.abspath(entry) for entry in sys.path if entry]
        entries = [entry for entry in entries if entry == PACKAGES or entry != os.getcwd()]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entries)}
        with (place / "log.txt").open("ab") as log:
            child = subprocess.Popen(
                [*self.command, str(path.absolute())], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env=environment, cwd=place,
            )  # fmt: skip
            try:
                while child.poll() is None:
                    if stopping():
                        return False
                    with suppress(subprocess.TimeoutExpired):
                        child.wait(0.2)
            finally:
                if child.poll() is None:
                    child.kill()
                    child.wait()
        if child.returncode and stopping():  # a signal to all processes of a job ends the child, too
            return False
        if child.returncode:
            said = [line for line in (place / "log.txt").read_text("utf-8", "replace").splitlines() if line.strip()]
            errors = [line for line in said if "Error" in line or "error:" in line]
            reason = printable((errors or said)[-1][:300]) if said else f"exit code {child.returncode}"
            raise DiffgenError(f"a training failed: {reason}", f"see {place}/log.txt")
        return True


def run_all(
    bench: Bench,
    trainings: Sequence[Training],
    devices: Sequence[str],
    after: Callable[[Training], None],
    stopping: Callable[[], bool],
) -> None:
    """All trainings, in order, one at a time on each device. `after` is called with each that is done."""
    left: queue.SimpleQueue[Training] = queue.SimpleQueue()
    for training in trainings:
        left.put(training)
    errors: list[BaseException] = []

    def serve(device: str) -> None:
        while not errors and not stopping():
            try:
                training = left.get_nowait()
            except queue.Empty:
                return
            try:
                bench.work(training, device, lambda: bool(errors) or stopping())
                if bench.done(training):
                    after(training)
            except BaseException as error:  # raised again below  # noqa: BLE001
                errors.append(error)

    threads = [threading.Thread(target=serve, args=(device,), daemon=True) for device in devices]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.5)
    if errors:
        raise errors[0]
