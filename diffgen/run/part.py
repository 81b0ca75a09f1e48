"""Which part of a run a process makes, where several share a run folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from diffgen.errors import UsageError


@dataclass(frozen=True, slots=True)
class Part:
    """`worker` is the process's name in the run folder. A `shard`, (i, n) with i from 1, makes a fixed part of the lanes,
    and none besides; without one the worker takes whatever lane is free. `sharing` processes share this machine's CPUs."""

    worker: str
    shard: tuple[int, int] | None = None
    sharing: int = 1

    def has(self, lane: int) -> bool:
        return self.shard is None or lane % self.shard[1] == self.shard[0] - 1


def only_one(options: Mapping[str, object]) -> None:
    """Raises UsageError if more than one of the options is given."""
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} cannot be combined", "give one of them")


def require_ray(executor: str | None, address: str | None) -> None:
    """Raises UsageError for another executor, or an address without one."""
    if executor not in (None, "ray"):
        raise UsageError(f"--executor {executor}: there is no such executor", "the only value is ray")
    if address is not None and executor is None:
        raise UsageError("--address is only for a Ray cluster", "add --executor ray")


def read_worker(text: str) -> Part:
    """`NAME/N` as a worker among N of this machine."""
    name, _, count = text.partition("/")
    return Part(name, sharing=int(count))


def read_shard(text: str) -> Part:
    """`3/8` as the third of eight shards. Raises UsageError."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"--shard {text}: not of the form I/N, I from 1 to N", "for example --shard 3/8")
    return Part(f"shard{number}of{count}", (number, count))
