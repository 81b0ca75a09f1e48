"""How a run behaves when it is run again, changed, disturbed. With a torch-free worker."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffgen.errors import DiffgenError, UsageError
from diffgen.progress import Silent
from diffgen.recipe import load_recipe
from diffgen.run import Summary, export, prepare, run, stale, status
from diffgen.store import RunStore, read_records, read_state
from diffgen.types import Job
from diffgen.worker import Worker
from tests.fakes import Asked, FakeEditor, fake_worker, make, make_dataset, photo, put, save, tree, write_recipe


def no_worker() -> Worker:
    raise AssertionError("nothing is left to make, so no worker is needed")


def ids_of(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "images").glob("*/*.*")}


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
    summary, second = make(recipe, sets=["conditions=[night, snow, fog]"])
    assert (summary.made_now, summary.accepted) == (4, 12)
    assert not set(first.made) & set(second.made)


def test_a_variant_added_makes_only_the_new_ones(recipe: Path) -> None:
    make(recipe)
    assert make(recipe, sets=["variants=2"])[0].made_now == 8


def test_a_condition_taken_out_stays_in_the_folder_until_clean(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    summary, _ = make(recipe, sets=["conditions=[night]"])
    assert (summary.made_now, summary.accepted, len(ids_of(tmp_path / "out"))) == (0, 4, 8)
    out = load_recipe(tmp_path / "out")
    images, size = stale(out, remove=False)
    assert (images, len(ids_of(tmp_path / "out"))) == (4, 8)
    assert stale(out, remove=True) == (4, size)
    assert len(ids_of(tmp_path / "out")) == 4
    assert run(out, make_worker=no_worker).accepted == 4
    assert make(recipe)[0].made_now == 4, "what was cleaned away can be made again"


def test_a_threshold_changed_makes_none_and_changes_the_dataset(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    everything = tree(tmp_path / "out/dataset")
    strict = export(load_recipe(tmp_path / "out", ["conditions.fog.checks.contrast=1"]))
    assert (strict.accepted, strict.rejected) == (4, {"degenerate": 4})
    assert not [name for name in tree(tmp_path / "out/dataset") if "fog" in name]
    assert run(load_recipe(tmp_path / "out"), make_worker=no_worker).accepted == 4, "what export was told is kept"
    back = export(load_recipe(tmp_path / "out", ["conditions.fog.checks=null"]))
    assert back.accepted == 8
    assert tree(tmp_path / "out/dataset") == everything


@pytest.mark.parametrize("change", ["conditions.night.strength=0.5", "seed=3", "variants=2"])
def test_export_refuses_other_images_and_leaves_the_folder(change: str, recipe: Path, tmp_path: Path) -> None:
    make(recipe, limit=2)
    before = tree(tmp_path / "out")
    with pytest.raises(UsageError, match="export makes no image"):
        export(load_recipe(tmp_path / "out", [change]))
    assert tree(tmp_path / "out") == before
    assert export(load_recipe(tmp_path / "out", ["select.max=1"])).planned == 2, "fewer of the same images are fine"


def test_an_unfinished_run_is_exported_with_other_checks(recipe: Path, tmp_path: Path) -> None:
    make(recipe, max_minutes=0)
    assert export(load_recipe(tmp_path / "out", ["checks.contrast=null"])).pending == 8


def test_a_label_edited_makes_only_that_sources_images_anew(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    label = put(tmp_path / "data/labels/train/02.txt", "1 0.5 0.5 0.2 0.2\n")
    summary, editor = make(recipe)
    assert (summary.made_now, summary.accepted) == (2, 8)
    plan = prepare(load_recipe(recipe)).plan
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


# --- bad data is a record


def truncated(path: Path) -> None:
    """A picture whose header is whole."""
    path.write_bytes(path.read_bytes()[:-400])


def test_a_picture_that_does_not_decode_is_a_failed_record_and_the_rest_goes_on(recipe: Path, tmp_path: Path) -> None:
    truncated(tmp_path / "data/images/train/01.jpg")
    summary, editor = make(recipe)
    assert (summary.accepted, summary.failed, summary.exit_code) == (6, {"source": 2}, 0)
    assert any("train/01: cannot decode the image" in error for error in summary.errors)
    assert sorted(len(batch) for batch in editor.batches) == [1, 1, 3, 3], "its row is kept as a blank"
    assert run(load_recipe(recipe), make_worker=no_worker).failed == {"source": 2}, "a failure of a source is final"
    assert (tmp_path / "out/dataset/images/train/01.jpg").is_file(), "the source itself is carried over"
    save(tmp_path / "data/images/train/01.jpg", photo(60))
    assert make(recipe)[0].made_now == 2, "a repaired file is a new job"


def test_the_neighbours_of_a_bad_picture_are_judged_and_labelled_as_ever(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    good = read_records(tmp_path / "out")[0]
    truncated(tmp_path / "data/images/train/01.jpg")
    shutil.rmtree(tmp_path / "out")
    make(recipe)
    bad = read_records(tmp_path / "out")[0]
    common = set(good) & set(bad)
    assert len(common) == 6
    assert all(bad[job_id].facts["structure"] for job_id in common)


def changing(recipe: Path, change: Callable[[], Any]) -> tuple[Summary, FakeEditor]:
    """A run during which the dataset changes after planning, before the first picture is opened."""
    editor = FakeEditor()

    def make_worker() -> Worker:
        change()
        return fake_worker(editor)

    return run(load_recipe(recipe), make_worker=make_worker), editor


CHANGES = [
    ("picture", lambda data: save(data / "images/train/01.jpg", photo(61))),
    ("label", lambda data: put(data / "labels/train/01.txt", "1 0.5 0.5 0.1 0.1\n")),
    ("label gone", lambda data: (data / "labels/train/01.txt").unlink()),
]


@pytest.mark.parametrize("change", [c[1] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_a_source_changed_during_the_run_is_made_by_the_next(recipe: Path, tmp_path: Path, change: Any) -> None:
    summary, _ = changing(recipe, lambda: change(tmp_path / "data"))
    records = read_records(tmp_path / "out")[0].values()
    assert sorted(record.kind or "made" for record in records) == ["made"] * 6 + ["transient"] * 2
    assert (summary.accepted, summary.pending) == (6, 2)
    assert not list((tmp_path / "out/dataset/images/train").glob("01__*")), "no image under a label that is not its own"
    again, _ = make(recipe)
    assert (again.made_now, again.accepted) == (2, 8)


def test_a_source_gone_during_the_run_is_left_out(recipe: Path, tmp_path: Path) -> None:
    summary, _ = changing(recipe, (tmp_path / "data/images/train/01.jpg").unlink)
    assert (summary.planned, summary.accepted) == (6, 6)
    assert not list((tmp_path / "out/dataset").rglob("01*.jpg")) or all(
        "val" in str(path) for path in (tmp_path / "out/dataset").rglob("01*.jpg")
    )


def test_a_dataset_gone_during_the_run_loses_nothing_that_was_made(recipe: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pytest.raises(DiffgenError):
        changing(recipe, lambda: shutil.move(data, tmp_path / "away"))
    shutil.move(tmp_path / "away", data)
    assert make(recipe)[0].accepted == 8


# --- memory


@pytest.mark.parametrize("room", [1, 2])
def test_a_batch_that_does_not_fit_is_halved_and_every_image_is_made(recipe: Path, room: int, caplog: Any) -> None:
    summary, editor = make(recipe, FakeEditor(room=room))
    assert summary.accepted == 8
    tried = [len(batch) for batch in editor.batches]
    assert sum(size > room for size in tried) <= 2, "what did not fit is remembered"
    assert f"at most {room} from now on" in caplog.messages[-1]
    assert len(caplog.messages) <= 2


def test_an_image_alone_that_does_not_fit_is_tried_again_by_the_next_run(recipe: Path) -> None:
    summary, _ = make(recipe, FakeEditor(room=0))
    assert (summary.accepted, summary.failed, summary.exit_code) == (0, {"transient": 8}, 1)
    again, _ = make(recipe)
    assert (again.accepted, again.failed, again.exit_code) == (8, {}, 0)


def test_a_bug_in_an_editor_is_a_crash_with_what_was_made_kept(recipe: Path, tmp_path: Path) -> None:
    class Broken(FakeEditor):
        def begin(self, asked: Asked) -> None:
            if len(asked.jobs) < 3:
                raise IndexError("a bug")

    with pytest.raises(IndexError):
        make(recipe, Broken())
    assert len(read_records(tmp_path / "out")[0]) == 6
    assert make(recipe)[0].made_now == 2


def test_an_editor_that_returns_another_size_is_a_bug(recipe: Path) -> None:
    class Cropping(FakeEditor):
        def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
            return super().pixels(image, job, mask, company)[:-8]

    with pytest.raises(ValueError, match="expected an image of shape"):
        make(recipe, Cropping())


# --- equal sources


def test_two_equal_sources_share_a_job_and_both_are_exported(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(2, 1))
    for kind, suffix in (("images", "jpg"), ("labels", "txt")):
        shutil.copy(tmp_path / f"data/{kind}/train/00.{suffix}", tmp_path / f"data/{kind}/train/twin.{suffix}")
    summary, editor = make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"))
    assert (summary.planned, summary.accepted, len(editor.made)) == (6, 6, 4)
    exported = tree(tmp_path / "out/dataset/images/train")
    assert exported["00__fog-0.jpg"] == exported["twin__fog-0.jpg"]


# --- where it may write


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


# --- stopping, limits, batches


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
        def begin(self, asked: Asked) -> None:
            if len(asked.jobs) < 3:  # the last two
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(recipe, Stopping())
    assert len(read_records(tmp_path / "out")[0]) == 6
    _, rest = make(recipe)
    assert len(rest.batches) == 2
    assert {tuple(batch) for batch in rest.batches} <= {tuple(batch) for batch in whole.batches}


def test_facts_are_recorded_and_decisions_are_not(recipe: Path, tmp_path: Path) -> None:
    make(recipe)
    rows = [json.loads(line) for line in (tmp_path / "out/records.jsonl").read_text().splitlines()]
    records = [row for row in rows if "id" in row]
    assert {key for row in records for key in row} == {"id", "status", "facts", "sha256", "seconds", "environment"}
    assert all(row["facts"]["strength"] in (0.6, 0.7) for row in records)
    assert set(read_state(tmp_path / "out")["environments"]) == {row["environment"] for row in records}


# --- the exit code of a summary


def summary(**fields: Any) -> Summary:
    given = {
        "output": "o", "planned": 10, "accepted": 8, "rejected": {"structure": 2}, "failed": {}, "pending": 0,
        "conditions": {}, "sources": {}, "not_edited": {},
    }  # fmt: skip
    return Summary(**{**given, **fields})


CODES = [
    ("done", {}, 0),
    ("done, with failures, require holds", {"failed": {"source": 1}, "rejected": {"structure": 1}, "require": 0.8}, 0),
    ("at the required share", {"require": 0.8}, 0),
    ("below require", {"require": 0.81}, 3),
    ("all rejected, none required", {"accepted": 0, "rejected": {"structure": 10}}, 0),
    ("all rejected, some required", {"accepted": 0, "rejected": {"structure": 10}, "require": 0.1}, 3),
    ("all failed", {"accepted": 0, "rejected": {}, "failed": {"transient": 10}}, 1),
    ("nothing planned", {"planned": 0, "accepted": 0, "rejected": {}}, 1),
    ("out of time", {"stopped": "max-minutes"}, 4),
    ("out of time comes before require", {"stopped": "max-minutes", "require": 1.0}, 4),
    ("changed during the run, so to be run again", {"pending": 2, "rejected": {}, "require": 1.0}, 4),
    ("interrupted", {"stopped": "SIGINT"}, 130),
    ("terminated", {"stopped": "SIGTERM", "accepted": 0, "rejected": {}}, 143),
]


@pytest.mark.parametrize(("fields", "code"), [c[1:] for c in CODES], ids=[c[0] for c in CODES])
def test_exit_codes(fields: dict[str, Any], code: int) -> None:
    assert summary(**fields).exit_code == code
    assert summary(**fields).to_dict()["exit_code"] == code


def test_progress_judges_each_image_by_its_own_condition(tmp_path: Path) -> None:
    """Conditions of equal settings share batches."""
    told: list[tuple[int, int, int, str]] = []

    class Told(Silent):
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
