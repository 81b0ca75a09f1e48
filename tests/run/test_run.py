"""How a run behaves when it is run again, changed, disturbed. With a torch-free worker."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffgen.commands.export import export
from diffgen.commands.status import status
from diffgen.editing.editor import EditBatch
from diffgen.errors import DiffgenError, UsageError
from diffgen.models.model import with_revision
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from diffgen.run.progress import Progress
from diffgen.run.session import Session
from diffgen.run.store.state import read_state
from diffgen.run.store.store import RunStore
from diffgen.run.worker_setup import Device
from diffgen.types import Job
from tests.fakes import (
    FakeEditor,
    fake_worker,
    ids_of,
    make,
    make_dataset,
    model,
    photo,
    put,
    read_records,
    save,
    tree,
    write_recipe,
)
from tests.fakes_attempts import Melting
from tests.run.disturbed import changing, no_worker


def test_a_device_that_is_not_there_changes_nothing(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(recipe, limit=1)

    def no_device(name: str) -> None:
        raise UsageError(f"device '{name}' is not available", "use cpu")

    monkeypatch.setattr("diffgen.editing.pipelines.device.pick_device", no_device)
    before = tree(tmp_path / "out")
    with pytest.raises(UsageError, match="device 'cuda' is not available"):
        run(load_recipe(recipe, device="cuda"))
    assert tree(tmp_path / "out") == before


def test_a_first_run_makes_everything(recipe: Path, tmp_path: Path) -> None:
    summary, editor = make(recipe)
    assert (summary.planned, summary.accepted, summary.made_now, summary.pending) == (8, 8, 8, 0)
    assert summary.conditions == {"night": {"planned": 4, "accepted": 4}, "fog": {"planned": 4, "accepted": 4}}
    assert summary.sources == {"train": 4, "val": 2}
    assert summary.exit_code == 0
    assert len(editor.made) == len(set(editor.made)) == 8
    assert set(editor.made) == ids_of(tmp_path / "out")
    assert sorted(len(batch) for batch in editor.batches) == [1, 1, 3, 3]


def test_a_second_run_makes_nothing_and_asks_for_no_worker(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    before = tree(tmp_path / "out")
    summary = run(load_recipe(recipe), make_worker=no_worker)
    assert (summary.made_now, summary.accepted) == (0, 8)
    assert tree(tmp_path / "out") == before


def test_the_run_folder_is_a_recipe(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    before = tree(tmp_path / "out/dataset")
    assert run(load_recipe(tmp_path / "out"), make_worker=no_worker).accepted == 8
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    assert run(load_recipe(tmp_path / "elsewhere"), make_worker=no_worker).accepted == 8
    assert tree(tmp_path / "elsewhere/dataset") == before


def test_a_condition_added_makes_only_its_own_images(recipe: Path) -> None:
    _, first = make(recipe)
    summary, second = make(recipe, sets=["conditions=[{night: {strength: 0.7}}, snow, {fog: {strength: 0.6}}]"])
    assert (summary.made_now, summary.accepted) == (4, 12)
    assert not set(first.made) & set(second.made)


def test_a_variant_added_makes_only_the_new_ones(recipe: Path) -> None:
    make(recipe)
    assert make(recipe, sets=["variants=2"])[0].made_now == 8


def test_a_label_edited_makes_only_that_sources_images_anew(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    label = put(tmp_path / "data/labels/train/02.txt", "1 0.5 0.5 0.2 0.2\n")
    summary, editor = make(recipe)
    assert (summary.made_now, summary.accepted) == (2, 8)
    plan = Session.open(load_recipe(recipe)).plan
    assert {item.source.name for item in plan.items if item.job.id in editor.made} == {"02"}
    for copy in (tmp_path / "out/dataset/labels/train").glob("02*"):
        assert copy.read_bytes() == label.read_bytes()


def test_a_source_added_makes_only_its_images(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    save(tmp_path / "data/images/train/new.jpg", photo(50))
    summary, _ = make(recipe)
    assert (summary.made_now, summary.accepted) == (2, 10)


def test_a_source_that_moves_to_val_leaves_train(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    for kind, suffix in (("images", "jpg"), ("labels", "txt")):
        shutil.move(tmp_path / f"data/{kind}/train/00.{suffix}", tmp_path / f"data/{kind}/val/moved.{suffix}")
    summary, _ = make(recipe)
    assert (summary.made_now, summary.planned) == (0, 6)
    assert not [n for n in tree(tmp_path / "out/dataset") if "train/00" in n or "moved__" in n]


def test_an_image_deleted_is_made_again_and_with_its_whole_batch_gone_with_the_same_bytes(
    recipe: Path, tmp_path: Path
) -> None:
    _, editor = make(recipe)
    before = tree(tmp_path / "out/dataset")
    for job_id in max(editor.batches, key=len):
        (tmp_path / f"out/images/{job_id[:2]}/{job_id}.jpg").unlink()
    assert status(load_recipe(tmp_path / "out")).planned == 8
    summary, _ = make(recipe)
    assert summary.made_now == 3
    assert tree(tmp_path / "out/dataset") == before


def test_one_image_deleted_is_made_again_in_its_old_company_with_the_same_bytes(recipe: Path, tmp_path: Path) -> None:
    _, first = make(recipe)
    before = tree(tmp_path / "out/dataset")
    batch = max(first.batches, key=len)
    (tmp_path / f"out/images/{batch[1][:2]}/{batch[1]}.jpg").unlink()
    summary, second = make(recipe)
    assert second.batches == [batch]
    assert summary.accepted == 8
    assert tree(tmp_path / "out/dataset") == before


def test_an_image_deleted_is_not_exported_and_pending(recipe: Path, tmp_path: Path) -> None:
    _, editor = make(recipe)
    job_id = editor.made[0]
    (tmp_path / f"out/images/{job_id[:2]}/{job_id}.jpg").unlink()
    summary = export(load_recipe(tmp_path / "out"))
    assert (summary.accepted, summary.pending) == (7, 1)


def test_a_dataset_gone_during_the_run_loses_nothing_that_was_made(recipe: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pytest.raises(DiffgenError):
        changing(recipe, lambda: shutil.move(data, tmp_path / "away"))
    shutil.move(tmp_path / "away", data)
    assert make(recipe)[0].accepted == 8


def test_two_equal_sources_share_a_job_and_both_are_exported(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(2, 1))
    for kind, suffix in (("images", "jpg"), ("labels", "txt")):
        shutil.copy(tmp_path / f"data/{kind}/train/00.{suffix}", tmp_path / f"data/{kind}/train/twin.{suffix}")
    summary, editor = make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"))
    assert (summary.planned, summary.accepted, len(editor.made)) == (6, 6, 4)
    exported = tree(tmp_path / "out/dataset/images/train")
    assert exported["00__fog-0.jpg"] == exported["twin__fog-0.jpg"]


def test_a_foreign_folder_is_refused_and_untouched(recipe: Path, tmp_path: Path) -> None:
    put(tmp_path / "out/holiday.jpg", "precious")
    before = tree(tmp_path / "out")
    with pytest.raises(UsageError, match="holds files that diffgen did not make"):
        make(recipe)
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("place", ["data/images", "data/images/train", "data"])
def test_an_output_that_holds_the_datasets_images_is_refused(recipe: Path, tmp_path: Path, place: str) -> None:
    before = tree(tmp_path / "data")
    with pytest.raises(UsageError):
        make(recipe, sets=[f"output={tmp_path / place}"])
    assert tree(tmp_path / "data") == before


def test_an_output_inside_a_split_folder_is_refused(recipe: Path, tmp_path: Path) -> None:
    """Its images would be sources of the next run."""
    before = tree(tmp_path / "data")
    with pytest.raises(UsageError):
        make(recipe, sets=[f"output={tmp_path / 'data/images/train/out'}"])
    assert tree(tmp_path / "data") == before


def test_the_dataset_is_only_read(recipe: Path, tmp_path: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*")}
    make(recipe)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*")} == before


def test_two_runs_at_once_are_refused(recipe: Path, tmp_path: Path) -> None:
    with RunStore(tmp_path / "out", "jpg"), pytest.raises(DiffgenError, match="another diffgen is writing"):
        make(recipe)
    assert make(recipe)[0].accepted == 8


def test_status_can_be_asked_while_a_run_holds_the_folder(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    with RunStore(tmp_path / "out", "jpg"):
        assert status(load_recipe(tmp_path / "out")).accepted == 8


def test_a_changed_format_is_new_jobs_in_the_same_folder(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    summary, _ = make(recipe, sets=["image.format=png"])
    assert (summary.made_now, summary.accepted) == (8, 8)
    assert run(load_recipe(recipe), make_worker=no_worker).accepted == 8


def test_no_minutes_make_nothing_and_the_next_run_goes_on(recipe: Path, tmp_path: Path) -> None:
    summary, editor = make(recipe, max_minutes=0)
    assert (summary.stopped, summary.exit_code, summary.pending) == ("max-minutes", 4, 8 - len(editor.made))
    assert make(recipe, max_minutes=60)[0].exit_code == 0


def test_no_minutes_and_nothing_to_do_is_done(recipe: Path) -> None:
    make(recipe)
    assert make(recipe, max_minutes=0)[0].exit_code == 0


def test_a_limit_is_kept_by_export_and_status_and_lifted_by_the_next_run(recipe: Path, tmp_path: Path) -> None:
    summary, _ = make(recipe, limit=2)
    assert (summary.planned, summary.sources) == (4, {"train": 2, "val": 2})
    before = tree(tmp_path / "out/dataset")
    assert export(load_recipe(tmp_path / "out")).planned == 4
    assert status(load_recipe(tmp_path / "out")).planned == 4
    assert tree(tmp_path / "out/dataset") == before
    assert make(recipe)[0].made_now == 4
    assert status(load_recipe(tmp_path / "out")).planned == 8


def test_the_batch_size_of_the_first_run_is_kept(recipe: Path, tmp_path: Path) -> None:
    make(recipe, limit=1)
    _, editor = make(recipe, sets=["batch_size=1"])
    assert read_state(tmp_path / "out")["batch_size"] == 3
    assert sorted(len(batch) for batch in editor.batches) == [1, 1, 2, 2], "in threes, less what is done"


def test_a_resumed_run_asks_the_editor_for_the_same_batches(recipe: Path, tmp_path: Path) -> None:
    _, whole = make(recipe)
    shutil.rmtree(tmp_path / "out")

    class Stopping(FakeEditor):
        def begin(self, batch: EditBatch) -> None:
            if len(batch.jobs) < 3:  # the last two
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(recipe, Stopping())
    assert len(read_records(tmp_path / "out")) == 6
    _, rest = make(recipe)
    assert len(rest.batches) == 2
    assert {tuple(batch) for batch in rest.batches} <= {tuple(batch) for batch in whole.batches}


def test_progress_judges_each_image_by_its_own_condition(tmp_path: Path) -> None:
    """Conditions of equal settings share batches."""
    told: list[tuple[int, int, int, str]] = []

    class Told(Progress):
        def update(self, *what: Any) -> None:
            told.append(what)  # type: ignore[arg-type]

    prompts = {"strict": {"contrast": 1.0}, "easy": {}}
    conditions = [{"name": name, "prompt": name, "checks": checks} for name, checks in prompts.items()]
    data = make_dataset(tmp_path / "data")
    summary, editor = make(
        write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", conditions=conditions, batch_size=8), progress=Told()
    )
    assert len(editor.batches) == 1
    assert summary.accepted == 4
    assert [what[:3] for what in told] == [(0, 8, 0), (8, 8, 4)]


def test_a_hub_model_without_a_revision_keeps_the_commit_its_run_folder_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = model(revision=None, identity="tests/fake@unpinned")
    known = replace(unknown, revision="a" * 40, identity=f"tests/fake@{'a' * 40}")
    monkeypatch.setattr("diffgen.models.resolve.resolve_model", lambda *_: unknown)
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out", model="tests/fake")
    make(recipe)  # nobody was asked for the commit: these images stand under the unknown one
    put(
        tmp_path / "out/run.json",
        json.dumps({**json.loads((tmp_path / "out/run.json").read_text()), "revisions": {"tests/fake": "a" * 40}}),
    )
    assert Session.open(load_recipe(recipe)).model == known
    assert with_revision(unknown, {"hub": "tests/fake", "revision": "b" * 40}, "a" * 40) == unknown
    assert with_revision(known, "tests/fake", None) == known


def test_a_fetched_hub_model_is_the_one_that_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub leaves no trace of `main` when a commit is fetched by its name."""
    from diffgen.run import session as spine

    unknown = model(revision=None, identity="tests/fake@unpinned")
    known = replace(unknown, revision="c" * 40, identity=f"tests/fake@{'c' * 40}")
    monkeypatch.setattr("diffgen.models.resolve.resolve_model", lambda *_: unknown)
    monkeypatch.setattr("diffgen.models.resolve.require_on_disk", lambda _: known)
    on_cpu = lambda self, threads=None: replace(self, device=Device("cpu", "float32", 1))  # noqa: E731
    monkeypatch.setattr(Session, "on_device", on_cpu)
    monkeypatch.setattr(Session, "check_device", lambda self: None)
    monkeypatch.setattr(spine, "load_worker", lambda *_: fake_worker(FakeEditor()))
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out", model="tests/fake")
    summary = run(load_recipe(recipe))
    assert (summary.accepted, summary.pending, summary.exit_code) == (8, 0, 0)
    assert status(load_recipe(recipe)).accepted == 8
    assert run(load_recipe(recipe)).made_now == 0


def test_a_signal_at_the_end_of_a_round_is_not_forgotten(tmp_path: Path) -> None:
    @dataclass
    class Interrupted(Melting):
        def begin(self, batch: EditBatch) -> None:
            if len(self.batches) == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
            return np.random.default_rng(job.seed).integers(0, 255, image.shape)

    data = make_dataset(tmp_path / "data", counts=(6, 1))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", attempts=3, conditions=["night"])
    summary, _ = make(recipe, Interrupted())
    assert (summary.stopped, summary.exit_code, summary.pending) == ("SIGTERM", 143, 6)
    assert not (tmp_path / "out/dataset").exists()
