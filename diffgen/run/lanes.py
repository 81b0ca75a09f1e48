"""Which batches to make next. The plan is cut into lanes; a lane's retries depend on its own images only.

So lanes never wait for each other, workers can share them out, and a resumed run makes the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from diffgen.output.outcome import Judging
from diffgen.plan.batches import cut_batches, cut_lanes, pending_batches
from diffgen.plan.plan import Plan
from diffgen.run.store.claims import Claims
from diffgen.run.store.store import RunStore
from diffgen.types import Batch, Item


@dataclass(slots=True)
class _OpenLane:
    rounds: Iterator[list[Batch]]
    due: int = 0  # how many batches must be committed before its next round is known


def due_batches(
    plan: Plan, judging: Judging, store: RunStore, claims: Claims, batch_size: int
) -> Iterator[Batch | None]:
    """The batches to make, lane by lane; None when none is due until one of those given out is committed.

    While the last batches of a lane's round are being made, the next lane begins, so the device never waits. Lanes that
    another worker has claimed are left to it.
    """

    def rounds(number: int, items: Sequence[Item]) -> Iterator[list[Batch]]:
        """The pending batches of a lane's first attempts, then of its retries; take them when the last are committed.

        Batches are cut from the whole round, and finished jobs dropped afterwards, so a resumed run makes the same batches.
        """
        claimed = False
        while items:
            if batches := pending_batches(cut_batches(items, batch_size), store.done, store.records.keys()):
                claimed = claimed or claims.take(number)
                if not claimed:
                    return
                yield batches
            items = judging.next_round(items, store.present, plan)
        if claimed:
            claims.release(number)

    fresh = (rounds(*lane) for lane in enumerate(cut_lanes(cut_batches(plan.items, batch_size))))
    begun, given = store.commits, 0
    opened: list[_OpenLane] = []
    while True:
        lane = next((lane for lane in opened if store.commits - begun >= lane.due), None)
        if lane is None:
            if (begins := next(fresh, None)) is not None:
                opened.append(_OpenLane(begins))
            elif opened:
                yield None
            else:
                return
        elif (batches := next(lane.rounds, None)) is None:
            opened.remove(lane)
        else:
            for batch in batches:
                given += 1
                yield batch
            lane.due = given
