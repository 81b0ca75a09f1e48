"""A small copy of a few sources, so that a trial costs little, however large the pictures and the dataset are."""

from __future__ import annotations

import io
from pathlib import Path

import yaml
from PIL import Image

from diffgen.dataset.images import decode
from diffgen.files import write_atomically
from diffgen.run.session import Session
from diffgen.types import Source, canonical, digest_of

QUALITY = 95


def small_dataset(session: Session, folder: Path, long_side: int) -> Path:
    """Write the plan's sources, with a long side of at most `long_side` px, and their label files as a YOLO dataset below
    `folder`. Returns its data.yaml. Raises DiffgenError if a picture cannot be read."""
    sources = [source for source, _ in session.plan.edits]
    place = folder / f"sources-{digest_of(canonical([long_side, *(source.digest for source in sources)]))[:8]}"
    data = place / "data.yaml"
    if data.is_file():  # it is written last
        return data
    for source in sources:
        image, label = (place / kind / f"train/{source.name}" for kind in ("images", "labels"))
        image.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(image.with_name(f"{image.name}.jpg"), _small(source, long_side))
        if (rows := source.read_label()) is not None:
            label.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(label.with_name(f"{label.name}.txt"), rows)
    dataset, none = session.dataset, place / "images/val/none.jpg"  # a dataset needs a val split
    none.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(none, _jpeg(Image.new("RGB", (64, 64))))
    facts = {"train": "images/train", "val": "images/val", "names": dict(enumerate(dataset.names)), **dataset.extra}
    write_atomically(data, yaml.safe_dump(facts, sort_keys=False, allow_unicode=True))
    return data


def _small(source: Source, long_side: int) -> bytes:
    picture = Image.fromarray(decode(Path(source.path).read_bytes()))
    scale = min(1.0, long_side / max(picture.size))
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return _jpeg(picture.resize(size, Image.Resampling.LANCZOS))


def _jpeg(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()
