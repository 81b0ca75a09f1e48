"""A recipe without a dataset, with a torch-free model that makes its pictures and a detector that labels them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from diffgen.checks.detections import Detection
from diffgen.editing.editor import Edited
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from diffgen.run.worker import Worker
from diffgen.types import Job
from tests import fakes
from tests.fakes import put

MODEL = {**fakes.MODEL, "native": 32}
CAR = Detection(2, 0.5, (0.1, 0.2, 0.5, 0.6))
SURE = Detection(2, 0.9, (0.5, 0.5, 0.9, 1.0))
PERSON = Detection(0, 0.2, (0.6, 0.1, 0.7, 0.4))
KNOWN = {0: 2, 1: 0}  # the dataset's car and person -> the detector's


class Painter:
    """Paints noise by the job's seed; the last bits depend on the batch."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.sizes: set[tuple[int, ...]] = set()

    def edit(
        self, images: Sequence[np.ndarray], jobs: Sequence[Job], masks: Any = None, views: Any = None, watch: Any = None
    ) -> list[Edited]:
        assert masks is None
        self.jobs += jobs
        self.sizes |= {image.shape for image in images}
        last = len(jobs)
        made = [
            np.random.default_rng(job.seed).integers(0, 250, image.shape) + last
            for image, job in zip(images, jobs, strict=True)
        ]
        if watch is not None:
            watch("pure noise", [image.astype(np.uint8) for image in made])
        return [Edited(image.astype(np.uint8), 1.0) for image in made]


def detector(images: Sequence[np.ndarray]) -> list[list[Detection]]:
    """Finds a car in all pictures, surely in some, and a dubious person."""
    return [[SURE, CAR, PERSON] if int(image.sum()) % 2 else [SURE, Detection(7, 0.9, SURE.box)] for image in images]


def write(folder: Path, **fields: Any) -> Path:
    put(folder / "detector.pt", "weights")
    recipe = {
        "text2img": {"classes": ["car", "person"], "images": 3, **fields.pop("text2img", {})},
        "output": str(folder / "out"),
        "model": MODEL,
        "detector": "detector.pt",
        "conditions": ["night", {"name": "plain", "prompt": "clear day"}],
        "batch_size": 4,
        "image": {"format": "png"},
        **fields,
    }
    return put(folder / "recipe.yaml", yaml.safe_dump(recipe, sort_keys=False))


def worker(painter: Painter, found: Any = detector) -> Worker:
    return Worker(painter, 2, None, {"device": "fake"}, found, known=KNOWN)


def make(
    path: Path, painter: Painter | None = None, found: Any = detector, sets: Sequence[str] = (), **options: Any
) -> Any:
    painter = painter or Painter()
    return run(load_recipe(path, sets), make_worker=lambda: worker(painter, found), **options), painter


def manifest(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "dataset/manifest.jsonl").read_text().splitlines()[1:]]
