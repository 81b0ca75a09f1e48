"""What an evaluation consists of: its lists, test sets and trainings, from a request. Trains and writes nothing."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
    stages_of,
)
from diffgen.commands.eval.request import EvalRequest
from diffgen.commands.eval.results import PRIMARY, compared
from diffgen.commands.eval.significance import ALPHA, MOST_SEEDS, smallest_p
from diffgen.commands.eval.trainings import (
    DEFAULTS,
    FIXED,
    ZERO_SHOT,
    Bench,
    Training,
    file_digest,
    training_key,
)
from diffgen.dataset.dataset import Dataset, read_dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.images import SUFFIXES
from diffgen.dataset.leakage import near
from diffgen.errors import UsageError, did_you_mean
from diffgen.output.outcome import Outcome
from diffgen.output.schedule import PRETRAIN_FINETUNE
from diffgen.run.session import open_run
from diffgen.types import Source, digest_of

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
    stages: Mapping[str, Sequence[Slot]]  # of the arm PRETRAIN_FINETUNE, in order; none where it is not asked for
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
        raise UsageError(
            f"--model: there is no file {request.weights}",
            "give the path of a .pt file: `yolo train` downloads yolo26n.pt at its first use",
        )
    for key in request.options:
        if key in FIXED:
            raise UsageError(
                f"--train-args: {key} is set by the evaluation",
                "leave it out: it is the same for all arms, or has an option of its own",
            )
    if request.seeds > MOST_SEEDS:
        raise UsageError(
            f"--seeds {request.seeds}: at most {MOST_SEEDS}", "8 are enough to find an effect that matters"
        )
    if request.require not in (None, "shown"):
        raise UsageError(f"--require {request.require}: the only value is shown", "leave it out, or --require shown")
    wanted = _wanted(request)
    if request.require is not None and (smallest_p(request.seeds) >= ALPHA or not set(PRIMARY) <= set(wanted)):
        raise UsageError(
            "--require shown: these trainings can never show it", "use 6 seeds or more, and the arms real and checked"
        )
    outcome = open_run(request.run)
    if outcome.recipe.text2img is not None:
        raise UsageError(
            f"{request.run}: its images were generated from text and have no sources to compare with",
            "eval needs a run that edited a dataset",
        )
    names = outcome.dataset.names
    with FileCache() as cache:
        tests = [read_test(name, _dataset(path, cache), names) for name, path in request.tests.items()]
        if SOURCE_VAL not in request.tests and real_pictures(outcome.plan.sources, "val"):
            val = read_test(SOURCE_VAL, outcome.dataset, names, outcome.plan.sources)
            tests += [val] if all(test.digest != val.digest for test in tests) else []
        for test in tests:
            if not objects_of(test, classes_of(request, test, names)) and test.name in request.tests:
                raise UsageError(
                    f"--test {test.name}: no labelled object of {', '.join(request.classes or names)} in its val split",
                    "name labelled pictures with some of these classes",
                )
        tests = [test for test in tests if objects_of(test, classes_of(request, test, names))]
        oracle = None if request.oracle is None else _dataset(request.oracle, cache)
        targets = _targets(request.targets)
        light = digest_of(*(path.read_bytes() for path in targets)) if targets else ""
        arms = arms_of(outcome, wanted, oracle, request.most, light, request.ratios)
        stages = stages_of(outcome, request.most) if request.staged else {}
        trained = real_pictures(outcome.plan.sources)
        if oracle is not None and ORACLE in arms:
            trained += real_pictures(oracle.sources)
        warnings = []
        tests, own = _without_copies(tests, trained)
        if own:
            warnings.append(f"{SOURCE_VAL}: {own} of its pictures are also in train and are not tested on")
        if leaking := list(leaks(trained, tests)):
            more = f", and {len(leaking) - 1} more" if len(leaking) > 1 else ""
            raise UsageError(f"--test {leaking[0]}{more}", "test on pictures that were neither trained on nor edited")
        copied = {hashlib.sha256(path.read_bytes()).hexdigest()[:32] for path in targets}
        if any(source.image_digest in copied for test in tests for source in test.sources):
            raise UsageError(
                "--target: one of its pictures is also in a test set", "use target pictures that are in no --test"
            )
        warnings += _near(trained, tests, cache)
    folder = (request.folder or outcome.folder.with_name(f"{outcome.folder.name}-eval")).absolute()
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
    trainings = _trainings(request, bench, arms, stages)
    if smallest_p(request.seeds) >= ALPHA:
        least = smallest_p(request.seeds)
        warnings.append(f"{request.seeds} seeds can show nothing: the smallest possible p is {least:g}; use 6 or more")
    else:
        others = [pair for pair in compared({*arms, *stages}) if pair != PRIMARY]
        if (least := smallest_p(request.seeds) * len(others)) >= ALPHA:
            enough = next(seeds for seeds in itertools.count(request.seeds) if smallest_p(seeds) * len(others) < ALPHA)
            warnings.append(
                f"{request.seeds} seeds cannot show any of the {len(others)} other comparisons: corrected for their number "
                f"the smallest possible p is {least:.2g}; use {enough} seeds or more, or fewer arms"
            )
    return Evaluation(
        request, outcome, folder, bench, tuple(tests), arms, stages, tuple(targets), tuple(trainings), tuple(warnings)
    )


def _wanted(request: EvalRequest) -> list[str]:
    wanted = list(request.arms or [arm for arm in ARMS if arm != ORACLE or request.oracle is not None])
    if unknown := [arm for arm in wanted if arm not in ARMS]:
        meant = did_you_mean(unknown[0], list(ARMS))
        raise UsageError(f"--arms: there is no arm '{unknown[0]}'{meant}", f"the arms: {', '.join(ARMS)}")
    if ORACLE in wanted and request.oracle is None:
        raise UsageError(
            "--arms: the oracle arm needs pictures", "give --oracle a data.yaml with real pictures of the condition"
        )
    return wanted


def _trainings(
    request: EvalRequest, bench: Bench, arms: Mapping[str, Sequence[Slot]], stages: Mapping[str, Sequence[Slot]]
) -> list[Training]:
    """Seed by seed, so that an evaluation that is stopped has whole pairs."""
    weights = file_digest(request.weights)
    trainings = [Training(ZERO_SHOT, 0, training_key(weights, ZERO_SHOT, 0, bench.size, {}))]
    folder = bench.folder / "arms"
    lists: dict[str, tuple[str, tuple[str, ...]]] = {
        arm: (digest(slots), (str(place_of(folder, arm, slots)),)) for arm, slots in arms.items()
    }
    if stages:
        both = tuple(str(place_of(folder, f"stage {name}", slots)) for name, slots in stages.items())
        lists[PRETRAIN_FINETUNE] = (digest_of(*map(digest, stages.values())), both)
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
            lines.append(f"{test.name}: too many pictures to look for near-duplicates of the training pictures")
            continue
        both = [replace(source, split="train") for source in trained] + [replace(s, split="test") for s in test.sources]
        if pairs := near(both, cache):
            first, second = pairs[0]
            like = f"such as {second.path} ~ {first.path}"
            lines.append(f"{test.name}: {len(pairs)} pictures look like training pictures, {like}")
    return lines


def _targets(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise UsageError(f"--target: there is no picture in {folder}", f"pictures end in {', '.join(sorted(SUFFIXES))}")
    return paths[:MOST_TARGETS]


def classes_of(request: EvalRequest, test: TestSet, names: Sequence[str]) -> list[int]:
    """The ids to measure: those asked for, or all that the test set has and knows."""
    if request.classes is None:
        return sorted(test.known)
    ids = same_names(request.classes, names)
    if unknown := [name for i, name in enumerate(request.classes) if i not in ids]:
        meant = did_you_mean(unknown[0], list(names))
        raise UsageError(f"--classes: the run has no class '{unknown[0]}'{meant}", f"its classes: {', '.join(names)}")
    return sorted(set(ids.values()) & test.known)
