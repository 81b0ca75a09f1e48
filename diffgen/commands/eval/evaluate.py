"""`diffgen eval`: train a detector on each arm, seed by seed, test it on real pictures, and say what is shown."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffgen.commands.eval.arms import (
    place_of,
    write_arm,
    write_test,
)
from diffgen.commands.eval.page import write_page
from diffgen.commands.eval.prepare import Evaluation, classes_of
from diffgen.commands.eval.request import EvalRequest
from diffgen.commands.eval.results import PRIMARY, summary_of, tested
from diffgen.commands.eval.trainings import (
    ZERO_SHOT,
    Training,
    run_all,
)
from diffgen.dataset.images import decode
from diffgen.errors import DiffgenError, UsageError, why
from diffgen.files import shown, write_atomically
from diffgen.output.schedule import PRETRAIN_FINETUNE
from diffgen.run.interrupts import STOP_CODES, interruptible
from diffgen.run.store.state import HELD
from diffgen.types import canonical

Notify = Callable[[str], None]


def _own(folder: Path) -> None:
    """Make the folder, or see that it is an evaluation's. Raises UsageError for somebody else's."""
    mark = folder / "eval.json"
    if folder.is_dir() and any(folder.iterdir()) and not mark.is_file():
        raise UsageError(f"{folder} is not empty and was not written by diffgen eval", "choose another --output")
    folder.mkdir(parents=True, exist_ok=True)
    if not mark.is_file():
        write_atomically(mark, '{"format": 1}\n')


def _write_pictures(evaluation: Evaluation) -> None:
    """Write the pictures that the trainings need and that do not exist yet."""
    names = evaluation.outcome.dataset.names
    targets = [decode(path.read_bytes(), least=480) for path in evaluation.targets]
    for arm, slots in evaluation.arms.items():
        write_arm(place_of(evaluation.folder / "arms", arm, slots), slots, names, targets)
    for stage, slots in evaluation.stages.items():
        write_arm(place_of(evaluation.folder / "arms", f"stage {stage}", slots), slots, names)
    for test in evaluation.tests:
        write_test(evaluation.bench.tests[test.name][1], test, names)


def plan_facts(evaluation: Evaluation) -> dict[str, Any]:
    """How many trainings there are, how many are left, and how long they will take, if one is done."""
    bench, left = evaluation.bench, evaluation.left
    taken = [seconds for training in evaluation.trainings if (seconds := bench.seconds(training)) is not None]
    to_train = [training for training in left if not bench.trained(training)]
    each = sum(taken) / len(taken) if taken else None
    minutes = None if each is None else round(each * len(to_train) / len(evaluation.request.devices) / 60, 1)
    epochs, batch = bench.options["epochs"], bench.options["batch"]
    pictures = {arm: len(slots) for arm, slots in evaluation.arms.items()}
    stages = {
        stage: {"pictures": len(slots), "steps": -(-len(slots) // batch) * epochs}
        for stage, slots in evaluation.stages.items()
    }
    if stages:
        pictures[PRETRAIN_FINETUNE] = sum(stage["pictures"] for stage in stages.values())
    return {
        "folder": str(evaluation.folder),
        "arms": pictures,
        "steps": -(-next(iter(pictures.values())) // batch) * epochs,
        **({"stages": stages} if stages else {}),
        "seeds": evaluation.request.seeds,
        "tests": {test.name: len(test.slots) for test in evaluation.tests},
        "trainings": len(evaluation.trainings) - 1,
        "left": len(to_train),
        "minutes": minutes,
        "warnings": list(evaluation.warnings),
    }


def plan_text(facts: Mapping[str, Any]) -> str:
    time_left = (
        "time unknown until the first is done" if facts["minutes"] is None else f"about {facts['minutes']:g} minutes"
    )
    each = next(iter(facts["arms"].values()))
    mixed = ", ".join(arm for arm in facts["arms"] if arm != PRETRAIN_FINETUNE)
    return "\n".join(
        [
            f"eval      {shown(facts['folder'])}",
            f"arms      {mixed}: {each} pictures each, {facts['steps']} steps",
            *([f"stages    {stages_text(facts['stages'])}"] if "stages" in facts else []),
            "tests     " + ", ".join(f"{name} {count}" for name, count in facts["tests"].items()) + " pictures",
            f"trainings {facts['trainings']} over {facts['seeds']} seeds, {facts['left']} left: {time_left}",
            *(f"warning   {line}" for line in facts["warnings"]),
        ]
    )


def stages_text(stages: Mapping[str, Mapping[str, int]]) -> str:
    """What the arm of pretrain-finetune is trained on."""
    each = (f"{facts['pictures']} {stage} pictures, {facts['steps']} steps" for stage, facts in stages.items())
    return f"{PRETRAIN_FINETUNE}: " + "; then ".join(each)


def evaluate(
    evaluation: Evaluation, *, max_minutes: float | None = None, notify: Notify = lambda _: None
) -> dict[str, Any]:
    """Run what is left, and return the results, JSON-ready, with their exit code. Raises DiffgenError if one fails."""
    for line in evaluation.warnings:
        notify(f"warning: {line}")
    _own(evaluation.folder)
    with locked(evaluation.folder):
        _write_pictures(evaluation)
        stopped = train(evaluation, max_minutes=max_minutes, notify=notify)
        return results(evaluation, stopped)


def train(evaluation: Evaluation, *, max_minutes: float | None, notify: Notify) -> str | None:
    """Run the trainings that are left. Returns why it stopped early, or None."""
    total = len(evaluation.trainings)
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    left = list({training.key: training for training in reversed(evaluation.left)}.values())[
        ::-1
    ]  # equal lists share one

    def after(training: Training) -> None:
        took = evaluation.bench.seconds(training)
        spent = f", {took / 60:.1f} minutes" if took is not None else ""
        done = total - len(evaluation.left)
        notify(f"{done}/{total} trainings, {training.arm} seed {training.seed}{spent}")

    with interruptible(notify, "unfinished trainings will start again") as stop:

        def stopping() -> bool:
            if deadline is not None and time.monotonic() >= deadline and not stop:
                stop.append("max-minutes")
            return bool(stop)

        run_all(evaluation.bench, left, evaluation.request.devices, after, stopping)
    return stop[0] if stop and evaluation.left else None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time in an evaluation's folder. Raises DiffgenError when another one is there."""
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in HELD:
                raise DiffgenError(
                    f"{folder}: cannot be locked: {why(error)}", "put it on a local disk: -o FOLDER"
                ) from None
            raise DiffgenError(
                f"{folder}: another process is using it", "wait until it is done, or choose another -o"
            ) from None
        yield


