"""Runs of tasks: a street with magenta people, an editor that paints them, a detector that finds them. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffgen.checks.detections import Detection
from diffgen.checks.second_look import SecondLook
from diffgen.dataset.formats.yolo import label_path
from diffgen.dataset.images import decode
from diffgen.dataset.labels import LabelSchema, parse_labels
from diffgen.dataset.masks import filled, identity_canvas
from diffgen.editing.editor import EditBatch
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from diffgen.run.worker import Worker
from diffgen.types import Job
from tests import fakes
from tests.fakes import ROWS, FakeEditor, make_dataset, photo, put, save, write_recipe

MAGENTA = (255, 0, 255)  # what the detector below takes for a person, class 1
SIZE = (160, 96)
FEATHER = 4
REMOVE = {"name": "without", "task": "remove", "classes": ["person"], "prompt": "a photo of {objects} on a road"}
BACKGROUND = {"name": "elsewhere", "task": "background", "prompt": "a photo of {objects} in a desert"}
INSERT = {"name": "with", "task": "insert", "classes": ["person"], "prompt": "a photo of {objects}"}


@dataclass
class Painter(FakeEditor):
    """Inverts every picture, and paints magenta where something is to be inserted. A lazy one changes nothing."""

    lazy: bool = False
    most: int = 10**9  # batches, then it dies

    def begin(self, batch: EditBatch) -> None:
        if len(self.batches) > self.most:
            raise ArithmeticError("killed")

    def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
        assert mask is not None
        assert mask.shape == image.shape[:2]
        made = image.copy() if self.lazy else 255 - image
        if job.settings.task == "insert" and not self.lazy:
            made[mask > 0.99] = MAGENTA
        return made


def find_magenta(images: Sequence[np.ndarray]) -> list[list[Detection]]:
    """Detects people, by their colour."""
    found: list[list[Detection]] = []
    for image in images:
        rows, columns = np.nonzero(np.abs(image.astype(int) - MAGENTA).max(-1) < 40)
        height, width = image.shape[:2]
        box = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height) if len(rows) else None  # fmt: skip
        found.append([Detection(7, 0.9, tuple(map(float, box)))] if box else [])
    return found


def street(root: Path, kind: str = "detect", **keys: Any) -> Path:
    """Four train pictures, with a car each, and a magenta person in every other one; PNG."""
    data = make_dataset(root / "data", counts=(4, 1), kind=kind, size=SIZE, **keys)
    for i, path in enumerate(sorted((root / "data/images/train").iterdir())):
        path.unlink()
        pixels = photo(i, SIZE)
        if i % 2:
            person = parse_labels(ROWS[kind][1].encode(), 2, (2, 3) if kind == "pose" else None)
            pixels[filled(person, identity_canvas(*SIZE))] = MAGENTA
        save(path.with_suffix(".png"), pixels)
    return data


def work(
    root: Path, condition: dict[str, Any], editor: Any = None, name: str = "out", kind: str = "detect", **fields: Any
) -> tuple[Any, Painter, Path]:
    data = root / "data/data.yaml"
    if not data.exists():
        street(root, kind)
    given = {
        "editor": "inpaint", "conditions": [condition], "image": {"format": "png"}, "batch_size": 2,
        "objects": {"feather": FEATHER}, "resolution": {"long_side": 160}, **fields,
    }  # fmt: skip
    if condition["task"] == "insert":
        given.setdefault("detector", str(put(root / "detector.pt", "")))
    recipe = write_recipe(root / f"{name}.yaml", data, root / name, **given)
    editor = editor or Painter()
    return again(recipe, editor, kind), editor, recipe


def again(recipe: Path, editor: Any, kind: str = "detect") -> Any:
    keypoints = (2, 3) if kind == "pose" else None
    worker = Worker(editor, LabelSchema(("0", "1"), keypoints), {"device": "fake"}, SecondLook(find_magenta, {1: 7}))
    return run(load_recipe(recipe), make_worker=lambda: worker)


def made(root: Path, condition: dict[str, Any], name: str = "out") -> dict[str, tuple[np.ndarray, bytes]]:
    """Source name -> the picture made of it, and its label file."""
    paths = sorted((root / name / "dataset/images/train").glob(f"*__{condition['name']}-*.png"))
    return {p.name.split("__")[0]: (decode(p.read_bytes()), Path(label_path(str(p))).read_bytes()) for p in paths}


def manifest(root: Path, name: str = "out") -> list[dict[str, Any]]:
    return [row for row in fakes.manifest(root / name / "dataset") if "job" in row]


def original(root: Path, name: str) -> np.ndarray:
    return decode((root / f"data/images/train/{name}.png").read_bytes())


def inside(box: Sequence[float], grow: int) -> np.ndarray:
    """(H, W): the pixels of a box (x0, y0, x1, y1 in shares) grown by so many pixels, or shrunk."""
    width, height = SIZE
    ys, xs = np.mgrid[:height, :width]
    x0, y0, x1, y1 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    return (xs >= x0 - grow) & (xs < x1 + grow) & (ys >= y0 - grow) & (ys < y1 + grow)
