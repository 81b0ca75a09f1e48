"""How a plan is cut into batches."""

from __future__ import annotations

from diffgen.plan.batches import cut_batches, pending_batches, working_size
from tests.fakes import source
from tests.plan.planning import MANY, ids, plan


def test_a_batch_shares_settings_and_size_and_keeps_plan_order() -> None:
    sources = [source(i, width=64 if i % 3 else 48, height=48 if i % 3 else 64) for i in range(20)]
    found = plan(sources)
    batches = cut_batches(found.items, 4)
    assert sorted(i.job.id for b in batches for i in b.items) == sorted(ids(found))
    order = {job_id: n for n, job_id in enumerate(ids(found))}
    for batch in batches:
        assert (
            len(
                {
                    (i.job.settings.digest, working_size((i.source.width, i.source.height), i.job.settings))
                    for i in batch.items
                }
            )
            == 1
        )
        assert len(batch.items) <= 4
        assert [order[i.job.id] for i in batch.items] == sorted(order[i.job.id] for i in batch.items)


def test_batches_are_cut_before_what_is_done_is_taken_away() -> None:
    found = plan(MANY[:12], conditions=["night"])
    batches = cut_batches(found.items, 4)
    left = pending_batches(batches, {batches[0].items[1].job.id, *(i.job.id for i in batches[1].items)})
    assert [len(b.items) for b in left] == [3, 4]
    assert left[1] == batches[2]


def test_a_batch_runs_again_whole_only_where_all_that_it_lacks_was_tried_before() -> None:
    (batch,) = cut_batches(plan(MANY[:3], conditions=["night"]).items, 4)
    one, two, three = (item.job.id for item in batch.items)
    assert pending_batches([batch], {one}, {one, two, three}) == [batch]
    assert [i.job.id for i in pending_batches([batch], {one}, {one, two})[0].items] == [two, three]
    assert pending_batches([batch], {one, two, three}, {one, two, three}) == []
