"""An exported dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import make, make_dataset, write_recipe

Made = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Make a dataset with these keys, run a recipe over it: the exported folder."""

    def call(data: Path | None = None, *, keypoints: Any = None, dataset: dict[str, Any] | None = None, **fields: Any) -> Path:  # fmt: skip
        path = data or make_dataset(tmp_path / "data", **(dataset or {}))
        recipe = write_recipe(tmp_path / "recipe.yaml", path, tmp_path / "out", **fields)
        summary, _ = make(recipe, keypoints=keypoints)
        assert summary.failed == {}
        return tmp_path / "out" / "dataset"

    return call
