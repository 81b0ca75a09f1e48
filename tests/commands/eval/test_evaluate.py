"""Evaluations from the trainings to the verdict, by a trainer without torch in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from diffgen.commands.eval.evaluate import evaluate, locked, plan_facts, plan_text, results
from diffgen.commands.eval.page import results_text
from diffgen.commands.eval.request import read_options, read_tests
from diffgen.errors import DiffgenError, UsageError
from tests.commands.eval.fakes_eval import a_run, a_test, prepared
from tests.fakes import put

ROOT = Path(__file__).resolve().parents[3]


def test_a_planted_effect_is_shown(tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_run(tmp_path)
    monkeypatch.setenv("ARM", "checked")
    monkeypatch.setenv("GAIN", "0.4")
    evaluation = prepared(tmp_path, oracle=a_test(tmp_path / "real", first=9000), require="shown")
    talk: list[str] = []
    facts = evaluate(evaluation, notify=talk.append)
    assert (facts["verdict"], facts["exit_code"], facts["left"], facts["seeds_done"]) == ("shown", 0, 0, 8)
    assert list(facts["tests"]) == ["night", "val"], "and the run's own val, to see that nothing is lost there"
    night = facts["tests"]["night"]
    first, *others = night["contrasts"]
    assert (first["first"], first["second"]) == ("checked", "real")
    assert first["p"] == first["p_corrected"] == pytest.approx(2**-7, abs=1e-4)
    assert 0 < first["interval"][0] < first["difference"] < first["interval"][1]
    by_pair = {(row["first"], row["second"]): row for row in others}
    assert by_pair["unchecked", "real"]["verdict"] == "not shown"
    assert by_pair["checked", "unchecked"]["p_corrected"] >= by_pair["checked", "unchecked"]["p"]
    assert night["arms"]["zero-shot"]["seeds"] == 1
    assert night["arms"]["checked"]["ap50"] > night["arms"]["real"]["ap50"]
    assert set(night["arms"]["checked"]["sizes"]) == {"small", "medium", "large"}
    assert night["arms"]["checked"]["ultralytics_ap50"] == 0.5
    assert len([line for line in talk if "/41 trainings" in line]) == 41
    said = results_text(facts)
    assert "verdict   shown: the synthetic images help" in said
    page = (tmp_path / "out-eval/report.html").read_text("utf-8")
    assert "checked − real" in page
    assert "Holm" in page
    assert json.loads((tmp_path / "out-eval/results.json").read_text("utf-8"))["verdict"] == "shown"


def test_no_effect_is_not_shown_and_harm_is(tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_run(tmp_path)
    facts = evaluate(prepared(tmp_path, arms=("real", "checked"), require="shown"))
    assert (facts["verdict"], facts["exit_code"]) == ("not shown", 3)
    monkeypatch.setenv("ARM", "checked")
    monkeypatch.setenv("GAIN", "-0.4")
    facts = evaluate(prepared(tmp_path, arms=("real", "checked"), folder=tmp_path / "again"))
    assert facts["verdict"] == "harm shown"


def test_what_is_done_is_not_done_again(tmp_path: Path, calls: Path) -> None:
    a_run(tmp_path)
    evaluation = prepared(tmp_path, seeds=2)
    first = evaluate(evaluation)
    assert Counter(calls.read_text().split("\n")).most_common(1)[0][1] == 1
    assert len(calls.read_text().split()) == 2 * 8
    assert evaluate(prepared(tmp_path, seeds=2)) == first
    assert len(calls.read_text().split()) == 2 * 8
    more = evaluate(prepared(tmp_path, seeds=3))
    assert len(calls.read_text().split()) == 2 * 12, "the third seed alone"
    assert more["seeds_done"] == 3
    other = a_test(tmp_path / "fog", first=7000)
    tested = evaluate(prepared(tmp_path, seeds=3, tests={"night": tmp_path / "night/data.yaml", "fog": other}))
    assert len(calls.read_text().split()) == 2 * 12, "another test set needs no training"
    assert set(tested["tests"]) == {"night", "fog", "val"}
    evaluate(prepared(tmp_path, seeds=3, options={"lr0": 0.1}))
    assert len(calls.read_text().split()) == 2 * 24, "another way to train does"


def test_weights_that_know_none_of_the_classes_have_no_figures(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(tmp_path)
    monkeypatch.setenv("NAMES", "tree,dog")
    facts = evaluate(prepared(tmp_path, seeds=1, arms=("real", "checked")))
    row = facts["tests"]["night"]["arms"]["zero-shot"]
    assert (row["ap50"], row["each"], row["wrong_a_picture"]) == (None, [None], None)
    assert json.loads((tmp_path / "out-eval/results.json").read_text("utf-8"))["seeds_done"] == 1
    assert "zero-shot      1       –" in results_text(facts)


def test_files_of_the_working_directory_are_no_modules_of_a_training(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(tmp_path)
    for name in ("random", "tempfile", "re", "threading"):
        put(tmp_path / f"here/{name}.py", "raise SystemExit('a file of the user')\n")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))  # as `python -m diffgen` does
    facts = evaluate(prepared(tmp_path, seeds=1, arms=("real", "checked"), folder=Path("relative")))
    assert facts["left"] == 0
    assert (tmp_path / "here/relative/results.json").is_file()


def test_too_few_seeds_for_so_many_comparisons_are_said(tmp_path: Path, calls: Path) -> None:
    a_run(tmp_path)
    assert prepared(tmp_path, seeds=8).warnings == ()
    few = prepared(tmp_path, seeds=8, ratios=(0.2, 0.4, 0.6, 0.8)).warnings
    assert few == (
        "8 seeds cannot show any of the 8 other comparisons: corrected for their number the smallest possible p is 0.062; "
        "use 9 seeds or more, or fewer arms",
    )
    assert prepared(tmp_path, seeds=9, ratios=(0.2, 0.4, 0.6, 0.8)).warnings == ()


def test_too_few_seeds_are_said_before_it_starts(tmp_path: Path, calls: Path) -> None:
    a_run(tmp_path)
    evaluation = prepared(tmp_path, seeds=5)
    line = "5 seeds can show nothing: the smallest possible p is 0.0625; use 6 or more"
    assert line in evaluation.warnings
    facts = plan_facts(evaluation)
    assert (facts["trainings"], facts["left"], facts["minutes"]) == (20, 20, None)
    assert facts["steps"] == 10, "one batch of twelve pictures an epoch"
    assert line in plan_text(facts)
    assert not (tmp_path / "out-eval").exists()
    assert calls.read_text() == ""


def test_a_training_that_fails_is_one_error_with_its_last_line(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(tmp_path)
    monkeypatch.setenv("BROKEN", "rules")
    with pytest.raises(DiffgenError, match="a training failed: CUDA error: out of cheese") as error:
        evaluate(prepared(tmp_path, seeds=2))
    assert "log.txt" in str(error.value.hint)
    monkeypatch.delenv("BROKEN")
    assert evaluate(prepared(tmp_path, seeds=2))["seeds_done"] == 2


def test_stopped_by_the_clock_it_tells_what_it_has(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(tmp_path)
    monkeypatch.setenv("SLOWLY", "0.4")
    facts = evaluate(prepared(tmp_path), max_minutes=0.05)
    assert (facts["stopped"], facts["exit_code"]) == ("max-minutes", 4)
    assert 0 < facts["left"] <= 32


DRIVER = """
import sys
from pathlib import Path
from tests.commands.eval.fakes_eval import prepared
from diffgen.commands.eval.evaluate import evaluate
facts = evaluate(prepared(Path(sys.argv[1]), seeds=3), notify=lambda line: print(line, file=sys.stderr, flush=True))
sys.exit(facts["exit_code"])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_it_goes_on_and_leaves_no_process(
    number: signal.Signals, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(tmp_path)
    monkeypatch.setenv("SLOWLY", "0.5")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-c", DRIVER, tmp_path], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    while "2/13 trainings" not in child.stderr.readline():
        assert child.poll() is None
    child.send_signal(number)
    child.communicate(timeout=60)
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
    assert child.returncode == codes[number]
    monkeypatch.setenv("SLOWLY", "0")
    facts = evaluate(prepared(tmp_path, seeds=3))
    assert facts["seeds_done"] == 3
    begun = Counter(line for line in calls.read_text().split("\n") if line)
    assert len(begun) == 12
    assert sum(begun.values()) <= 13, "at most the one in hand is begun again"


def test_equal_lists_share_a_training(tmp_path: Path, calls: Path) -> None:
    a_run(tmp_path)
    evaluation = prepared(tmp_path, seeds=2, arms=("real", "checked"), ratios=(0.01, 1.0))
    assert len({training.key for training in evaluation.trainings}) == 1 + 4
    facts = evaluate(evaluation)
    assert (facts["seeds_done"], facts["left"]) == (2, 0)
    assert sorted(calls.read_text().splitlines()) == ["checked 0", "checked 1", "real 0", "real 1"]
    arms = facts["tests"]["night"]["arms"]
    assert arms["checked 1"] == arms["checked"]
    assert arms["checked 0.01"] == arms["real"]


def test_there_is_no_verdict_before_the_last_seed(tmp_path: Path, calls: Path) -> None:
    a_run(tmp_path)
    evaluate(prepared(tmp_path, seeds=6, arms=("real", "checked")))
    facts = results(prepared(tmp_path, seeds=8, arms=("real", "checked")))
    assert (facts["seeds_done"], facts["left"], facts["verdict"]) == (6, 4, None)
    assert {row["verdict"] for row in facts["tests"]["night"]["contrasts"]} == {"so far"}
    assert "not every arm has trained all seeds" in results_text(facts)


def test_two_at_once_are_one_too_many(tmp_path: Path, calls: Path) -> None:
    a_run(tmp_path)
    evaluation = prepared(tmp_path, seeds=1)
    (tmp_path / "out-eval").mkdir()
    put(tmp_path / "out-eval/eval.json", "{}")
    with locked(tmp_path / "out-eval"), pytest.raises(DiffgenError, match="another process is using it"):
        evaluate(evaluation)


def test_one_training_a_device(tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_run(tmp_path)
    monkeypatch.setenv("SLOWLY", "0.5")
    started = time.monotonic()
    facts = evaluate(prepared(tmp_path, seeds=1, devices=("0", "1", "2", "3")))
    assert facts["seeds_done"] == 1
    jobs = [json.loads(path.read_text()) for path in (tmp_path / "out-eval/trainings").glob("*/job.json")]
    assert {job["device"] for job in jobs} == {"0", "1", "2", "3"}
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"arms": ("real", "chekced")}, "no arm 'chekced'. Did you mean 'checked'"),
        ({"arms": ("real", "oracle")}, "the oracle arm needs pictures"),
        ({"options": {"seed": 3}}, "seed is set by the evaluation"),
        ({"options": {"epochs": "ten"}}, "epochs must be a whole number, got 'ten'"),
        ({"classes": ("cra",)}, "no class 'cra'. Did you mean 'car'"),
        ({"weights": Path("nowhere.pt")}, "there is no file nowhere.pt"),
        ({"seeds": 30}, "at most 20"),
        ({"require": "help"}, "the only value is shown"),
        ({"require": "shown"}, "these trainings can never show it"),
    ],
)
def test_wrong_requests(tmp_path: Path, calls: Path, fields: dict[str, Any], words: str) -> None:
    a_run(tmp_path)
    with pytest.raises(UsageError) as error:
        evaluate(prepared(tmp_path, **{"seeds": 1, **fields}))
    assert words in f"{error.value.message} {error.value.hint}"


