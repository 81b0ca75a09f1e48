"""Recipes with `controls`, networks of a few bytes, and an editor that remembers its maps. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffgen.dataset.dataset import Dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.geometry import View
from diffgen.editing.editor import EditBatch
from diffgen.models.model import Model
from diffgen.models.resolve import resolve_recipe_model
from diffgen.plan.plan import Plan, plan_jobs
from diffgen.recipe.schema import Recipe
from tests.fakes import FakeEditor, make_dataset, photo, put, save, source, write_recipe
from tests.fakes_hub import COMMIT

BASE = {"hub": "tests/fake", "revision": "0" * 40, "native": 64, "multiple": 8}


def network(folder: Path, *tensors: str, content: int = 0) -> Path:
    """A folder with config and a header of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    header = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in tensors or ("w",)})
    raw = len(header).to_bytes(8, "little") + header.encode() + bytes([content] * 4)
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(raw)
    return folder


def cached(hub: Path, hub_id: str, *tensors: str) -> Path:
    """The same in the cache of the hub."""
    folder = hub / f"models--{hub_id.replace('/', '--')}"
    put(folder / "refs" / "main", COMMIT)
    return network(folder / "snapshots" / COMMIT, *tensors)


def recipe(*controls: dict[str, Any], **fields: Any) -> Recipe:
    given = {"dataset": "d.yaml", "output": "out", "model": BASE, "editor": "img2img", "conditions": ["fog"]}
    return Recipe.model_validate({**given, "controls": list(controls), **fields})


EDGES = {"kind": "canny", "model": "net"}


def guided(wanted: Recipe, base: Path, cache: FileCache) -> Model:
    network(base / "net")
    return resolve_recipe_model(wanted, base, cache)


def planned(wanted: Recipe, model: Model, *sources: Any) -> Plan:
    every = (*(sources or (source(0), source(1))), source(99, split="val"))
    return plan_jobs(wanted, Dataset(Path("/d.yaml"), ("car",), {}, every), model)


class GuidedEditor(FakeEditor):
    """Remembers the maps it got, with the job and the place of each."""

    def __init__(self) -> None:
        super().__init__()
        self.controls: list[tuple[str, Sequence[np.ndarray]]] = []
        self.views: list[View] = []

    def begin(self, batch: EditBatch) -> None:
        self.views += batch.views or ()
        for job, image, maps in zip(batch.jobs, batch.images, batch.controls or [()] * len(batch.jobs), strict=True):
            assert all(m.shape == image.shape for m in maps)
            self.controls.append((job.id, maps))

    def of(self, job_id: str) -> Sequence[np.ndarray]:
        (found,) = [maps for key, maps in self.controls if key == job_id]
        return found


def guided_recipe(tmp_path: Path, *controls: dict[str, Any], **fields: Any) -> Path:
    network(tmp_path / "net")
    data = tmp_path / "data/data.yaml"
    if not data.is_file():
        make_dataset(tmp_path / "data")
    given = {"editor": "img2img", "conditions": ["fog"], "controls": list(controls), **fields}
    return write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", **given)


def maps_for(tmp_path: Path, folder: str = "maps", size: tuple[int, int] = (64, 48), names: Any = range(4)) -> None:
    for i in names:
        save(tmp_path / folder / "train" / f"{i:02}.png", photo(50 + i, size))


OWN = {"kind": "depth", "model": "net", "folder": "maps"}


def ids(wanted: Recipe, model: Model, *sources: Any) -> list[str]:
    return [item.job.id for item in planned(wanted, model, *sources).items]
