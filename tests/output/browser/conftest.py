"""A run folder with something of everything for it to show."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from diffgen.types import Job
from tests.fakes import ROWS, FakeEditor, make, make_dataset, photo, put, save, write_recipe

SIZE = (320, 240)
EVIL = "<script>boom(1)</script>\"'"


class Uneven(FakeEditor):
    """Fog comes out as grain, and is rejected."""

    def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
        if job.settings.condition == "fog":
            return np.random.default_rng(job.seed).integers(0, 255, image.shape)
        return super().pixels(image, job, mask, company)


@dataclass(frozen=True)
class Made:
    out: Path
    editor: FakeEditor

    @property
    def page(self) -> Path:
        return self.out / "report.html"

    def job(self, condition: str, name: str) -> str:
        rows = [json.loads(line) for line in (self.out / "dataset/manifest.jsonl").read_text().splitlines()[1:]]
        return next(str(r["job"]) for r in rows if r.get("condition") == condition and r["source"].endswith(name))


def make_run(root: Path) -> Made:
    """Five sources (boxes, polygons, an odd name, one that does not decode) under night (accepted) and fog (rejected)."""
    data = make_dataset(root / "data", counts=(2, 1), size=SIZE, names=["car", EVIL, "never"])
    train = root / "data/images/train"
    for i, (stem, kind) in enumerate((("poly", "segment"), (f"{EVIL.replace('/', '')} #?%", "detect"))):
        save(train / f"{stem}.png", photo(20 + i, SIZE))
        put(root / f"data/labels/train/{stem}.txt", "".join(f"{row}\n" for row in ROWS[kind]))
    broken = save(train / "torn.jpg", photo(30, SIZE))
    broken.write_bytes(broken.read_bytes()[:-2000])
    editor = Uneven()
    make(write_recipe(root / "r.yaml", data, root / "out"), editor)
    return Made(root / "out", editor)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Shared: tests that change a run folder make their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        return make_run(tmp_path_factory.mktemp("shown"))
