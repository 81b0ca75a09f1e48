"""A run, test sets and a trainer without torch, for evaluations that take seconds."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffgen.commands.eval.prepare import Evaluation, prepare
from diffgen.commands.eval.request import EvalRequest
from tests.fakes import make, make_dataset, photo, put, save, write_recipe

# What it finds gets better with each picture of the arm whose name stands in ARM by GAIN, and by the seed. It logs its calls.
TRAINER = """
import json, os, sys, time
import numpy as np
job = json.load(open(sys.argv[1]))
arm = job["data"].split("/")[-2].rsplit("-", 1)[0] if "data" in job else open(job["weights"]).read().split()[0]
if "data" in job:
    with open(os.environ["CALLS"], "a") as log:
        log.write(f"{arm} {job['seed']}\\n")
    time.sleep(float(os.environ.get("SLOWLY", "0")))
    if arm == os.environ.get("BROKEN"):
        sys.exit("CUDA error: out of cheese")
    open(job["last"], "w").write(f"{arm} {job['seed']}")
seed = job.get("seed", 0)
skill = 0.5 + (float(os.environ.get("GAIN", "0")) if arm == os.environ.get("ARM") else 0)
found = {}
for name, data in job["tests"].items():
    folder = os.path.join(os.path.dirname(data), "labels/val")
    rows = {}
    for i, file in enumerate(sorted(os.listdir(folder))):
        stem = file[:-4]
        rng = np.random.default_rng([seed, i])
        noise = np.random.default_rng([seed, i, len(arm)])
        rows[stem] = []
        for line in open(os.path.join(folder, file)):
            c, x, y, w, h = map(float, line.split()[:5])
            box = [(x - w / 2) * 160, (y - h / 2) * 120, (x + w / 2) * 160, (y + h / 2) * 120]
            if rng.random() < skill + 0.02 * noise.normal():
                rows[stem].append([int(c), 0.9 * rng.random(), *box])
            rows[stem].append([int(c), 0.5 * rng.random(), 1, 1, 9, 9])
    names = os.environ.get("NAMES", "car,person").split(",") if "data" not in job else ["car", "person"]
    found[name] = {"names": names, "detections": rows}
    if job["own"]:
        found[name]["ultralytics"] = {"ap50": 0.5, "ap": 0.25}
json.dump(found, open(job["results"], "w"))
"""


def a_run(folder: Path, **fields: Any) -> Path:
    """The folder of a run over six pictures of 160 × 120 px: nights, which are accepted, and fogs, which are not."""
    data = make_dataset(folder / "data", counts=(6, 3), size=(160, 120))
    conditions = ["night", {"fog": {"strength": 0.6, "skip_if": [], "checks": {"contrast": 1.0}}}]
    recipe = write_recipe(folder / "r.yaml", data, folder / "out", **{"conditions": conditions, **fields})
    make(recipe)
    return folder / "out"


def a_test(folder: Path, count: int = 12, first: int = 5000) -> Path:
    """The data.yaml of a set with `count` pictures in train and in val, all different."""
    for split, start in (("train", first), ("val", first + 500)):
        for i in range(count):
            save(folder / f"images/{split}/{i:03}.jpg", photo(start + i, (160, 120)))
            put(folder / f"labels/{split}/{i:03}.txt", f"{i % 2} 0.5 0.5 0.4 0.4\n0 0.2 0.2 0.2 0.2\n")
    return put(folder / "data.yaml", "train: images/train\nval: images/val\nnames: [car, person]\n")


def prepared(root: Path, **fields: Any) -> Evaluation:
    """An evaluation of `a_run` below `root` by TRAINER."""
    given = {"run": root / "out", "weights": put(root / "weights.pt", "given 0")}
    test = {} if "tests" in fields else {"tests": {"night": a_test(root / "night")}}
    evaluation = prepare(EvalRequest(**{**given, **test, **fields}))
    script = put(root / "trainer.py", TRAINER)
    return replace(evaluation, bench=replace(evaluation.bench, command=(sys.executable, str(script))))
