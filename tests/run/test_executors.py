"""The local executor: batch order, overlap, stopping."""

from __future__ import annotations

import threading
import time

import pytest

from diffgen.errors import Cancelled
from diffgen.run.executors.local import OVERLAP, local
from diffgen.types import Batch, Item, Record, Result
from tests.fakes import FakeEditor, fake_worker, job, source

BATCHES = [Batch((Item(source(i), job(source=f"{i:064}")),)) for i in range(10)]


class Counting:
    """Answers out of order when it can, and counts how many calls are under way."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.environment: dict[str, object] = {}
        self.started: list[str] = []
        self.now = self.most = 0
        self._fail_at = fail_at
        self._lock = threading.Lock()

    def __call__(self, batch: Batch) -> list[Result]:
        with self._lock:
            self.started.append(batch.items[0].source.name)
            number = len(self.started)
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02 if number % 2 else 0.001)
        with self._lock:
            self.now -= 1
        if number - 1 == self._fail_at:
            raise ZeroDivisionError("a bug")
        return [Result(Record(item.job.id, "made")) for item in batch.items]


def test_results_come_in_batch_order_and_overlap() -> None:
    worker = Counting()
    found = [results[0].record.id for _, results in local(worker, BATCHES, lambda: False)]
    assert found == [batch.items[0].job.id for batch in BATCHES]
    assert 2 <= worker.most <= OVERLAP


def test_stopping_finishes_what_is_under_way_and_starts_no_more() -> None:
    worker = Counting()
    seen: list[str] = []
    for _, results in local(worker, BATCHES, lambda: len(seen) >= 2):
        seen.append(results[0].record.id)
    assert seen == [batch.items[0].job.id for batch in BATCHES[: len(seen)]]
    assert 2 <= len(seen) == len(worker.started) <= 2 + OVERLAP


def test_stopped_before_the_first_batch_nothing_starts() -> None:
    worker = Counting()
    assert list(local(worker, BATCHES, lambda: True)) == []
    assert worker.started == []


def test_a_bug_in_a_worker_ends_the_run_after_the_batches_before_it() -> None:
    worker = Counting(fail_at=3)
    seen = []
    with pytest.raises(ZeroDivisionError):
        for _, results in local(worker, BATCHES, lambda: False):
            seen.append(results[0].record.id)
    assert len(seen) >= 1
    assert len(worker.started) < len(BATCHES)


def test_a_caller_that_goes_away_leaves_no_work_behind() -> None:
    worker = Counting()
    results = local(worker, BATCHES, lambda: False)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert worker.now == 0
    assert len(worker.started) < len(BATCHES)


def test_what_has_not_reached_the_device_is_cancelled() -> None:
    class OneDevice(Counting):
        """A worker whose batches wait for one device, as the real one's do."""

        device = threading.Lock()
        edited = 0
        stopping = staticmethod(lambda: stop.is_set())

        def __call__(self, batch: Batch) -> list[Result]:
            with self.device:
                if self.stopping():
                    raise Cancelled
                self.edited += 1
                if self.edited == 3:
                    stop.set()
                return super().__call__(batch)

    stop = threading.Event()
    worker = OneDevice()
    found = [results[0].record.id for _, results in local(worker, BATCHES, stop.is_set)]
    assert worker.edited == 3
    assert 1 <= len(found) <= 3
    assert len(set(found)) == len(found)  # in no order: a lock is not a queue
    assert set(found) <= {batch.items[0].job.id for batch in BATCHES[: len(found) + OVERLAP]}


def test_a_later_batch_that_reached_the_device_first_is_not_lost() -> None:
    second_is_done = threading.Event()

    class Overtaken(Counting):
        def __call__(self, batch: Batch) -> list[Result]:
            if batch is BATCHES[0]:
                second_is_done.wait(10)
                raise Cancelled
            if batch is BATCHES[1]:
                second_is_done.set()
                return super().__call__(batch)
            raise Cancelled

    found = [batch for batch, _ in local(Overtaken(), BATCHES, second_is_done.is_set)]
    assert found == [BATCHES[1]]


def test_a_worker_that_is_stopped_edits_nothing_more() -> None:
    editor = FakeEditor()
    worker = fake_worker(editor)
    worker.stopping = lambda: True
    with pytest.raises(Cancelled):
        worker(BATCHES[0])
    assert editor.batches == []
