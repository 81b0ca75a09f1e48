"""A dataset, a recipe and an editor in a few lines each. No torch, no network, nothing from outside."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from diffgen.checks.second_look import SecondLook
from diffgen.dataset.labels import LabelSchema
from diffgen.editing.editor import EditBatch, Edited
from diffgen.errors import OutOfMemory
from diffgen.models.model import Model
from diffgen.recipe.load import load_recipe
from diffgen.recipe.presets import presets
from diffgen.run.loop import run
from diffgen.run.store import images as run_images
from diffgen.run.summary import Summary
from diffgen.run.worker import Worker
from diffgen.types import Job, Record, Settings, Source

MODEL = {"hub": "tests/fake", "revision": "0" * 40, "native": 64, "multiple": 8}
IDENTITY = f"tests/fake@{'0' * 40}"

# One row a kind: a box in the middle left and one in the lower right.
ROWS = {
    "detect": ("0 0.3 0.4 0.3 0.4", "1 0.75 0.7 0.3 0.4"),
    "segment": ("0 0.15 0.2 0.45 0.2 0.45 0.6 0.15 0.6", "1 0.6 0.5 0.9 0.5 0.75 0.9"),
    "obb": ("0 0.3 0.15 0.5 0.4 0.3 0.65 0.1 0.4", "1 0.6 0.5 0.9 0.5 0.9 0.9 0.6 0.9"),
    "pose": ("0 0.3 0.4 0.3 0.4 0.2 0.3 2 0.4 0.5 1", "1 0.75 0.7 0.3 0.4 0.7 0.6 2 0 0 0"),
}


def photo(seed: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """An (H, W, 3) picture of a sloping sky, some texture and three hard-edged things, different for each seed."""
    width, height = size
    rng = np.random.default_rng(seed)
    slope = np.linspace(90, 200, height)[:, None] + np.linspace(0, 30, width)[None, :]
    pixels = np.stack([slope, slope * 0.9, slope * 0.8], axis=-1) + rng.normal(0, 4, (height, width, 1))
    for x, y, w, h in ((0.15, 0.2, 0.3, 0.4), (0.6, 0.5, 0.3, 0.4), (*rng.uniform(0.1, 0.6, 2), 0.2, 0.15)):
        x0, y0, x1, y1 = int(x * width), int(y * height), int((x + w) * width), int((y + h) * height)
        pixels[y0:y1, x0:x1] = rng.integers(0, 255, 3)
        pixels[(y0 + y1) // 2 : y1, x0:x1] = rng.integers(0, 255, 3)
    return pixels.clip(0, 255).astype(np.uint8)


def step(at: int, size: tuple[int, int] = (48, 64), low: int = 60, high: int = 200) -> np.ndarray:
    """Dark to the left of column `at`, bright from it on."""
    image = np.full((*size, 3), low, np.uint8)
    image[:, at:] = high
    return image


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"quality": 95} | options if path.suffix == ".jpg" else options))
    return path


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def make_dataset(
    root: Path,
    *,
    counts: tuple[int, int] = (4, 2),
    kind: str = "detect",
    size: tuple[int, int] = (64, 48),
    **keys: Any,
) -> Path:
    """A YOLO dataset of `counts` train and val pictures below `root`; returns its data.yaml.

    `keys` go into the yaml; None takes one out.
    """
    splits = {split: count for split, count in zip(("train", "val"), counts, strict=True) if count}
    for split, count in splits.items():
        first = 0 if split == "train" else 1000
        for i in range(count):
            save(root / "images" / split / f"{i:02}.jpg", photo(first + i, size))
            put(root / "labels" / split / f"{i:02}.txt", "".join(f"{row}\n" for row in ROWS[kind][: 1 + i % 2]))
    data: dict[str, Any] = {"names": ["car", "person"], **{split: f"images/{split}" for split in splits}}
    if kind == "pose":
        data |= {"kpt_shape": [2, 3], "flip_idx": [1, 0]}
    data |= keys
    return put(root / "data.yaml", yaml.safe_dump({k: v for k, v in data.items() if v is not None}, sort_keys=False))


def recipe_fields(dataset: Path, output: Path, **fields: Any) -> dict[str, Any]:
    # With their own strengths: by default an instruction is carried out wholly. For all pictures, as those of the tests are
    # dark.
    conditions = [
        {name: {"strength": presets()[name]["strength"], "skip_if": []}}
        if isinstance(name, str) and name in presets()
        else name
        for name in fields.pop("conditions", ["night", "fog"])
    ]
    return {
        "dataset": str(dataset),
        "output": str(output),
        "model": MODEL,
        "editor": "instruct",
        "conditions": conditions,
        "batch_size": 3,
        "resolution": {"long_side": 64},
        **fields,
        # The fake editor only darkens, also where it is asked for snow.
        "checks": {"effect": None, **(fields.get("checks") or {})},
    }


def write_recipe(path: Path, dataset: Path, output: Path, **fields: Any) -> Path:
    return put(path, yaml.safe_dump(recipe_fields(dataset, output, **fields), sort_keys=False))


def settings(**fields: Any) -> Settings:
    given = {
        "editor": "instruct", "model": IDENTITY, "condition": "night", "strength": 0.7, "steps": 20, "guidance": 7.0,
        "long_side": 64, "multiple": 8, "image_format": "jpg", "quality": 95, "image_guidance": 1.5,
    }  # fmt: skip
    return Settings(**{**given, **fields})


def job(**fields: Any) -> Job:
    given = {
        "source": "ab" * 32,
        "settings": settings(),
        "prompt": "make it night",
        "negative_prompt": "sun",
        "seed": 7,
    }
    return Job(**{**given, **fields})


def model(**fields: Any) -> Model:
    given = {
        "name": "tests/fake", "editor": "instruct", "kind": "hub", "place": "tests/fake", "identity": IDENTITY,
        "steps": 20, "guidance": 7.0, "native": 64, "multiple": 8, "revision": "0" * 40, "image_guidance": 1.5,
    }  # fmt: skip
    return Model(**{**given, **fields})


def source(i: int = 0, **fields: Any) -> Source:
    """A source that lies nowhere, for plans."""
    digest = hashlib.sha256(f"source {i}".encode()).hexdigest()
    given = {
        "split": "train", "name": f"{i:04}", "path": f"/nowhere/images/{i:04}.jpg", "label": None,
        "digest": digest, "image_digest": digest[:32], "width": 64, "height": 48, "counts": ((0, 1),), "smallest": (12.0,),
    }  # fmt: skip
    return Source(**{**given, **fields})


@dataclass
class FakeEditor:
    """Darkens. The last bits depend on the whole batch, as floating point on real devices does.

    Subclasses change `pixels`, what is made of one image, or `begin`, what happens before a batch is made.
    """

    room: int | None = None  # more images than this are out of memory
    seconds: float = 0.0
    batches: list[list[str]] = field(default_factory=list)  # job ids, call by call

    def edit(self, batch: EditBatch) -> list[Edited]:
        self.batches.append([job.id for job in batch.jobs])
        if self.room is not None and len(batch.images) > self.room:
            raise OutOfMemory("no room")
        self.begin(batch)
        time.sleep(self.seconds)
        company = sum(int(image.sum()) for image in batch.images) % 7 + sum(job.seed for job in batch.jobs) % 5
        return [self._edited(batch, i, company) for i in range(len(batch.images))]

    def round_trip(self, image: np.ndarray) -> np.ndarray:
        """That of a VAE without loss."""
        return image

    def begin(self, batch: EditBatch) -> None:
        """Called with each batch, which is the last of `batches` by then."""

    def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
        """(H, W, 3), rounded down to uint8 by `edit`. `company` is a small number that depends on the whole batch."""
        noise = np.random.default_rng(job.seed).integers(0, 4, image.shape)
        return image * (1 - 0.6 * job.settings.strength) + noise + company

    def _edited(self, batch: EditBatch, i: int, company: int) -> Edited:
        job, mask = batch.jobs[i], batch.masks[i] if batch.masks else None
        made = self.pixels(batch.images[i], job, mask, company)
        held = None if mask is None else job.settings.object_strength
        return Edited(made.clip(0, 255).astype(np.uint8), job.settings.strength, held)

    @property
    def made(self) -> list[str]:
        return [job_id for batch in self.batches for job_id in batch]


def fake_worker(
    editor: Any,
    classes: int = 2,
    keypoints: tuple[int, int] | None = None,
    second_look: SecondLook | None = None,
    targets: Mapping[str, str] | None = None,
) -> Worker:
    schema = LabelSchema(tuple(map(str, range(classes))), keypoints)
    return Worker(editor, schema, {"device": "fake"}, second_look, targets=targets)


def make(recipe: Path, editor: Any = None, *, sets: Sequence[str] = (), **options: Any) -> tuple[Summary, FakeEditor]:
    """Run a recipe with a torch-free worker: (summary, the editor, which knows what it was asked)."""
    editor = editor or FakeEditor()
    keypoints, classes, targets = (
        options.pop("keypoints", None),
        options.pop("classes", 2),
        options.pop("targets", None),
    )
    loaded = load_recipe(recipe, sets)
    return run(loaded, make_worker=lambda: fake_worker(editor, classes, keypoints, targets=targets), **options), editor


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its bytes; links by their target."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            raw = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(raw).hexdigest()
    return found


def manifest(dataset: Path) -> list[dict[str, Any]]:
    """The lines of an exported dataset's manifest."""
    return [json.loads(line) for line in (dataset / "manifest.jsonl").read_text("utf-8").splitlines()]


def ids_of(out: Path) -> set[str]:
    """The jobs whose images lie in a run folder."""
    return {path.stem for path in (out / "images").glob("*/*.*")}


def read_records(folder: Path) -> dict[str, Record]:
    """The records of a run folder of JPEG images, by job id."""
    return run_images.read_records(folder, "jpg")
