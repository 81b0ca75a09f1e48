"""Ultralytics takes the data files that are exported for training in stages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from diffgen.commands.export import export
from diffgen.recipe.load import load_recipe
from tests.fakes import make, make_dataset, write_recipe

LOOK = """
import json, sys
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset
found = {}
for path in sys.argv[1:]:
    data = check_det_dataset(path, autodownload=False)
    for split in ("train", "val"):
        seen = build_yolo_dataset(get_cfg(), data[split], 2, data, mode="val")
        found[f"{path.split('/')[-1]} {split}"] = [len(seen.labels), sum(len(label["cls"]) for label in seen.labels)]
        assert data["names"] == {0: "car", 1: "person"}
print(json.dumps(found))
"""


@pytest.mark.parametrize("sources", ["copy", "link"])
def test_ultralytics_takes_the_data_files_from_elsewhere(tmp_path: Path, sources: str) -> None:
    data = make_dataset(tmp_path / "data", counts=(3, 2))
    (tmp_path / "data/labels/train/00.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "my runs/out", include_sources=sources))
    run = tmp_path / "my runs/out"
    export(load_recipe(run), staged=True)
    (tmp_path / "elsewhere").mkdir()
    files = [str(run / f"dataset/{name}.yaml") for name in ("made", "real", "data")]
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *files], cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [len((tmp_path / f"data/labels/train/0{i}.txt").read_text().splitlines()) for i in range(3)]
    val = [2, sum(len(path.read_text().splitlines()) for path in (tmp_path / "data/labels/val").iterdir())]
    assert rows[0] != rows[1]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "made.yaml train": [6, 2 * sum(rows)], "made.yaml val": val,
        "real.yaml train": [3, sum(rows)], "real.yaml val": val,
        "data.yaml train": [9, 3 * sum(rows)], "data.yaml val": val,
    }  # fmt: skip
