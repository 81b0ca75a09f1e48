"""`on_object_lost`: the image goes, the lost object's row goes, or the object comes back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffgen.commands.export import export
from diffgen.dataset.formats.yolo import label_path
from diffgen.recipe.load import load_recipe
from diffgen.types import Job
from tests.fakes import FakeEditor, make, make_dataset, put, write_recipe
from tests.fakes_attempts import Melting

# A left object and a right one; the editor below loses what is on the left.
ROWS = "0 0.25 0.5 0.3 0.6\n1 0.75 0.5 0.3 0.6\n"


@dataclass
class LosesTheLeft(FakeEditor):
    def pixels(self, image: np.ndarray, job: Job, mask: np.ndarray | None, company: int) -> np.ndarray:
        made = image * 0.5
        if mask is None or job.settings.object_strength != 0:
            half = made.shape[1] // 2
            made[:, :half] = np.random.default_rng(0).integers(0, 120, made[:, :half].shape)
        return made


def lossy(root: Path, name: str, **fields: Any) -> tuple[Any, Any, Path]:
    data = root / "data/data.yaml"
    if not data.exists():
        make_dataset(root / "data", counts=(3, 1), size=(160, 96))
        for path in (root / "data/labels/train").iterdir():
            put(path, ROWS)
    fields = {"conditions": ["night"], "resolution": {"long_side": 160}, **fields}
    recipe = write_recipe(root / f"{name}.yaml", data, root / name, **fields)
    return *make(recipe, LosesTheLeft()), recipe


def labels(root: Path, name: str) -> list[str]:
    images = sorted((root / name / "dataset/images/train").glob("*night*"))
    return [Path(label_path(str(image))).read_text() for image in images]


def test_reject_is_the_default(tmp_path: Path) -> None:
    summary, _, _ = lossy(tmp_path, "reject")
    assert summary.rejected == {"structure": 3}


def test_drop_label_takes_the_lost_row_and_no_other(tmp_path: Path) -> None:
    summary, _, recipe = lossy(tmp_path, "drop", checks={"on_object_lost": "drop_label"})
    assert summary.accepted == 3
    assert labels(tmp_path, "drop") == ["1 0.75 0.5 0.3 0.6\n"] * 3
    sources = sorted((tmp_path / "drop/dataset/labels/train").glob("??.txt"))
    assert [path.read_text() for path in sources] == [ROWS] * 3, "the source's own labels are not touched"
    rows = [json.loads(line) for line in (tmp_path / "drop/dataset/manifest.jsonl").read_text().splitlines()]
    assert [row["dropped_rows"] for row in rows if "job" in row] == [[0]] * 3
    export(load_recipe(recipe, ["checks.structure=null"]))
    assert labels(tmp_path, "drop") == [ROWS] * 3, "another threshold, other rows, no image made"


def test_restore_makes_it_again_with_the_source_s_objects(tmp_path: Path) -> None:
    summary, editor, recipe = lossy(tmp_path, "restore", checks={"on_object_lost": "restore"}, attempts=2)
    assert (summary.accepted, summary.saved) == (3, 3)
    assert labels(tmp_path, "restore") == [ROWS] * 3
    assert len(editor.made) == 6
    rows = [json.loads(line) for line in (tmp_path / "restore/dataset/manifest.jsonl").read_text().splitlines()]
    assert {(row["attempt"], row["facts"]["object_strength"]) for row in rows if "job" in row} == {(1, 0.0)}
    again, idle = make(recipe, LosesTheLeft())
    assert (again.accepted, idle.made) == (3, [])


def test_all_lost_is_rejected_all_the_same(tmp_path: Path) -> None:
    make_dataset(tmp_path / "data", counts=(3, 1), size=(160, 96))
    for path in (tmp_path / "data/labels/train").iterdir():
        put(path, ROWS.splitlines()[0])
    summary, _, _ = lossy(tmp_path, "all", checks={"on_object_lost": "drop_label"})
    assert summary.rejected == {"structure": 3}


def test_nothing_to_restore_is_not_restored(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(3, 1))
    for path in (tmp_path / "data/labels/train").iterdir():
        path.unlink()
    checks = {"on_object_lost": "restore", "structure": 0.999}
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", attempts=2, conditions=["night"], checks=checks)
    make(recipe, Melting())
    strengths = {row["facts"]["strength"] for row in records(tmp_path / "out")}
    assert strengths == {0.7, 0.525}


def records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "records-0.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if '"commit"' not in line]