def test_a_test_set_without_an_object_is_refused_and_an_own_val_without_one_is_left_out(
    tmp_path: Path, calls: Path
) -> None:
    a_run(tmp_path)
    for path in (tmp_path / "data/labels/val").iterdir():
        path.write_text("0 0.5 0.5 0.4 0.4\n")
    assert [test.name for test in prepared(tmp_path).tests] == ["night", "val"]
    assert [test.name for test in prepared(tmp_path, classes=("person",)).tests] == ["night"]
    for path in (tmp_path / "night/labels/val").iterdir():
        path.write_text("1 0.5 0.5 0.4 0.4\n")
    with pytest.raises(UsageError, match="night: no labelled object of car in its val split"):
        prepared(tmp_path, classes=("car",), tests={"night": tmp_path / "night/data.yaml"})


def test_somebody_else_s_folder_is_refused(tmp_path: Path, calls: Path) -> None:
    a_run(tmp_path)
    put(tmp_path / "out-eval/thesis.txt", "mine")
    with pytest.raises(UsageError, match="not empty and was not written by diffgen eval"):
        evaluate(prepared(tmp_path))
    assert (tmp_path / "out-eval/thesis.txt").read_text() == "mine"


def test_words_of_the_command_line() -> None:
    assert read_options("lr0=1e-3 imgsz=416 cos_lr=true optimizer=AdamW classes=None") == {
        "lr0": 0.001, "imgsz": 416, "cos_lr": True, "optimizer": "AdamW", "classes": None,
    }  # fmt: skip
    assert read_tests(["night=a/b.yaml", "/x/fog/data.yaml"]) == {
        "night": Path("a/b.yaml"),
        "fog": Path("/x/fog/data.yaml"),
    }
    for wrong in (["lr0"], ["=3"]):
        with pytest.raises(UsageError):
            read_options(wrong[0])
    with pytest.raises(UsageError):
        read_tests(["a=x", "a=y"])
