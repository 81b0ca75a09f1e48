"""`diffgen eval`: train a detector on each arm, seed by seed, test it on real pictures, and say what is shown."""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffgen.checks.detectors.names import same_names
from diffgen.commands.eval.arms import (
    ARMS,
    ORACLE,
    Slot,
    TestSet,
    arms_of,
    digest,
    leaks,
    objects_of,
    place_of,
    read_test,
    real_pictures,
    write_arm,
    write_test,
)
from diffgen.commands.eval.page import write_page
from diffgen.commands.eval.request import EvalRequest
from diffgen.commands.eval.results import PRIMARY, summary_of, tested
from diffgen.commands.eval.significance import ALPHA, MOST_SEEDS, smallest_p
from diffgen.commands.eval.trainings import (
    DEFAULTS,
    FIXED,
    ZERO_SHOT,
    Bench,
    Training,
    file_digest,
    run_all,
    training_key,
)
from diffgen.dataset.dataset import Dataset, read_dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.images import SUFFIXES, decode
from diffgen.dataset.leakage import near
from diffgen.errors import DiffgenError, UsageError, did_you_mean, why
from diffgen.files import write_atomically
from diffgen.output.outcome import Outcome
from diffgen.run.interrupts import STOP_CODES, interruptible
from diffgen.run.session import open_run
from diffgen.run.store.state import HELD
from diffgen.types import Source, canonical, digest_of

Notify = Callable[[str], None]

