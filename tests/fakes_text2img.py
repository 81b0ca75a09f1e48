"""A recipe without a dataset, with a torch-free model that makes its pictures and a detector that labels them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from diffgen.checks.detections import Detection
from diffgen.checks.second_look import SecondLook
from diffgen.dataset.labels import LabelSchema
from diffgen.editing.editor import EditBatch
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from diffgen.run.worker import Worker
from diffgen.types import Job
from tests import fakes
from tests.fakes import FakeEditor, put

MODEL = {**fakes.MODEL, "native": 32}
CAR = Detection(2, 0.5, (0.1, 0.2, 0.5, 0.6))
SURE = Detection(2, 0.9, (0.5, 0.5, 0.9, 1.0))
PERSON = Detection(0, 0.2, (0.6, 0.1, 0.7, 0.4))
KNOWN = {0: 2, 1: 0}  # the dataset's car and person -> the detector's


@dataclass
class Painter(FakeEditor):
    """Paints noise by the job's seed; the last bits depend on the batch."""

    jobs: list[Job] = field(default_factory=list)
    sizes: set[tuple[int, ...]] = field(default_factory=set)

    def begin(self, batch: EditBatch) -> None:
        assert batch.masks is None
        self.jobs += batch.jobs
        self.sizes |= {image.shape for image in batch.images}
        if batch.watch is not None:
            batch.watch("pure noise", [np.zeros_like(image) for image in batch.images])

    def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
        return np.random.default_rng(job.seed).integers(0, 250, image.shape) + company % 5


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
    return Worker(painter, LabelSchema(("0", "1"), None), {"device": "fake"}, SecondLook(found, KNOWN))


def make(
    path: Path, painter: Painter | None = None, found: Any = detector, sets: Sequence[str] = (), **options: Any
) -> Any:
    painter = painter or Painter()
    return run(load_recipe(path, sets), make_worker=lambda: worker(painter, found), **options), painter


def manifest(folder: Path) -> list[dict[str, Any]]:
    return fakes.manifest(folder / "dataset")[1:]
