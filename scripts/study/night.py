"""Does a night made of a day help a detector at night? The study of docs/study.md.

    python -m scripts.study.night --day driving/day/data.yaml --night driving/night/data.yaml --weights yolo26n.pt \\
        --out runs/study --minutes 60

Everything is decided here, before anything is seen: day is edited by the preset `night`, five arms are trained over eight
seeds, and the primary contrast is checked against real. The real nights are split once, by hash: half for tuning, half for
testing. All of this runs on the tuning half, of which one half trains the oracle and the other is tested on. It goes on
where it was stopped. The protocol is checked by itself, too: the real arm with other seeds must come out as not shown, the
oracle as shown.

`--open-test` tests on the other half, and writes down that it was opened. The oracle is then trained on the whole tuning
half; `checked` is what tuned.yaml makes, which `diffgen tune` found for the nights of the tuning half; `preset` is the
preset of before, `rules` darkens, and `matched` gives the day frames the light of those nights. Trainings that the tuning
half had, too, are not repeated.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from diffgen.commands.eval.arms import (
    CHECKED,
    ORACLE,
    REAL,
    RULES,
    Slot,
    digest,
    place_of,
    real_pictures,
    slot_of,
    write_arm,
)
from diffgen.commands.eval.evaluate import evaluate, locked, train
from diffgen.commands.eval.page import results_text
from diffgen.commands.eval.prepare import Evaluation, prepare
from diffgen.commands.eval.request import EvalRequest, read_options
from diffgen.commands.eval.results import SECONDARY, Tested, contrasts, summary_of, tested
from diffgen.commands.eval.significance import bca, sign_flip, verdict
from diffgen.commands.eval.trainings import ZERO_SHOT, Training, file_digest, training_key
from diffgen.dataset.images import decode
from diffgen.recipe.load import load_recipe
from diffgen.run.interrupts import STOP_CODES
from diffgen.run.loop import run
from diffgen.run.progress import choose
from diffgen.run.session import open_run
from diffgen.types import unit
from scripts.docs.tables import measured, write_table

CONDITION = "night"
SEEDS = 8
# About 130 steps. The backbone is frozen, because seeds then differ less: AP50 of .268 ± .018 over four, where without it
# two lists that differ in one picture and in order were .10 apart.
OPTIONS = "epochs=3 imgsz=416 batch=16 optimizer=AdamW lr0=0.001 warmup_epochs=1 workers=2 freeze=10"
CLASSES = ("car",)
PRESET = {"conditions": [CONDITION]}
MORE = ((CHECKED, "matched"), (CHECKED, "preset"), ("matched", REAL), ("preset", REAL))  # contrasts of the opened test


def half(picture: Path) -> str:
    """ "tuning" or "testing", by the picture's name."""
    return "tuning" if unit("study", picture.stem) < 0.5 else "testing"


def nights(data: Path) -> dict[str, list[Path]]:
    """The real nights of each half, in the order of their hash."""
    fields = yaml.safe_load(data.read_text("utf-8"))
    pictures = sorted(path for path in (data.parent / fields["val"]).iterdir() if path.suffix == ".jpg")
    ranked = sorted(pictures, key=lambda path: unit("order", path.stem))
    return {name: [path for path in ranked if half(path) == name] for name in ("tuning", "testing")}


def write_sets(data: Path, out: Path, opened: bool) -> tuple[Path, Path]:
    """(data.yaml for the oracle, data.yaml to test on)."""
    halves, names = nights(data), yaml.safe_load(data.read_text("utf-8"))["names"]
    tuning = halves["tuning"]
    trained, test = (tuning, halves["testing"]) if opened else (tuning[::2], tuning[1::2])
    folder = out / ("opened" if opened else "tuning")
    folder.mkdir(parents=True, exist_ok=True)
    for name, pictures in (("oracle", trained), ("test", test)):
        (folder / f"{name}.txt").write_text("".join(f"{path.resolve()}\n" for path in pictures), encoding="utf-8")
        split = {"train" if name == "oracle" else "val": f"{name}.txt"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**split, "names": names}), encoding="utf-8")
    return folder / "oracle.yaml", folder / "test.yaml"