SOURCE_VAL = "val"  # the name under which the run's own val split is tested, to see that nothing is lost there
MOST_TARGETS = 200  # pictures whose light is copied
MOST_NEAR = 5000  # pictures up to which near-duplicates of test pictures are looked for


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation that is ready to be run: its arms are written, its trainings named."""

    request: EvalRequest
    outcome: Outcome
    folder: Path
    bench: Bench
    tests: tuple[TestSet, ...]
    arms: Mapping[str, Sequence[Slot]]
    targets: tuple[Path, ...]
    trainings: tuple[Training, ...]
    warnings: tuple[str, ...]

    @property
    def left(self) -> list[Training]:
        return [training for training in self.trainings if not self.bench.done(training)]


def prepare(request: EvalRequest) -> Evaluation:
    """Read run and test sets, write the arms, name the trainings. Trains nothing.

    Raises UsageError for what does not go together, and where a test picture is trained on.
    """
    if not request.weights.is_file():
        raise UsageError(f"--model: there is no file {request.weights}", "give the .pt file of a detection model")
    for key in request.options:
        if key in FIXED:
            raise UsageError(f"--train-args: {key} is set by the evaluation", "the same for all arms, or by an option")
    if request.seeds > MOST_SEEDS:
        raise UsageError(f"--seeds {request.seeds}: at most {MOST_SEEDS}", "eight find what is worth finding")
    if request.require not in (None, "shown"):
        raise UsageError(f"--require {request.require}: it can only be shown", "leave it out, or --require shown")
    wanted = _wanted(request)
    if request.require is not None and (smallest_p(request.seeds) >= ALPHA or not set(PRIMARY) <= set(wanted)):
        raise UsageError("--require shown: this can never be shown", "6 seeds or more, and the arms real and checked")
    outcome = open_run(request.run)
    if outcome.recipe.text2img is not None:
        raise UsageError(
            f"{request.run}: its pictures have no sources to compare with", "eval takes runs over a dataset"
        )
    names = outcome.dataset.names
    with FileCache() as cache:
        tests = [read_test(name, _dataset(path, cache), names) for name, path in request.tests.items()]
        if SOURCE_VAL not in request.tests and real_pictures(outcome.plan.sources, "val"):
            tests.append(read_test(SOURCE_VAL, outcome.dataset, names, outcome.plan.sources))
        for test in tests:
            if not objects_of(test, _classes(request, test, names)) and test.name in request.tests:
                raise UsageError(
                    f"--test {test.name}: no labelled object of {', '.join(request.classes or names)} in its val split",
                    "name labelled pictures with some of these classes",
                )
        tests = [test for test in tests if objects_of(test, _classes(request, test, names))]
        oracle = None if request.oracle is None else _dataset(request.oracle, cache)
        targets = _targets(request.targets)
        light = digest_of(*(path.read_bytes() for path in targets)) if targets else ""
        arms = arms_of(outcome, wanted, oracle, request.most, light, request.ratios)
        trained = real_pictures(outcome.plan.sources)
        if oracle is not None and ORACLE in arms:
            trained += real_pictures(oracle.sources)
        warnings = []
        tests, own = _without_copies(tests, trained)
        if own:
            warnings.append(f"{SOURCE_VAL}: {own} pictures of it stand in train, too, and are not tested on")
        if leaking := list(leaks(trained, tests)):
            more = f", and {len(leaking) - 1} more" if len(leaking) > 1 else ""
            raise UsageError(f"--test {leaking[0]}{more}", "test on pictures that nothing was made of and trained with")
        copied = {hashlib.sha256(path.read_bytes()).hexdigest()[:32] for path in targets}
        if any(source.image_digest in copied for test in tests for source in test.sources):
            raise UsageError("--target: a picture of it is tested on", "copy the light of pictures that no --test has")
        warnings += _near(trained, tests, cache)
    folder = request.folder or outcome.folder.with_name(f"{outcome.folder.name}-eval")
    options = {**DEFAULTS, **request.options}
    for key in ("epochs", "imgsz", "batch"):
        if not isinstance(options[key], int) or options[key] < 1:
            raise UsageError(
                f"--train-args: {key} must be a whole number, got {options[key]!r}", "for example epochs=20"
            )
    options["nbs"] = options["batch"]
    size = options.pop("imgsz")
    sets = {test.name: (test.digest, place_of(folder / "tests", test.name, test.slots)) for test in tests}
    bench = Bench(folder, request.weights.resolve(), size, options, sets)
    trainings = _trainings(request, bench, arms)
    if smallest_p(request.seeds) >= ALPHA:
        least = smallest_p(request.seeds)
        warnings.append(f"{request.seeds} seeds can show nothing: the smallest p is {least:g}; 6 or more can")
    return Evaluation(
        request, outcome, folder, bench, tuple(tests), arms, tuple(targets), tuple(trainings), tuple(warnings)
    )


def _wanted(request: EvalRequest) -> list[str]:
    wanted = list(request.arms or [arm for arm in ARMS if arm != ORACLE or request.oracle is not None])
    if unknown := [arm for arm in wanted if arm not in ARMS]:
        meant = did_you_mean(unknown[0], list(ARMS))
        raise UsageError(f"--arms: there is no arm '{unknown[0]}'{meant}", f"the arms: {', '.join(ARMS)}")
    if ORACLE in wanted and request.oracle is None:
        raise UsageError("--arms: the oracle arm needs pictures", "--oracle data.yaml, with real ones of the condition")
    return wanted


def _trainings(request: EvalRequest, bench: Bench, arms: Mapping[str, Sequence[Slot]]) -> list[Training]:
    """Seed by seed, so that an evaluation that is stopped has whole pairs."""
    weights = file_digest(request.weights)
    trainings = [Training(ZERO_SHOT, 0, training_key(weights, ZERO_SHOT, 0, bench.size, {}), None)]
    lists = {arm: (digest(slots), str(place_of(bench.folder / "arms", arm, slots))) for arm, slots in arms.items()}
    for seed in range(request.seeds):
        for arm, (content, data) in lists.items():
            key = training_key(weights, content, seed, bench.size, bench.options)
            trainings.append(Training(arm, seed, key, data))
    return trainings


def _dataset(path: Path, cache: FileCache) -> Dataset:
    return read_dataset(str(path.resolve()), Path.cwd(), cache)


def _without_copies(tests: Sequence[TestSet], trained: Sequence[Source]) -> tuple[list[TestSet], int]:
    """The tests, the run's own val without pictures that also stand in train, and how many those are."""
    digests = {source.image_digest for source in trained}
    kept, dropped = [], 0
    for test in tests:
        if test.name == SOURCE_VAL:
            pairs = [
                (s, slot) for s, slot in zip(test.sources, test.slots, strict=True) if s.image_digest not in digests
            ]
            dropped = len(test.sources) - len(pairs)
            if dropped:
                test = replace(test, sources=tuple(s for s, _ in pairs), slots=tuple(slot for _, slot in pairs))
            if not pairs:
                continue
        kept.append(test)
    return kept, dropped


