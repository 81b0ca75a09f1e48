"""Small COCO and Pascal VOC datasets, for the tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffgen.dataset.dataset import Dataset, read_dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.recipe.sections import CocoDataset, VocDataset
from tests.fakes import photo, put, save

BOX = {"id": 1, "image_id": 7, "category_id": 5, "bbox": [6.4, 4.8, 12.8, 9.6]}  # of 64 × 48 pixels


def coco(root: Path, annotations: list[dict[str, Any]], **more: Any) -> CocoDataset:
    save(root / "images/a.png", photo(1))
    save(root / "images/b.png", photo(2))
    image = {"id": 7, "file_name": "a.png", "width": 64, "height": 48}
    train = {
        "images": [image],
        "annotations": annotations,
        "categories": [{"id": 9, "name": "person"}, {"id": 5, "name": "car"}],
    }
    val = {"images": [{**image, "file_name": "b.png"}], "annotations": [], "categories": [{"id": 2, "name": "bus"}]}
    put(root / "train.json", json.dumps({**train, **more}))
    put(root / "val.json", json.dumps(val))
    return CocoDataset.model_validate(
        {"format": "coco"} | {s: {"images": "images", "annotations": f"{s}.json"} for s in ("train", "val")}
    )


def read(spec: Any, root: Path) -> Dataset:
    with FileCache(root / "cache") as cache:
        return read_dataset(spec, root, cache)


def label(dataset: Dataset, split: str = "train") -> str:
    (source,) = dataset.split(split)
    return (source.read_label() or b"").decode()


OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def voc(root: Path, objects: str, **more: Any) -> VocDataset:
    for i, name in enumerate(("train/a", "val/b")):
        save(root / f"images/{name}.png", photo(i))
    size = "<size><width>64</width><height>48</height></size>"
    put(root / "xml/a.xml", f"<annotation>{size}{objects}</annotation>")
    put(root / "xml/b.xml", f"<annotation>{size}{OBJECT.format('bus', 1, 1, 64, 48)}</annotation>")
    splits = {split: {"images": f"images/{split}", "annotations": "xml"} for split in ("train", "val")}
    return VocDataset.model_validate({"format": "voc", **splits, **more})
