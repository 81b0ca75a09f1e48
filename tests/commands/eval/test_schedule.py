"""`--schedule mix,pretrain-finetune`: the arm that is trained on the made pictures first, and on the real ones after them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffgen.commands.eval.arms import CHECKED, REAL, digest
from diffgen.commands.eval.evaluate import evaluate, plan_facts, plan_text
from diffgen.commands.eval.page import results_text
from diffgen.commands.eval.trainings import ZERO_SHOT, file_digest, training_key
from diffgen.errors import DiffgenError
from diffgen.output.schedule import PRETRAIN_FINETUNE
from tests.commands.eval.fakes_eval import a_run, prepared

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("batch", "made", "real", "others"), [(3, 6, 6, 12), (6, 3, 3, 6), (12, 3, 3, 3), (4, 6, 6, 9), (5, 6, 6, 9)]
)
def test_both_stages_make_as_many_steps_as_another_arm_up_to_one_more_an_epoch(
    tmp_path: Path, batch: int, made: int, real: int, others: int
) -> None:
    a_run(tmp_path)
    facts = plan_facts(prepared(tmp_path, staged=True, options={"epochs": 3, "batch": batch}))
    stages = {"made": {"pictures": 6, "steps": made}, "real": {"pictures": 6, "steps": real}}
    assert (facts["stages"], facts["steps"]) == (stages, others)
    assert 0 <= made + real - others <= 3
    assert set(facts["arms"].values()) == {12}, "and sees as many pictures"
    assert (facts["trainings"], list(facts["arms"])[-1]) == (40, PRETRAIN_FINETUNE)
    said = plan_text(facts)
    assert f"arms      real, rules, unchecked, checked: 12 pictures each, {others} steps\n" in said
    assert f"stages    pretrain-finetune: 6 made pictures, {made} steps; then 6 real pictures, {real} steps" in said


def test_its_stages_are_the_made_pictures_of_checked_and_the_real_ones(tmp_path: Path) -> None:
    a_run(tmp_path)
    for most, arms in ((None, None), (4, ("real",))):
        checked = prepared(tmp_path, most=most).arms[CHECKED]
        evaluation = prepared(tmp_path, most=most, arms=arms, staged=True)
        assert evaluation.stages == {"made": checked[6:], "real": checked[:6]}
        assert PRETRAIN_FINETUNE not in evaluation.arms, "which are lists of equal length"


def test_the_trainings_of_the_other_arms_are_named_as_without_it(tmp_path: Path) -> None:
    a_run(tmp_path)
    without, staged = prepared(tmp_path, seeds=2), prepared(tmp_path, seeds=2, staged=True)
    assert without.stages == {}
    assert "stages" not in plan_facts(without)
    mixed = tuple(training for training in staged.trainings if training.arm != PRETRAIN_FINETUNE)
    assert mixed == without.trainings
    weights, bench = file_digest(tmp_path / "weights.pt"), staged.bench
    for training in mixed:
        if training.arm != ZERO_SHOT:
            content = digest(staged.arms[training.arm])
            assert training.key == training_key(weights, content, training.seed, bench.size, bench.options)
            assert training.data == (str(bench.folder / f"arms/{training.arm}-{content[:12]}/data.yaml"),)


def test_its_own_are_named_by_both_lists(tmp_path: Path) -> None:
    a_run(tmp_path)
    evaluation = prepared(tmp_path, seeds=1, staged=True)

    def key(**stages: Any) -> str:
        from diffgen.commands.eval.prepare import _trainings

        changed = {**evaluation.stages, **stages}
        return _trainings(evaluation.request, evaluation.bench, evaluation.arms, changed)[-1].key

    made, real = evaluation.stages["made"], evaluation.stages["real"]
    keys = [key(), key(made=made[:-1]), key(real=real[:-1]), key(made=real, real=made)]
    assert len({*keys, *(training.key for training in evaluation.trainings)}) == 5 + len(keys)
    assert keys[0] == evaluation.trainings[-1].key


def test_it_is_contrasted_and_shown(tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_run(tmp_path)
    monkeypatch.setenv("ARM", "stage-real")
    monkeypatch.setenv("GAIN", "0.4")
    facts = evaluate(prepared(tmp_path, arms=("real", "checked"), staged=True))
    assert (facts["verdict"], facts["left"], facts["seeds_done"]) == ("not shown", 0, 8)
    first, *others = facts["tests"]["night"]["contrasts"]
    assert (first["first"], first["second"], first["p_corrected"]) == (CHECKED, REAL, first["p"])
    assert [(row["first"], row["second"]) for row in others] == [
        (PRETRAIN_FINETUNE, REAL),
        (PRETRAIN_FINETUNE, CHECKED),
    ]
    for row in others:
        assert (row["verdict"], row["p_corrected"]) == ("shown", pytest.approx(2 * row["p"], abs=1e-4)), (
            "Holm's, of two"
        )
    kept = json.loads((tmp_path / "out-eval/results.json").read_text("utf-8"))
    assert kept["stages"]["made"]["pictures"] == 6
    said, page = results_text(facts), (tmp_path / "out-eval/report.html").read_text("utf-8")
    header, row = (next(line for line in said.splitlines() if word in line) for word in ("AP50-95", "  pretrain-fi"))
    assert header.index("seeds") + len("seeds") == row.index("8") + 1, "in one column"
    assert "pretrain-finetune − real: +0." in said
    assert "pretrain-finetune − checked" in page
    assert "trains on 6 synthetic images" in page


def test_the_second_stage_begins_at_the_last_checkpoint_of_the_first(tmp_path: Path, calls: Path) -> None:
    a_run(tmp_path)
    evaluation = prepared(tmp_path, seeds=2, arms=("real",), staged=True)
    evaluate(evaluation)
    ours = [line for line in calls.read_text().splitlines() if line.startswith("stage")]
    assert ours == ["stage-made 0", "stage-real 0", "stage-made 1", "stage-real 1"]
    for training in evaluation.trainings:
        if training.arm == PRETRAIN_FINETUNE:
            place = tmp_path / "out-eval/trainings" / training.key
            job = json.loads((place / "job.json").read_text())
            assert (job["weights"], job["data"]) == (str(place / "stage-1.pt"), training.data[1])
            assert (place / "stage-1.pt").read_text() == f"stage-made {training.seed}"
            assert (place / "last.pt").read_text() == f"stage-real {training.seed}"
    assert evaluate(prepared(tmp_path, seeds=2, arms=("real",), staged=True))["left"] == 0
    assert len(calls.read_text().splitlines()) == 6, "nothing is done again"


def test_where_the_second_stage_fails_the_first_is_kept(
    tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(tmp_path)
    monkeypatch.setenv("BROKEN", "stage-real")
    monkeypatch.setenv("SLOWLY", "0.5")
    evaluation = prepared(tmp_path, seeds=1, arms=("real",), staged=True)
    training, bench = evaluation.trainings[-1], evaluation.bench
    with pytest.raises(DiffgenError, match="a training failed: CUDA error"):
        evaluate(evaluation)
    assert bench.seconds(training) is None, "it is not done"
    monkeypatch.delenv("BROKEN")
    monkeypatch.setenv("SLOWLY", "0")
    assert evaluate(evaluation)["seeds_done"] == 1
    assert calls.read_text().splitlines() == ["real 0", "stage-made 0", "stage-real 0", "stage-real 0"]
    assert (bench.seconds(training) or 0) >= 0.5, "the first stage's are counted"


DRIVER = """
import sys
from pathlib import Path
from tests.commands.eval.fakes_eval import prepared
from diffgen.commands.eval.evaluate import evaluate
evaluate(prepared(Path(sys.argv[1]), seeds=1, arms=("real",), staged=True))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_after_the_first_stage_it_goes_on_with_the_second(
    number: signal.Signals, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(tmp_path)
    monkeypatch.setenv("SLOWLY", "1")
    child = subprocess.Popen([sys.executable, "-c", DRIVER, tmp_path], env={**os.environ, "PYTHONPATH": str(ROOT)})
    while "stage-real" not in calls.read_text():
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(number)
    child.wait(timeout=60)
    monkeypatch.setenv("SLOWLY", "0")
    assert evaluate(prepared(tmp_path, seeds=1, arms=("real",), staged=True))["seeds_done"] == 1
    assert calls.read_text().splitlines() == ["real 0", "stage-made 0", "stage-real 0", "stage-real 0"]


@pytest.mark.parametrize("command", [("eval", "out", "--model", "w.pt", "--test", "n=d.yaml"), ("export", "out")])
def test_an_unknown_schedule_is_one_clear_line(cli: Callable[..., Any], command: tuple[str, ...]) -> None:
    for words in ("mix,pretrain-finetun", "pretrain-finetun", ""):
        answer = cli(*command, "--schedule", words)
        assert (answer.code, answer.out) == (2, "")
        error, hint = answer.err.splitlines()
        assert error.startswith(f"error: --schedule: there is no schedule '{words.split(',')[-1]}'")
        assert ("Did you mean 'pretrain-finetune'?" in error) == bool(words)
        assert hint == "hint: the schedules: mix, pretrain-finetune"
