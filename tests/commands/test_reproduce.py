"""One image made again: the same bytes in the same company, and a plain word where they are not."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffgen.commands import reproduce as reproducing
from diffgen.commands.preview import preview
from diffgen.commands.reproduce import Reproduction, reproduce
from diffgen.commands.sweeps import PreviewRequest, Sweep
from diffgen.dataset.labels import LabelSchema
from diffgen.errors import DiffgenError, UsageError
from diffgen.files import image_path
from diffgen.recipe.load import load_recipe
from diffgen.run.store.records import read_commits
from diffgen.run.worker import Worker
from diffgen.types import Job
from tests.fakes import FakeEditor, fake_worker, make, make_dataset, put, read_records, tree, write_recipe


def again(out: Path, job: str, editor: Any = None, **options: Any) -> Reproduction:
    return reproduce(load_recipe(out), job, make_worker=lambda: fake_worker(editor or FakeEditor()), **options)


class Other(FakeEditor):
    """As a newer library: a little brighter."""

    def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
        made = super().pixels(image, job, mask, company)
        made[:4] //= 2
        return made


def test_every_image_of_a_run_is_made_again_to_the_byte(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    before = tree(tmp_path / "out")
    for job in read_records(tmp_path / "out"):
        found = again(tmp_path / "out", job)
        assert found.identical, job
        assert (found.exit_code, found.max_difference, found.mean_difference) == (0, 0, 0.0)
        assert found.environment == {}
    assert tree(tmp_path / "out") == before, "nothing is written there"


def test_the_company_matters_and_is_kept(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    commit = next(read_commits(tmp_path / "out"))
    editor = FakeEditor()
    found = again(tmp_path / "out", commit[1].id, editor)
    assert editor.batches == [[record.id for record in commit]]
    assert found.batch == 3


def test_a_beginning_of_the_id_is_enough(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    job = min(read_records(tmp_path / "out"))
    assert again(tmp_path / "out", job[:6]).job == job
    with pytest.raises(UsageError, match="8 jobs begin with ''"):
        again(tmp_path / "out", "")


def test_images_of_a_limited_run_and_of_those_after_it(recipe: Path, tmp_path: Path) -> None:
    make(recipe, limit=1)
    make(recipe)
    assert all(again(tmp_path / "out", job).identical for job in read_records(tmp_path / "out"))


def test_an_image_that_was_deleted_and_made_again_in_its_batch(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    job = next(iter(read_records(tmp_path / "out")))
    image_path(tmp_path / "out", job, "jpg").unlink()
    make(recipe)
    assert again(tmp_path / "out", job).identical


def test_later_attempts(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(2, 1))
    fields = {"batch_size": 2, "attempts": 3, "checks": {"contrast": 0.9}}
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", **fields)
    make(recipe)
    records = read_records(tmp_path / "out")
    assert len(records) == 12
    found = [again(tmp_path / "out", job) for job in records]
    assert all(one.identical for one in found)
    assert {one.attempt for one in found} == {0, 1, 2}


def test_not_identical_says_how_far_apart_and_what_differs(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(recipe)
    job = next(iter(read_records(tmp_path / "out")))
    newer = lambda: Worker(Other(), LabelSchema(("0", "1"), None), {"device": "fake", "torch": "9.9"})  # noqa: E731
    found = reproduce(load_recipe(tmp_path / "out"), job, make_worker=newer, keep=tmp_path / "again.jpg")
    assert not found.identical
    assert found.exit_code == 3
    assert found.max_difference is not None
    assert 20 < found.max_difference < 200
    assert found.mean_difference is not None
    assert 0 < found.mean_difference < found.max_difference
    assert found.environment == {"torch": [None, "9.9"]}
    assert (tmp_path / "again.jpg").stat().st_size > 0
    text = reproducing.reproduction_text(found)
    assert text.startswith("differs ")
    assert "environment  torch: None then, 9.9 now" in text


def test_without_the_runs_image_the_hash_still_tells(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    job = next(iter(read_records(tmp_path / "out")))
    image_path(tmp_path / "out", job, "jpg").unlink()
    found = again(tmp_path / "out", job, keep=tmp_path / "again.jpg")
    assert found.identical
    assert found.max_difference is None


def test_ids_that_cannot_be_made_again(recipe: Path, tmp_path: Path) -> None:
    look = PreviewRequest(number=1, sweeps=(Sweep("strength", (0.21,)),))
    swept = preview(load_recipe(recipe), look, make_worker=lambda: fake_worker(FakeEditor()))
    with pytest.raises(UsageError, match="does not plan job"):
        again(tmp_path / "out", swept.images[0].item.job.id)
    with pytest.raises(UsageError, match="has no job 'nosuch'"):
        again(tmp_path / "out", "nosuch")
    with pytest.raises(UsageError, match="is not a run folder"):
        again(tmp_path / "data", "00")


def test_a_source_that_changed_is_an_error(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    job = next(iter(read_records(tmp_path / "out")))
    put(tmp_path / "data/labels/train/00.txt", "1 0.5 0.5 0.2 0.2\n")
    with pytest.raises(UsageError, match="does not plan job"):
        again(tmp_path / "out", job)


def test_a_job_that_failed_is_an_error(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(2, 1))
    broken = tmp_path / "data/images/train/00.jpg"
    broken.write_bytes(broken.read_bytes()[:-400])
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"))
    records = read_records(tmp_path / "out")
    with pytest.raises(UsageError, match="made no image"):
        again(tmp_path / "out", next(r.id for r in records.values() if r.status == "failed"))
    made = [record.id for record in records.values() if record.status == "made"]
    assert all(again(tmp_path / "out", job).identical for job in made), "beside the grey row of the broken one"


def test_a_device_that_fails_is_an_error(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    job = next(iter(read_records(tmp_path / "out")))
    with pytest.raises(DiffgenError, match=r"cannot be made again: .*no room"):
        again(tmp_path / "out", job, FakeEditor(room=0))


def test_the_command(cli: Callable[..., Any], recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(recipe)
    job = next(iter(read_records(tmp_path / "out")))
    editor = FakeEditor()
    monkeypatch.setattr(reproducing, "reproduce", functools.partial(reproduce, make_worker=lambda: fake_worker(editor)))
    answer = cli("reproduce", tmp_path / "out", job)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("identical    train/00 under night, attempt 1, made in a batch of 3")
    editor = Other()
    answer = cli("reproduce", tmp_path / "out", job[:8], "--json", "-o", tmp_path / "again.jpg")
    assert answer.code == 3
    facts = json.loads(answer.out)
    assert (facts["job"], facts["identical"], facts["exit_code"]) == (job, False, 3)
    assert cli("reproduce", tmp_path / "out", "zz").code == 2
