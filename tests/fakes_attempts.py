"""Runs whose images are rejected at first. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffgen.types import Job
from tests.fakes import FakeEditor, make, make_dataset, write_recipe


@dataclass
class Melting(FakeEditor):
    """Over a strength that differs by source it gives nothing but grain."""

    def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
        if job.settings.strength > 0.25 + int(job.source[:4], 16) / 0xFFFF * 0.6:
            return np.random.default_rng(job.seed).integers(0, 255, image.shape)
        return super().pixels(image, job, mask, company)


def run_it(root: Path, name: str, attempts: int, editor: Any = None, **options: Any) -> tuple[Any, Any, Path]:
    data = root / "data/data.yaml"
    if not data.exists():
        make_dataset(root / "data", counts=(12, 2))
    conditions = [{"night": {"strength": 0.7}}, {"fog": {"strength": 0.6}}]
    recipe = write_recipe(
        root / f"{name}.yaml", data, root / name, batch_size=3, attempts=attempts, conditions=conditions
    )
    summary, editor = make(recipe, editor or Melting(), **options)
    return summary, editor, recipe