def results(evaluation: Evaluation, stopped: str | None = None) -> dict[str, Any]:
    """What is known so far: of the seeds that all arms have. Writes results.json and report.html."""
    bench, request = evaluation.bench, evaluation.request
    whole = _whole_seeds(evaluation)
    facts: dict[str, Any] = {
        **plan_facts(evaluation),
        "run": str(request.run),
        "weights": str(request.weights),
        "size": bench.size,
        "options": dict(bench.options),
        "stopped": stopped,
        "seeds_done": len(whole),
        "tests": {},
        "verdict": None,
    }
    names = evaluation.outcome.dataset.names
    kept = [t for t in evaluation.trainings if (t.seed in whole or t.arm == ZERO_SHOT) and bench.done(t)]
    for test in evaluation.tests if whole else ():
        classes = classes_of(request, test, names)
        found = tested(bench, kept, test, evaluation.outcome.dataset.schema, classes)
        asked = test is evaluation.tests[0]
        summary = summary_of(found, asked=asked, final=len(whole) == request.seeds)
        facts["tests"][test.name] = {**summary, "classes": {str(c): names[c] for c in classes}}
    first = next(iter(facts["tests"].values()), None)
    if first is not None:
        primary = [row for row in first["contrasts"] if (row["first"], row["second"]) == PRIMARY]
        facts["verdict"] = primary[0]["verdict"] if primary and primary[0]["verdict"] != "so far" else None
    facts["exit_code"] = _exit_code(facts, request)
    write_atomically(evaluation.folder / "results.json", canonical(facts))
    write_page(evaluation.folder / "report.html", facts)
    return facts


def _exit_code(facts: Mapping[str, Any], request: EvalRequest) -> int:
    if facts["stopped"] is not None:
        return STOP_CODES[facts["stopped"]]
    return 3 if request.require is not None and facts["verdict"] != request.require else 0


def _whole_seeds(evaluation: Evaluation) -> set[int]:
    """The seeds at which every arm is trained and tested."""
    undone = {training.seed for training in evaluation.left if training.arm != ZERO_SHOT}
    return set(range(evaluation.request.seeds)) - undone
