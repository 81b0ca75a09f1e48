"""Lanes: what is retried in one depends on no other, the device never waits for them, and claims share them out."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from diffgen.errors import DiffgenError
from diffgen.plan import batches as cutting
from diffgen.plan.batches import cut_batches, cut_lanes
from diffgen.recipe.load import load_recipe
from diffgen.run.lanes import due_batches
from diffgen.run.session import Session
from diffgen.run.store import claims as claiming
from diffgen.run.store.claims import STALE_SECONDS, Claims
from diffgen.run.store.store import RunStore
from diffgen.types import Batch, Item
from tests.fakes import FakeEditor, fake_worker, make_dataset, tree, write_recipe
from tests.fakes_attempts import Melting, run_it


@pytest.fixture(autouse=True)
def short_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "LANE", 2)


def key(item: Item) -> tuple[str, str, int]:
    return item.source.key, item.job.settings.condition, item.job.variant


def session_of(recipe: Path) -> Session:
    return Session.open(load_recipe(recipe))


def test_lanes_hold_every_job_once_in_plan_order(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "data", counts=(9, 1)), tmp_path / "out")
    plan = session_of(recipe).plan
    batches = cut_batches(plan.items, 2)
    lanes = list(cut_lanes(batches))
    assert [len(lane) for lane in lanes[:-1]] == [4] * (len(lanes) - 1)
    assert [item for lane in lanes for item in lane] == [item for batch in batches for item in batch.items]
    for lane in lanes:  # a worker that knows nothing but its lane cuts the same batches again
        assert {*cut_batches(lane, 2)} <= {*batches}


def test_a_lane_is_retried_before_the_plan_is_through_and_by_itself(tmp_path: Path) -> None:
    summary, _, recipe = run_it(tmp_path, "out", 3)
    assert summary.saved
    session = session_of(recipe)
    lanes = [{key(item) for item in lane} for lane in cut_lanes(cut_batches(session.plan.items, 3))]
    attempts = {item.job.id: item for item in session.plan.all_attempts()}
    order = [json.loads(line) for line in (tmp_path / "out/records-0.jsonl").read_text().splitlines()]
    made = [attempts[row["id"]] for row in order if "id" in row]
    first_retry = next(i for i, item in enumerate(made) if item.job.attempt)
    assert any(not item.job.attempt for item in made[first_retry:]), "a retry waited for the whole plan"
    batch: list[Item] = []
    for row in order:
        if "id" in row:
            batch.append(attempts[row["id"]])
            continue
        assert sum(bool({key(item) for item in batch} & lane) for lane in lanes) == 1, "a batch of two lanes"
        batch = []


def test_the_next_lane_begins_while_a_round_is_being_made(tmp_path: Path) -> None:
    _, _, recipe = run_it(tmp_path, "out", 1, limit=1)
    session = session_of(recipe)
    worker = fake_worker(Melting())
    with RunStore(tmp_path / "out", "jpg") as store:
        batches = due_batches(session.plan, session.judging, store, 3)
        waiting: list[Batch] = []
        nothing_due = 0
        for batch in batches:
            if batch is not None:
                waiting.append(batch)
            if batch is None or len(waiting) == 3:
                nothing_due += batch is None
                store.commit([result for result in worker(waiting.pop(0)) if result.record.id not in store.done])
        assert not waiting
        assert nothing_due <= 3, "only at the end of the plan is there nothing to do"
        assert session.outcome(store.present).finished


def test_lanes_that_another_worker_has_are_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _, _ = run_it(tmp_path, "whole", 3)
    entered = Claims.__enter__

    def enter(self: Claims) -> Claims:
        entered(self)
        (tmp_path / "out/claims/00000000").touch()  # by another, at this moment
        return self

    with monkeypatch.context() as patched:
        patched.setattr(Claims, "__enter__", enter)
        summary, _, _ = run_it(tmp_path, "out", 3)
    assert (summary.pending, summary.exit_code) == (6, 4)
    assert [path.name for path in (tmp_path / "out/claims").iterdir()] == ["00000000"], (
        "the other's claim was taken away"
    )
    again, _, _ = run_it(tmp_path, "out", 3)  # that worker is dead: this run has the folder's lock
    assert (again.accepted, again.saved, again.pending) == (whole.accepted, whole.saved, 0)
    assert tree(tmp_path / "out/dataset") == tree(tmp_path / "whole/dataset"), "the order of the lanes changed a byte"


def test_a_run_leaves_no_claim(tmp_path: Path) -> None:
    run_it(tmp_path, "out", 3)
    assert list((tmp_path / "out/claims").iterdir()) == []

    class Broken(FakeEditor):
        def begin(self, batch: object) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_it(tmp_path, "broken", 3, Broken())
    assert list((tmp_path / "broken/claims").iterdir()) == []


class TestClaims:
    def test_a_lane_is_one_worker_s(self, tmp_path: Path) -> None:
        with Claims(tmp_path, "a") as a, Claims(tmp_path, "b") as b:
            assert a.take(3)
            assert not b.take(3)
            assert b.take(4)
            a.release(3)
            assert b.take(3)
        assert list((tmp_path / "claims").iterdir()) == []

    @pytest.mark.parametrize("skew", [0, 3600, -3600], ids=["one clock", "an hour fast", "an hour slow"])
    def test_a_dead_worker_s_lane_is_taken_by_the_file_system_s_clock(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float
    ) -> None:
        real = claiming.os.utime

        def utime(path: Path, *_: object) -> None:  # a server whose clock differs from this machine's
            real(path)
            now = path.stat().st_mtime + skew
            real(path, (now, now))

        monkeypatch.setattr(claiming.os, "utime", utime)
        with Claims(tmp_path, "b") as b:
            claim = tmp_path / "claims/00000007"
            claim.write_text("a")
            now = claim.stat().st_mtime + skew
            for age, dead in ((STALE_SECONDS - 30, False), (STALE_SECONDS + 30, True)):
                real(claim, (now - age, now - age))
                assert b.take(7) is dead
            assert json.loads(claim.read_text())["worker"] == "b"

    def test_a_living_worker_s_claim_stays_young(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(claiming, "BEAT_SECONDS", 0.01)
        with Claims(tmp_path, "a") as a:
            assert a.take(1)
            claim = tmp_path / "claims/00000001"
            os.utime(claim, (0, 0))
            for _ in range(500):
                if claim.stat().st_mtime:
                    return
                a._end.wait(0.01)
        pytest.fail("nobody touched the claim")

    def test_a_claim_that_another_took_meanwhile_is_given_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Claims(tmp_path, "a") as a, Claims(tmp_path, "b") as b:
            claim = tmp_path / "claims/00000001"
            claim.write_text("dead")
            os.utime(claim, (0, 0))
            real = Claims._now

            def slow(self: Claims) -> float:
                monkeypatch.setattr(Claims, "_now", real)
                assert a.take(1)  # while b looks at the clock
                return real(self)

            monkeypatch.setattr(Claims, "_now", slow)
            assert not b.take(1)
            assert json.loads(claim.read_text())["worker"] == "a"
            assert [path.name for path in (tmp_path / "claims").iterdir()] == ["00000001"]

    def test_a_folder_that_cannot_be_written_is_one_clear_error(self, tmp_path: Path) -> None:
        (tmp_path / "claims").write_text("")
        with pytest.raises(DiffgenError, match=re.escape(str(tmp_path / "claims"))):
            Claims(tmp_path, "a").__enter__()
