"""The lists that detectors are trained on, and what may not be in them."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from diffgen.commands.eval.arms import ARMS, CHECKED, ORACLE, REAL, RULES, UNCHECKED, leaks, read_test, write_arm
from diffgen.commands.eval.prepare import prepare
from diffgen.commands.eval.request import EvalRequest
from diffgen.commands.eval.results import truths_of
from diffgen.commands.eval.rules import RULES as OF_IMAGES
from diffgen.commands.eval.rules import ruled
from diffgen.commands.export import export
from diffgen.dataset.dataset import read_dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.errors import UsageError
from diffgen.output.outcome import Entry, nested
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from diffgen.run.summary import summary_text
from diffgen.types import Item
from tests.commands.eval.fakes_eval import a_run, a_test, prepared
from tests.fakes import FakeEditor, fake_worker, job, make, make_dataset, photo, put, source, write_recipe


def test_lists_of_equal_length_with_the_real_pictures_at_the_same_places(tmp_path: Path) -> None:
    a_run(tmp_path)
    evaluation = prepared(tmp_path, oracle=a_test(tmp_path / "real", first=9000))
    assert list(evaluation.arms) == list(ARMS)
    (length,) = {len(slots) for slots in evaluation.arms.values()}
    assert length == 12, "six real pictures, and six places more"
    (real,) = {tuple(slots[:6]) for slots in evaluation.arms.values()}
    checked, again, rules = (evaluation.arms[arm][6:] for arm in (CHECKED, REAL, RULES))
    made = {str(evaluation.outcome.image(entry)): entry.item.source.path for entry in evaluation.outcome.entries}
    assert [made[slot.path] for slot in checked] == [slot.path for slot in again] == [slot.path for slot in rules]
    assert {slot.path for slot in again} <= {slot.path for slot in real}
    assert all(slot.rule for slot in rules)
    assert [slot.label for slot in checked] == [slot.label for slot in again]
    assert {Path(slot.path).parts[-4] for slot in evaluation.arms[ORACLE][6:]} == {"real"}


def test_the_checked_arm_has_accepted_images_alone_and_the_unchecked_one_all(tmp_path: Path) -> None:
    a_run(tmp_path)
    evaluation = prepared(tmp_path)
    accepted = {str(evaluation.outcome.image(e)): e.accepted for e in evaluation.outcome.entries}
    assert set(accepted.values()) == {True, False}
    assert all(accepted[slot.path] for slot in evaluation.arms[CHECKED][6:])
    unchecked = evaluation.arms[UNCHECKED][6:]
    assert not all(accepted[slot.path] for slot in unchecked)
    pairs = list(zip(unchecked, evaluation.arms[CHECKED][6:], strict=True))
    assert [first == second for first, second in pairs] == [accepted[first.path] for first, _ in pairs]
    assert evaluation.arms.keys() == ARMS.keys() - {ORACLE}


def test_smaller_ratios_are_parts_of_larger_ones_and_of_the_export_of_that_ratio(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    arms = prepared(tmp_path, ratios=(0.2, 0.5, 1.0)).arms
    made = {
        name: {s.path for s in slots if "/out/" in s.path} for name, slots in arms.items() if name.startswith("checked")
    }
    assert {name: len(paths) for name, paths in made.items()} == {
        "checked": 6, "checked 0.2": 1, "checked 0.5": 3, "checked 1": 6,
    }  # fmt: skip
    assert made["checked 0.2"] < made["checked 0.5"] < made["checked 1"] == made["checked"]
    assert {len(slots) for slots in arms.values()} == {12}, "real pictures fill the other places"
    summary = export(load_recipe(run, ["ratio=0.5"]))
    assert (summary.exported, summary.accepted) == (3, 6)
    exported = {p.read_bytes() for p in (run / "dataset/images/train").iterdir() if "__" in p.name}
    assert exported == {Path(path).read_bytes() for path in made["checked 0.5"]}
    assert "ratio     3 of the accepted images are in the dataset" in summary_text(summary)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), unique=True, max_size=40), st.randoms())
def test_the_order_is_nested_and_covers_every_source_before_one_is_used_twice(
    pairs: list[tuple[int, int]], random: Random
) -> None:
    entries = [Entry(Item(source(i), job(source=f"{i}", seed=n))) for i, n in pairs]
    ranked = nested(entries)
    shuffled = list(entries)
    random.shuffle(shuffled)
    assert [e.item.job.id for e in nested(shuffled)] == [e.item.job.id for e in ranked]
    used = Counter(entry.item.source.key for entry in entries)
    for end in range(len(ranked)):
        times = Counter(entry.item.source.key for entry in ranked[:end])
        assert all(times[key] >= min(used[key], max(times.values(), default=0) - 1) for key in used)


def test_what_is_written_is_what_ultralytics_sorts(tmp_path: Path) -> None:
    a_run(tmp_path)
    evaluation = prepared(tmp_path)
    for arm in (CHECKED, RULES):
        slots = evaluation.arms[arm]
        data = tmp_path / arm / "data.yaml"
        write_arm(data, slots, evaluation.outcome.dataset.names)
        images = sorted((data.parent / "images/train").iterdir())
        assert [path.stem for path in images] == [f"{i:06}" for i in range(12)]
        labels = sorted((data.parent / "labels/train").iterdir())
        assert [path.read_bytes() for path in labels] == [slot.label for slot in slots]
        same = [path.samefile(slot.path) for path, slot in zip(images, slots, strict=True)]
        assert same == [slot.rule is None for slot in slots]
    stamp = data.stat().st_mtime_ns
    write_arm(data, evaluation.arms[RULES], evaluation.outcome.dataset.names)
    assert data.stat().st_mtime_ns == stamp, "it is there already"
    moved = [replace(slot, path=str(shutil.copy(slot.path, tmp_path / f"{i}.jpg"))) for i, slot in enumerate(slots)]
    write_arm(data, moved, evaluation.outcome.dataset.names)
    assert sorted((data.parent / "images/train").iterdir())[0].samefile(moved[0].path), (
        "a dataset that moved is linked anew"
    )


def test_a_run_without_accepted_images_is_one_clear_error(tmp_path: Path) -> None:
    a_run(tmp_path, checks={"contrast": 1.0})
    with pytest.raises(UsageError, match="no image of the train split was accepted") as error:
        prepared(tmp_path)
    assert "report.html" in str(error.value.hint)


def test_a_test_picture_that_is_trained_on_is_refused(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    test = a_test(tmp_path / "night")
    shutil.copy(tmp_path / "data/images/train/03.jpg", tmp_path / "night/images/val/elsewhere.jpg")
    put(tmp_path / "night/labels/val/elsewhere.txt", "0 0.5 0.5 0.2 0.2\n")
    weights = put(tmp_path / "w.pt", "")
    with pytest.raises(UsageError, match=r"night: .*elsewhere.jpg is also trained on \(as .*03.jpg\)"):
        prepare(EvalRequest(run, weights, {"night": test}))


def test_a_test_picture_of_the_oracle_is_refused(tmp_path: Path) -> None:
    run, test = a_run(tmp_path), a_test(tmp_path / "night")
    put(tmp_path / "night/data.yaml", "train: images/val\nval: images/val\nnames: [car, person]\n")
    weights = put(tmp_path / "w.pt", "")
    oracle = put(tmp_path / "night/oracle.yaml", "train: images/val\nnames: [car, person]\n")
    with pytest.raises(UsageError, match="is also trained on"):
        prepare(EvalRequest(run, weights, {"night": test}, oracle=oracle))


@given(st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_shared_picture_is_a_leak_and_no_other(trained: set[int], tested: set[int]) -> None:
    from diffgen.commands.eval.arms import TestSet

    test = TestSet("t", (), tuple(source(i) for i in sorted(tested)), frozenset({0}))
    lines = list(leaks([source(i) for i in sorted(trained)], [test]))
    assert len(lines) == len(trained & tested)
    for i, line in zip(sorted(trained & tested), lines, strict=True):
        assert source(i).path in line


def test_pictures_that_look_like_trained_ones_are_named(tmp_path: Path) -> None:
    run, test = a_run(tmp_path), a_test(tmp_path / "night")
    picture = Image.open(tmp_path / "data/images/train/03.jpg")
    picture.save(tmp_path / "night/images/val/again.jpg", quality=80)
    put(tmp_path / "night/labels/val/again.txt", "0 0.5 0.5 0.2 0.2\n")
    evaluation = prepare(EvalRequest(run, put(tmp_path / "w.pt", ""), {"night": test}))
    assert any("night: 1 pictures look like training pictures" in line for line in evaluation.warnings)


def test_copies_in_the_run_s_own_val_are_left_out_and_said(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", counts=(6, 3), size=(160, 120))
    shutil.copy(tmp_path / "data/images/train/03.jpg", tmp_path / "data/images/val/copy.jpg")
    shutil.copy(tmp_path / "data/labels/train/03.txt", tmp_path / "data/labels/val/copy.txt")
    make(write_recipe(tmp_path / "r.yaml", tmp_path / "data/data.yaml", tmp_path / "out", conditions=["night"]))
    evaluation = prepared(tmp_path)
    assert "val: 1 of its pictures are also in train and are not tested on" in evaluation.warnings
    assert len(evaluation.tests[1].slots) == len(evaluation.tests[1].sources) == 3


def test_the_light_of_test_pictures_may_not_be_copied(tmp_path: Path) -> None:
    a_run(tmp_path)
    a_test(tmp_path / "night")
    with pytest.raises(UsageError, match="--target: one of its pictures is also in a test set"):
        prepared(tmp_path, targets=tmp_path / "night/images/val")
    assert prepared(tmp_path, targets=tmp_path / "night/images/train", tests={"night": tmp_path / "night/data.yaml"})


def test_a_condition_without_a_rule_is_said(tmp_path: Path) -> None:
    a_run(tmp_path, conditions=[{"name": "sandstorm", "prompt": "sand", "strength": 1}])
    with pytest.raises(UsageError, match="there is no rule for 'sandstorm'"):
        prepared(tmp_path)
    assert list(prepared(tmp_path, arms=("real", "checked")).arms) == ["real", "checked"]


def test_rows_with_keypoints_become_boxes(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", kind="pose", counts=(3, 1), size=(160, 120))
    recipe = write_recipe(tmp_path / "r.yaml", tmp_path / "data/data.yaml", tmp_path / "out", conditions=["night"])
    run(load_recipe(recipe), make_worker=lambda: fake_worker(FakeEditor(), keypoints=(2, 3)))
    evaluation = prepared(tmp_path)
    for slots in evaluation.arms.values():
        assert all(len(row.split()) == 5 for slot in slots for row in slot.label.splitlines())
    schema = evaluation.outcome.dataset.schema
    own = next(test for test in evaluation.tests if test.name == "val")
    assert schema.keypoints is not None
    assert all(len(truths_of(160, 120, slot.label, schema).classes) for slot in own.slots)


def test_a_test_set_has_our_classes_by_name(tmp_path: Path) -> None:
    a_test(tmp_path / "t", count=3)
    data = put(tmp_path / "t/data.yaml", "train: images/train\nval: images/val\nnames: [tree, CAR]\n")
    with FileCache() as cache:
        theirs = read_dataset(str(data), tmp_path, cache)
    test = read_test("t", theirs, ("car", "person"))
    assert test.known == {0}
    assert [slot.label for slot in test.slots] == [b"", b"0 0.500000 0.500000 0.400000 0.400000\n", b""]
    with pytest.raises(UsageError, match="none of the run's classes"):
        read_test("t", theirs, ("dog",))


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_rule_changes_the_picture_and_nothing_else(name: str) -> None:
    picture = photo(7, (160, 120))
    made = ruled(name, picture, 3)
    assert made is not None
    assert (made.shape, made.dtype) == (picture.shape, picture.dtype)
    assert np.abs(made.astype(int) - picture).mean() > 5
    assert (made == ruled(name, picture, 3)).all(), "by its seed"
    assert not (made == ruled(f"heavy-{name}", picture, 3)).all()


def test_a_rule_copies_the_light_of_a_target() -> None:
    picture, target = photo(7, (160, 120)), photo(8, (160, 120)) // 4
    made = ruled("anything", picture, 3, [target])
    assert made is not None
    assert made.mean() == pytest.approx(target.mean(), abs=4)
    assert ruled("anything", picture, 3) is None
