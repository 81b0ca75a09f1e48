"""YOLO datasets from a few lines, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.dataset.dataset import Dataset, read_dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.errors import UsageError
from tests.fakes import photo, put, save


def read(path: Path) -> Dataset:
    with FileCache() as cache:
        return read_dataset(str(path), path.parent, cache)


def refusal(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read(path)
    assert caught.value.hint
    assert str(path) in caught.value.message
    return caught.value


def put_photo(root: Path, name: str, label: str | None = "0 0.5 0.5 0.2 0.2\n", seed: int = 0) -> Path:
    """images/<name> below root with its label."""
    path = save(root / "images" / name, photo(seed))
    if label is not None:
        put((root / "labels" / name).with_suffix(".txt"), label)
    return path


def described(root: Path, **keys: Any) -> Path:
    return put(root / "data.yaml", yaml.safe_dump({"names": ["car", "person"], **keys}, sort_keys=False))


def keys_of(data: Dataset) -> list[str]:
    return [source.key for source in data.sources]
