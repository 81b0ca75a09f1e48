"""`diffgen stress`: under which condition, and from which severity, does a detector lose objects?

The labels do not change, so each object that is lost is a failure (metamorphic testing: Zhang et al., DeepRoad, 2018; Segura
et al., 2016). None of this is for training: the run folder is not exported, and the sets that the detector
runs on have no train split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diffgen.commands.stress.look import FLOOR, Look
from diffgen.commands.stress.page import write_page
from diffgen.errors import UsageError
from diffgen.files import write_atomically
from diffgen.recipe.load import LoadedRecipe, load_recipe
from diffgen.run.loop import run
from diffgen.run.progress import Progress
from diffgen.run.session import open_run
from diffgen.run.worker_setup import MakeWorker
from diffgen.types import canonical

Notify = Callable[[str], None]

SEVERITIES = (0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True)
class StressRequest:
    """`data` is the data.yaml whose val split is edited; None: the recipe's dataset. `size` is what the detector sees, in
    pixels. `fail_under` is an AP50, 0 to 1."""

    recipe: LoadedRecipe
    weights: Path
    data: Path | None = None
    severities: tuple[float, ...] = SEVERITIES
    limit: int | None = None
    size: int = 640
    device: str = "cpu"
    folder: Path | None = None
    fail_under: float | None = None


def stress(
    request: StressRequest,
    *,
    make_worker: MakeWorker | None = None,
    command: tuple[str, ...] | None = None,
    progress: Progress | None = None,
    notify: Notify = lambda _: None,
) -> dict[str, Any]:
    """Make the pictures, run the detector on them, and return what it lost, JSON-ready, with the exit code.

    Writes results.json, report.html and a gallery. `command` replaces the detector's process (for tests). Raises UsageError
    for a recipe that does not suit, DiffgenError if something fails.
    """
    if not request.weights.is_file():
        raise UsageError(f"there is no file {request.weights}", "give the .pt file of a detection model")
    folder = request.folder or request.recipe.output.with_name(f"{request.recipe.output.name}-stress")
    loaded = _recipe(request, folder)
    summary = run(loaded, limit=request.limit, make_worker=make_worker, progress=progress, notify=notify, export=False)
    if summary.stopped is not None or summary.pending:
        return {"folder": str(folder), "stopped": summary.stopped or "pending", "exit_code": summary.exit_code}
    outcome = open_run(folder / "run")
    look = Look(folder, outcome, request.weights, request.size, request.device, command)
    facts = look.facts(request.fail_under)
    facts["left_out"] = dict(summary.rejected) | {f"failed ({kind})": n for kind, n in summary.failed.items()}
    facts["exit_code"] = 3 if facts["failed_under"] else 0
    write_atomically(folder / "results.json", canonical(facts))
    write_page(folder / "report.html", facts)
    return facts


def _recipe(request: StressRequest, folder: Path) -> LoadedRecipe:
    """The recipe of the stress test: each condition at each severity, and the round trip, over val; only label truth
    is checked."""
    recipe = request.recipe.recipe
    if recipe.text2img is not None or recipe.dataset is None:
        raise UsageError(
            "stress edits labelled pictures, but this recipe generates images from text", "use a recipe with dataset:"
        )
    if any(condition.task for condition in recipe.conditions):
        raise UsageError("stress does not support tasks", "remove the conditions with a task: from the recipe")
    raw = yaml.safe_load(request.recipe.to_yaml(folder))
    if request.data is not None:
        raw["dataset"] = str(request.data.resolve())
    conditions = [_at(fields, severity) for fields in raw["conditions"] for severity in request.severities]
    floor = _at(raw["conditions"][0], 0.0) | {"name": FLOOR, "skip_if": []}
    raw |= {
        "output": "run",
        "conditions": [*conditions, floor],
        "select": {"splits": ["val"]},
        "variants": 1,
        "attempts": 1,
        "assign": "all",
        "detector": None,
        "clip": None,
        "require": {"accepted": 0},
        # What is weak is a low severity, and what the detector loses is the question. Labels must be true all the same.
        "checks": {**raw["checks"], "change": None, "effect": None, "on_object_lost": "reject"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "stress.yaml"
    write_atomically(path, yaml.safe_dump(raw, sort_keys=False))
    return load_recipe(path)


def _at(fields: dict[str, Any], severity: float) -> dict[str, Any]:
    """A condition from the run folder's copy of a recipe, at another strength. Its name still ends in the original
    name, which its effect is judged by."""
    strengths = {"strength": severity, "instruction_strength": severity}
    return {**fields, **strengths, "name": f"{severity:g}-{fields['name']}", "share": 1.0, "checks": None}


def read_fail_under(text: str) -> float:
    """`map50=0.4` as a number. Raises UsageError."""
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if name.strip().lower() != "map50" or not 0 <= number <= 1:
        raise UsageError(
            f"--fail-under {text}: not of the form map50=N, N from 0 to 1", "for example --fail-under map50=0.4"
        )
    return number
