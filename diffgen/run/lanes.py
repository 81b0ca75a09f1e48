"""Which batches to make next. The plan is cut into lanes; a lane's retries depend on its own images only.

So lanes never wait for each other, workers can share them out, and a resumed run makes the same batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from diffgen.output.outcome import Judging
from diffgen.plan.batches import cut_batches, cut_lanes, pending_batches
from diffgen.plan.plan import Plan
from diffgen.run.store.store import RunStore
from diffgen.types import Batch, Item

LOOK_AGAIN_SECONDS = 1.0  # at the lanes of other workers, when nothing else is left


@dataclass(slots=True)
class _OpenLane:
    rounds: Iterator[list[Batch]]
    due: int = 0  # how many batches must be committed before its next round is known


def due_batches(
    plan: Plan,
    judging: Judging,
    store: RunStore,
    batch_size: int,
    mine: Callable[[int], bool] = lambda _: True,
) -> Iterator[Batch | None]:
    """The batches to make, of the lanes that are `mine` by their number; None when none is due until one of those given out
    is committed, or another worker is done with its lane.

    While the last batches of a lane's round are being made, the next lane begins, so the device never waits. Lanes that
    another worker has claimed are left to it; once all others are done, those are looked at again, as it may have died.
    """
    claims, left = store.claims(), []

    def rounds(number: int, items: Sequence[Item]) -> Iterator[list[Batch]]:
        """The pending batches of a lane's first attempts, then of its retries; take them when the last are committed.

        Batches are cut from the whole round, and finished jobs dropped afterwards, so a resumed run makes the same batches.
        """
        claimed = False
        while items:
            if batches := pending_batches(cut_batches(items, batch_size), store.done, store.records.keys()):
                if not claimed and not (claimed := claims.take(number)):
                    left.append((number, items))
                    return
                if store.shared and store.refresh():  # another worker had it, and did some of it
                    continue
                yield batches
            items = judging.next_round(items, store.present, plan)
        if claimed:
            claims.release(number)

    lanes = enumerate(cut_lanes(cut_batches(plan.items, batch_size)))
    fresh: Iterator[Iterator[list[Batch]]] = (rounds(number, items) for number, items in lanes if mine(number))
    begun, given = store.commits, 0
    opened: list[_OpenLane] = []
    while True:
        lane = next((lane for lane in opened if store.commits - begun >= lane.due), None)
        if lane is None:
            if (begins := next(fresh, None)) is not None:
                opened.append(_OpenLane(begins))
            elif opened:
                yield None
            elif store.shared and left:
                yield None
                time.sleep(LOOK_AGAIN_SECONDS)
                store.refresh()
                fresh = iter([rounds(*again) for again in left])
                left.clear()
            else:
                return
        elif (batches := next(lane.rounds, None)) is None:
            opened.remove(lane)
        else:
            for batch in batches:
                given += 1
                yield batch
            lane.due = given
