"""Runs several workers on the machines of a Ray cluster: one per GPU, or a given number on CPUs.

Ray only places the workers and notices when one dies. They share the run folder like other workers, so it and the dataset
must have the same path on every machine; no image travels through Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from diffgen.errors import DiffgenError, UsageError, why
from diffgen.run.progress import Progress
from diffgen.run.store.claims import free_claims_of

POLL_SECONDS = 0.5

Work = Callable[[str, Progress], Any]  # of a worker with this name, on its machine


def connect(address: str | None) -> Any:
    """The Ray module, connected to a cluster; without an address, to a new one on this machine. Raises UsageError."""
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            f"--executor ray: Ray cannot be imported: {why(error)}", "pip install 'diffgen[ray]'"
        ) from None
    try:
        if not ray.is_initialized():
            ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"--address {address}: {why(error)}", "give the address of a running Ray cluster") from None
    return ray


def places(ray: Any, workers: int | None) -> list[dict[str, float]]:
    """What each worker asks the cluster for: `workers` shares of its CPUs, or every GPU. Raises UsageError without GPUs."""
    there = ray.cluster_resources()
    if workers is not None:
        return [{"num_cpus": max(0.1, round(there.get("CPU", 1) / workers - 0.05, 2))}] * workers
    gpus = int(there.get("GPU", 0))
    if not gpus:
        raise UsageError("--executor ray: the cluster has no GPU", "add --workers N to run on its CPUs")
    return [{"num_cpus": 1, "num_gpus": 1}] * gpus


class _Reported(Progress):
    """Reports a worker's progress to a board."""

    def __init__(self, board: Any, name: str) -> None:
        self._board, self._name = board, name

    def update(self, made: int, total: int, accepted: int, condition: str) -> None:
        self._board.put.remote(self._name, made, accepted)


class _Board:
    """The progress of each worker; an actor."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int]] = {}

    def put(self, name: str, made: int, accepted: int) -> None:
        self._known[name] = made, accepted

    def read(self) -> dict[str, tuple[int, int]]:
        return self._known


def run_ray(
    ray: Any, work: Work, asked: Sequence[dict[str, float]], folder: Any, progress: Progress, total: int,
    notify: Callable[[str], None], stopping: Callable[[], bool],
) -> list[str]:  # fmt: skip
    """As `run_processes`, by a Ray task for each of `asked`, what it asks for."""
    board = ray.remote(num_cpus=0)(_Board).remote()

    def task(name: str) -> None:
        work(name, _Reported(board, name))

    names = [f"ray{i}" for i in range(len(asked))]
    refs = {
        ray.remote(max_retries=0, **wanted)(task).remote(name): name for name, wanted in zip(names, asked, strict=True)
    }
    died: list[str] = []
    told = False
    while refs:
        if stopping() and not told:
            told = True
            for ref in refs:
                ray.cancel(ref, force=False)
        done, _ = ray.wait(list(refs), num_returns=len(refs), timeout=POLL_SECONDS)
        for ref in done:
            name = refs.pop(ref)
            try:
                ray.get(ref)
            except (ray.exceptions.TaskCancelledError, ray.exceptions.RayTaskError) as error:
                if told:
                    continue
                for other in refs:
                    ray.cancel(other, force=True)
                cause = getattr(error, "cause", None) or error
                message = cause.message if isinstance(cause, DiffgenError) else repr(cause)
                raise DiffgenError(f"{name} failed: {message}", getattr(cause, "hint", None) or "see above") from error
            except ray.exceptions.RayError as error:  # its process or its machine
                died.append(name)
                free_claims_of(folder, name)
                notify(f"{name} died ({type(error).__name__}); the other workers take over its images")
        known = ray.get(board.read.remote())
        made, accepted = (sum(each[i] for each in known.values()) for i in (0, 1))
        progress.update(made, max(total, made), accepted, f"{len(known)} workers")
    if died and len(died) == len(names):
        raise DiffgenError(f"all {len(died)} workers died", "see Ray's logs; run the same command again to resume")
    return died
