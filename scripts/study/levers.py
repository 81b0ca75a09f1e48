"""What each lever does for a detector at night: short arms, a few seeds each, on the tuning half of docs/study.md.

    python -m scripts.study.levers --day driving/day/data.yaml --night driving/night/data.yaml --weights yolo26n.pt \\
        --out runs/study --seeds 2 --write

A candidate is the study's recipe with some lines more. Its list has the same real pictures as the study's at the same
places, and its made ones in the other slots; where it accepted none of a source, the slot holds the real picture, as in the
arm `real`. So a candidate also pays for what it rejects. Trainings are the study's, of the same folder. There is no
verdict: two seeds can show nothing, they choose what eight seeds are spent on.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from diffgen.commands.eval.arms import CHECKED, REAL, RULES, Slot, place_of, real_pictures, write_arm
from diffgen.commands.eval.evaluate import locked, train
from diffgen.commands.eval.prepare import Evaluation, prepare
from diffgen.commands.eval.request import EvalRequest, read_options
from diffgen.commands.eval.results import Tested, tested
from diffgen.commands.eval.significance import bca
from diffgen.run.interrupts import STOP_CODES
from scripts.docs.tables import measured, write_table
from scripts.study.night import CLASSES, CONDITION, OPTIONS, made, slots_of, with_arms, write_sets

RANGE: dict[str, Any] = {"strength": [0.3, 0.9]}
SENSOR: dict[str, Any] = {"exposure": [-2, 0.3], "noise": [0.005, 0.04], "blur": [0, 0.003], "glare": [0.02, 0.12]}
DETAIL: dict[str, Any] = {"objects": {"strength": 0.25, "detail": 0.8}, "detail": 0.3}


@dataclass(frozen=True, slots=True)
class Candidate:
    """Lines of the condition and of the recipe that the study's recipe has not."""

    condition: dict[str, Any]
    recipe: dict[str, Any]

    @property
    def text(self) -> str:
        lines = {**self.condition, **self.recipe}
        return yaml.safe_dump(lines, default_flow_style=True, sort_keys=False, width=1000).strip()[1:-1]


CANDIDATES = {
    "detail": Candidate({}, DETAIL),
    "lights": Candidate({"lights": {"share": 0.9}}, {}),
    "range, sensor": Candidate({**RANGE, "sensor": SENSOR}, {}),
    "all": Candidate({**RANGE, "lights": {"share": 0.9}, "sensor": SENSOR}, DETAIL),
    "restored": Candidate({}, {"objects": {"restore": 0.7}}),
    "all, restored": Candidate(
        {**RANGE, "sensor": SENSOR}, {"objects": {"restore": 0.7, "detail": 0.8}, "detail": 0.3}
    ),
}


def run_of(name: str, candidate: Candidate, day: Path, out: Path) -> Path:
    """The candidate's run folder, made as far as it is not there."""
    (out / "levers").mkdir(parents=True, exist_ok=True)
    lines = {"conditions": [{CONDITION: candidate.condition}], **candidate.recipe}
    return made(day, out / "levers", name.replace(", ", "-"), lines)


def table(found: Tested, made_pictures: dict[str, int], slots: int) -> str:
    """Markdown: a row for each arm, less the real one at the same seeds."""
    real = found.precision(REAL)
    lines = [
        "| lines of the recipe | synthetic images | seeds | AP50 | less real | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    for arm in found.arms:
        values = found.precision(arm)
        name = f"`{CANDIDATES[arm].text}`" if arm in CANDIDATES else f"({arm})"
        row = f"| {name} | {made_pictures.get(arm, 0)} of {slots} | {len(values)} | {np.mean(values):.3f}"
        if arm != REAL:
            low, high = bca(partial(found.difference, arm, REAL), len(values), found.resamples)
            row += f" | {np.mean(values) - np.mean(real):+.3f} | {low:+.3f} to {high:+.3f} |"
        else:
            row += " | – | – |"
        lines.append(row)
    return "\n".join(lines)


def with_candidates(
    evaluation: Evaluation, names: list[str], day: Path, out: Path
) -> tuple[Evaluation, dict[str, int]]:
    """The evaluation with the candidates' arms besides; and how many synthetic images each arm has."""
    real = list(evaluation.arms[REAL])
    shared = len(real_pictures(evaluation.outcome.plan.sources))
    lists: dict[str, list[Slot]] = {}
    made_pictures = {arm: len(real) - shared for arm in (RULES, CHECKED)}
    for name in names:
        lists[name], made_pictures[name] = slots_of(run_of(name, CANDIDATES[name], day, out), real, shared)
    return with_arms(evaluation, {**evaluation.arms, **lists}), made_pictures


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--day", type=Path, required=True)
    parser.add_argument("--night", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default=";".join(CANDIDATES), help="candidates, separated by semicolons")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--write", action="store_true", help="the table into docs/study.md")
    args = parser.parse_args(argv)
    names = args.only.split(";")
    oracle, test = write_sets(args.night, args.out, opened=False)
    request = EvalRequest(
        run=made(args.day, args.out),
        weights=args.weights,
        tests={"night": test},
        arms=(REAL, RULES, CHECKED),
        oracle=oracle,
        seeds=args.seeds,
        options=read_options(OPTIONS),
        classes=CLASSES,
        folder=args.out / "eval",
    )
    evaluation, accepted = with_candidates(prepare(request), names, args.day, args.out)
    with locked(evaluation.folder):
        for arm, slots in evaluation.arms.items():
            write_arm(place_of(evaluation.folder / "arms", arm, slots), slots, evaluation.outcome.dataset.names)
        stopped = train(
            evaluation, max_minutes=args.minutes, notify=lambda line: print(line, file=sys.stderr, flush=True)
        )
    whole = set(range(args.seeds)) - {training.seed for training in evaluation.left if training.data}
    if whole:
        schema = evaluation.outcome.dataset.schema
        ids = [i for i, name in enumerate(schema.names) if name in CLASSES]
        done = [training for training in evaluation.trainings if training.seed in whole and training.data]
        found = tested(evaluation.bench, done, evaluation.tests[0], schema, ids)
        text = table(found, accepted, accepted[CHECKED])
        print(text)
        if args.write:
            write_table(
                Path("docs/study.md"), "levers", f"{text}\n\n{measured('car, tuning half')}", "scripts.study.levers"
            )
    return 0 if stopped is None else STOP_CODES[stopped]


if __name__ == "__main__":
    sys.exit(main())