def _near(trained: Sequence[Source], tests: Sequence[TestSet], cache: FileCache) -> list[str]:
    """A line for each test set with pictures that look like ones that are trained on."""
    lines = []
    for test in tests:
        if test.name == SOURCE_VAL:
            continue
        if len(trained) + len(test.sources) > MOST_NEAR:
            lines.append(f"{test.name}: pictures that look like trained ones are not looked for among so many")
            continue
        both = [replace(source, split="train") for source in trained] + [replace(s, split="test") for s in test.sources]
        if pairs := near(both, cache):
            first, second = pairs[0]
            like = f"such as {second.path} ~ {first.path}"
            lines.append(f"{test.name}: {len(pairs)} pictures look like ones that are trained on, {like}")
    return lines


def _own(folder: Path) -> None:
    """Make the folder, or see that it is an evaluation's. Raises UsageError for somebody else's."""
    mark = folder / "eval.json"
    if folder.is_dir() and any(folder.iterdir()) and not mark.is_file():
        raise UsageError(f"{folder} is not empty, and no evaluation wrote it", "choose another --output")
    folder.mkdir(parents=True, exist_ok=True)
    if not mark.is_file():
        write_atomically(mark, '{"format": 1}\n')


def _targets(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise UsageError(f"--target: there is no picture in {folder}", f"pictures end in {', '.join(sorted(SUFFIXES))}")
    return paths[:MOST_TARGETS]


def _write_pictures(evaluation: Evaluation) -> None:
    """The pictures that the trainings need, as far as they are not there."""
    names = evaluation.outcome.dataset.names
    targets = [decode(path.read_bytes(), least=480) for path in evaluation.targets]
    for arm, slots in evaluation.arms.items():
        write_arm(place_of(evaluation.folder / "arms", arm, slots), slots, names, targets)
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
    return {
        "folder": str(evaluation.folder),
        "arms": pictures,
        "steps": -(-next(iter(pictures.values())) // batch) * epochs,
        "seeds": evaluation.request.seeds,
        "tests": {test.name: len(test.slots) for test in evaluation.tests},
        "trainings": len(evaluation.trainings) - 1,
        "left": len(to_train),
        "minutes": minutes,
        "warnings": list(evaluation.warnings),
    }


def plan_text(facts: Mapping[str, Any]) -> str:
    time_left = "time known after the first" if facts["minutes"] is None else f"about {facts['minutes']:g} minutes"
    each = next(iter(facts["arms"].values()))
    return "\n".join(
        [
            f"eval      {facts['folder']}",
            f"arms      {', '.join(facts['arms'])}: {each} pictures each, {facts['steps']} steps",
            "tests     " + ", ".join(f"{name} {count}" for name, count in facts["tests"].items()) + " pictures",
            f"trainings {facts['trainings']} over {facts['seeds']} seeds, {facts['left']} left: {time_left}",
            *(f"warning   {line}" for line in facts["warnings"]),
        ]
    )


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

    with interruptible(notify, "what is being trained is begun again") as stop:

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
            raise DiffgenError(f"{folder}: another process works there", "wait for it, or choose another -o") from None
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
        classes = _classes(request, test, names)
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


def _classes(request: EvalRequest, test: TestSet, names: Sequence[str]) -> list[int]:
    """The ids to measure: those asked for, or all that the test set has and knows."""
    if request.classes is None:
        return sorted(test.known)
    ids = same_names(request.classes, names)
    if unknown := [name for i, name in enumerate(request.classes) if i not in ids]:
        meant = did_you_mean(unknown[0], list(names))
        raise UsageError(f"--classes: the run has no class '{unknown[0]}'{meant}", f"its classes: {', '.join(names)}")
    return sorted(set(ids.values()) & test.known)
