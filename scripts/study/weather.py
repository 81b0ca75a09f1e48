"""Fog, snow and rain made of day, one training each: a look without a verdict, beside the nights of docs/study.md.

    python -m scripts.study.weather --driving driving --weights yolo26n.pt --out runs/study --write

The real pictures, their places in the lists and the options of training are the study's, in whose folder this works.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from diffgen.commands.eval.arms import CHECKED, REAL, RULES, Slot, real_pictures
from diffgen.commands.eval.evaluate import evaluate
from diffgen.commands.eval.prepare import prepare
from diffgen.commands.eval.request import EvalRequest, read_options
from diffgen.commands.eval.results import tested
from diffgen.commands.eval.rules import RULES_VERSION, has_rule
from diffgen.commands.eval.trainings import ZERO_SHOT
from diffgen.types import digest_of
from scripts.docs.tables import measured, write_table
from scripts.study.night import CLASSES, OPTIONS, made, slots_of, with_arms

CONDITIONS = ("fog", "snow", "rain")
LONG_SIDE = 512  # px that are edited: detectors see 416


def ruled(slots: Sequence[Slot], condition: str) -> list[Slot]:
    """The pictures under the rule of a condition."""
    return [
        replace(slot, rule=condition, digest=digest_of(slot.digest, condition, "", str(RULES_VERSION)))
        for slot in slots
    ]


def row(condition: str, args: argparse.Namespace) -> str:
    """The condition's line of the table; trains what is not trained."""
    request = EvalRequest(
        run=made(args.driving / "day/data.yaml", args.out),
        weights=args.weights,
        tests={condition: args.driving / condition / "data.yaml"},
        arms=(REAL, CHECKED),
        seeds=1,
        options=read_options(OPTIONS),
        classes=CLASSES,
        folder=args.out / "eval",
    )
    evaluation = prepare(request)
    real = list(evaluation.arms[REAL])
    shared = len(real_pictures(evaluation.outcome.plan.sources))
    lines = {"conditions": [condition], "resolution": {"long_side": LONG_SIDE}}
    slots, pictures = slots_of(made(args.driving / "day/data.yaml", args.out, condition, lines), real, shared)
    arms = {REAL: real, CHECKED: slots}
    if has_rule(condition):
        arms[RULES] = real[:shared] + ruled(real[shared:], condition)
    evaluation = with_arms(evaluation, arms)
    facts = evaluate(evaluation, notify=lambda line: print(line, file=sys.stderr, flush=True))
    if facts["stopped"]:
        sys.exit(facts["exit_code"])
    schema = evaluation.outcome.dataset.schema
    ids = [i for i, name in enumerate(schema.names) if name in CLASSES]
    found = tested(evaluation.bench, evaluation.trainings, evaluation.tests[0], schema, ids)
    test = facts["tests"][condition]
    cells = [
        f"{found.precision(arm)[0]:.3f}" if arm in found.arms else "–" for arm in (ZERO_SHOT, REAL, RULES, CHECKED)
    ]
    size = f"{test['pictures']}, {test['objects']}"
    return f"| {condition} | {size} | {pictures} of {len(real) - shared} | {' | '.join(cells)} |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driving", type=Path, required=True, help="a folder with day, fog, snow, rain")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--write", action="store_true", help="the table into docs/study.md")
    args = parser.parse_args(argv)
    lines = [
        "| tested on | pictures, cars | synthetic images | zero-shot | real | rules | checked |",
        "|---|---|---|---|---|---|---|",
        *(row(condition, args) for condition in CONDITIONS),
    ]
    text = "\n".join([*lines, "", measured("AP50 of cars; one seed")])
    print(text)
    if args.write:
        write_table(Path("docs/study.md"), "weather", text, "scripts.study.weather")
    return 0


if __name__ == "__main__":
    sys.exit(main())