def made(day: Path, out: Path, name: str = "night", lines: Mapping[str, Any] = PRESET) -> Path:
    """The run folder `name` of day made into night, by these lines of a recipe."""
    recipe = out / f"{name}.yaml"
    fields = {"dataset": str(day.resolve()), "output": name, **lines, "seed": 28}
    recipe.write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")
    summary = run(load_recipe(recipe), progress=choose(False), notify=lambda line: print(line, file=sys.stderr))
    if summary.stopped:
        sys.exit(summary.exit_code)
    return recipe.with_suffix("")


def linked(folder: Path, pictures: Sequence[Path]) -> Path:
    """The folder, with links to the pictures: without their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        link = folder / picture.name
        if not link.is_symlink():
            link.symlink_to(picture.resolve())
    return folder


def made_tuned(day: Path, target: Path, weights: Path, out: Path) -> Path:
    """The run folder of day made into night by tuned.yaml, with the detector that it was tuned with."""
    fields = yaml.safe_load(Path(__file__).with_name("tuned.yaml").read_text("utf-8"))
    for condition in fields["conditions"]:
        for settings in condition.values():
            if "match" in settings:
                settings["match"]["folder"] = str(target.resolve())
    fields["detector"] = str(weights.resolve())
    return made(day, out, "tuned", fields)


def slots_of(folder: Path, real: Sequence[Slot], shared: int) -> tuple[list[Slot], int]:
    """The study's real list with another run's accepted images in its slots behind the first `shared`; and how many."""
    outcome = open_run(folder)
    ours = {entry.item.source.digest: entry for entry in outcome.exported}
    fills = [slot_of(ours[slot.digest], outcome) if slot.digest in ours else slot for slot in real[shared:]]
    return [*real[:shared], *fills], sum(slot.digest in ours for slot in real[shared:])


def with_arms(evaluation: Evaluation, arms: Mapping[str, Sequence[Slot]]) -> Evaluation:
    """The evaluation with these arms, over all its seeds, instead of its own."""
    bench, weights = evaluation.bench, file_digest(evaluation.request.weights)
    trainings = [training for training in evaluation.trainings if training.arm == ZERO_SHOT]
    for seed in range(evaluation.request.seeds):  # a run that is stopped has whole seeds
        for arm, slots in arms.items():
            key = training_key(weights, digest(slots), seed, bench.size, bench.options)
            data = (str(place_of(evaluation.folder / "arms", arm, slots)),)
            trainings.append(Training(arm, seed, key, data))
    return replace(evaluation, arms=arms, trainings=tuple(trainings))


def opened(evaluation: Evaluation, tuned: Path, target: Path) -> tuple[Evaluation, Evaluation, int]:
    """The arms of the opened test without `matched`, which is trained last, and with it; and how many tuned images there
    are."""
    real = evaluation.arms[REAL]
    checked, count = slots_of(tuned, real, len(real_pictures(evaluation.outcome.plan.sources)))
    matching = prepare(replace(evaluation.request, targets=target, arms=(REAL, RULES, CHECKED)))
    matched = matching.arms[RULES]
    light = [decode(path.read_bytes(), least=480) for path in matching.targets]
    write_arm(
        place_of(evaluation.folder / "arms", "matched", matched), matched, evaluation.outcome.dataset.names, light
    )
    arms = {
        REAL: real,
        RULES: evaluation.arms[RULES],
        "preset": evaluation.arms[CHECKED],
        CHECKED: checked,
        ORACLE: evaluation.arms[ORACLE],
    }
    return with_arms(evaluation, arms), with_arms(evaluation, {**arms, "matched": matched}), count


def against_itself(evaluation: Evaluation) -> tuple[list[Training], list[Training]]:
    """The trainings of the real arm, and those of the same arm with the next eight seeds."""
    real = [training for training in evaluation.trainings if training.arm == REAL]
    weights, bench = file_digest(evaluation.request.weights), evaluation.bench
    lists = digest(evaluation.arms[REAL])
    keys = (training_key(weights, lists, SEEDS + t.seed, bench.size, bench.options) for t in real)
    return real, [replace(t, arm="real again", seed=SEEDS + t.seed, key=key) for t, key in zip(real, keys, strict=True)]


def null_contrast(found: Tested) -> dict[str, Any]:
    """The real arm less the real arm with other seeds."""
    pairs = list(zip(found.precision("real again"), found.precision(REAL), strict=True))
    differences = [a - b for a, b in pairs]
    interval = bca(lambda seeds, row: found.difference("real again", REAL, seeds, row), len(pairs), found.resamples)
    p = sign_flip(differences)
    return {"difference": float(np.mean(differences)), "interval": interval, "p": p, "verdict": verdict(p, interval)}


def zero_shot(evaluation: Evaluation, size: int) -> float:
    """AP50 of the given weights on the real nights at another size, px: what is lost by size alone, and not by training."""
    weights = file_digest(evaluation.request.weights)
    bench = replace(evaluation.bench, size=size)
    given = Training(ZERO_SHOT, 0, training_key(weights, ZERO_SHOT, 0, size, {}))
    bench.work(given, "cpu")
    schema = evaluation.outcome.dataset.schema
    ids = [i for i, name in enumerate(schema.names) if name in CLASSES]
    return tested(bench, [given], evaluation.tests[0], schema, ids).precision(ZERO_SHOT)[0]


def tables(facts: dict[str, Any], null: dict[str, Any] | None, at_640: float) -> str:
    """Markdown: the arms and the contrasts on the real nights, with what they are."""
    test = facts["tests"].get("night")
    if test is None:
        return "No seed is done in all arms yet."
    lines = [
        "| arm | seeds | AP50 | ± over seeds | AP50-95 | small | medium | large |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, row in test["arms"].items():
        cells = [row["ap50"], row["ap50_sd"], row["ap"], *(row["sizes"][size] for size in ("small", "medium", "large"))]
        shown = " | ".join("–" if cell is None else f"{cell:.3f}" for cell in cells)
        lines.append(f"| {arm} | {row['seeds']} | {shown} |")
    lines += ["", "| AP50 | difference | 95 % interval | p | |", "|---|---|---|---|---|"]
    keys = ("difference", "interval", "p_corrected", "verdict")
    rows = [(f"{row['first']} − {row['second']}", *(row[key] for key in keys)) for row in test["contrasts"]]
    if null is not None:
        about = "real, seeds 8 to 15 − seeds 0 to 7"
        rows.append((about, null["difference"], null["interval"], null["p"], null["verdict"]))
    for name, difference, (low, high), p, word in rows:
        lines.append(f"| {name} | {difference:+.3f} | {low:+.3f} to {high:+.3f} | {p:.3f} | {word} |")
    seeds = f"{facts['seeds_done']} of {facts['seeds']} seeds"
    what = f"{test['pictures']} nights, {test['objects']} cars; {seeds}, {facts['steps']} steps"
    given, real = (test["arms"].get(arm, {}).get("ap50") for arm in (ZERO_SHOT, REAL))
    size = f"The given weights have {at_640:.3f} at 640 px"
    if given is not None and real is not None:
        size += f" and {given:.3f} at 416 px: that is size. Trained on day alone they have {real:.3f}: "
        size += "that is what is learned." if real > given else "that is what is forgotten."
    size += "" if size.endswith(".") else "."
    return "\n".join([*lines, "", size, "", measured(what)])


def summary(facts: dict[str, Any]) -> str:
    """Markdown for the README: each arm on the real nights, and what it shows against real."""
    test = facts["tests"].get("night")
    if test is None:
        return "No seed is done in all arms yet."
    lines = ["| trained on | AP50 of cars, real nights | less real twice | |", "|---|---|---|---|"]
    opened = "preset" in test["arms"]
    words = {
        "real": "day, twice",
        "rules": "day, and day darkened by `rules`",
        "matched": "day, and day with the tones of real nights (`matched`)",
        "preset": "day, and nights by diffgen's preset",
        "checked": f"day, and nights by diffgen{', tuned for these nights' if opened else ''}",
        "oracle": "day, and real nights (`oracle`)",
    }
    against = {row["first"]: row for row in test["contrasts"] if row["second"] == REAL}
    for arm, about in ((arm, about) for arm, about in words.items() if arm in test["arms"]):
        cells = ["", ""]
        if row := against.get(arm):
            low, high = row["interval"]
            cells = [f"{row['difference']:+.3f} ({low:+.3f} to {high:+.3f})", row["verdict"]]
        lines.append(f"| {about} | {test['arms'][arm]['ap50']:.3f} | {cells[0]} | {cells[1]} |")
    what = f"{test['pictures']} nights, {test['objects']} cars; {facts['seeds_done']} of {facts['seeds']} paired seeds"
    return "\n".join([*lines, "", measured(what)])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--day", type=Path, required=True)
    parser.add_argument("--night", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--write", action="store_true", help="the tables into docs/study.md and README.md")
    parser.add_argument("--open-test", action="store_true", help="test on the half that nothing was tuned on")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    oracle, test = write_sets(args.night, args.out, args.open_test)
    request = EvalRequest(
        run=made(args.day, args.out),
        weights=args.weights,
        tests={"night": test},
        oracle=oracle,
        seeds=SEEDS,
        options=read_options(OPTIONS),
        classes=CLASSES,
        folder=args.out / "eval",
    )
    evaluation = prepare(request)

    def talk(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if args.open_test:
        with (args.out / "opened/dates.txt").open("a", encoding="utf-8") as file:
            file.write(f"{datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='minutes')}\n")
        target = linked(args.out / "target", nights(args.night)["tuning"][::2])  # those that tune saw
        evaluation, everything, count = opened(evaluation, made_tuned(args.day, target, args.weights, args.out), target)
        talk(f"checked: {count} images by tuned.yaml")
    else:
        everything = evaluation
    real, again = against_itself(evaluation)
    facts = evaluate(evaluation, max_minutes=args.minutes, notify=talk)
    whole = replace(evaluation, trainings=(*real, *again))
    for more in (everything, whole):
        if facts["stopped"] is None and more.left:
            with locked(evaluation.folder):
                facts["stopped"] = train(more, max_minutes=args.minutes, notify=talk)
            facts["exit_code"] = 0 if facts["stopped"] is None else STOP_CODES[facts["stopped"]]
    schema = evaluation.outcome.dataset.schema
    ids = [i for i, name in enumerate(schema.names) if name in CLASSES]
    null = None
    if not whole.left:
        null = null_contrast(tested(evaluation.bench, [*real, *again], evaluation.tests[0], schema, ids))
    if args.open_test and not evaluation.left:
        done = evaluation if everything.left else everything
        found = tested(done.bench, done.trainings, done.tests[0], schema, ids)
        facts["tests"]["night"] |= summary_of(found, asked=True, final=True)
        facts["tests"]["night"] |= contrasts(found, asked=True, final=True, secondary=(*SECONDARY, *MORE))
    text = tables(facts, null, zero_shot(evaluation, 640))
    print(f"{results_text(facts)}\n{text}")
    if args.write:
        name = "testing half" if args.open_test else "tuning half"
        write_table(Path("docs/study.md"), name, text, "scripts.study.night")
        write_table(Path("README.md"), "summary", summary(facts), "scripts.study.night")
    return int(facts["exit_code"])


if __name__ == "__main__":
    sys.exit(main())
