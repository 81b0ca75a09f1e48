"""docs/your-own-night.md, from folder to trained detector: its recipe, and every command of it, on a small set."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.checks.test_ultralytics import saved
from tests.e2e.conftest import ROOT
from tests.fakes import make_dataset, photo, save

pytest.importorskip("optuna")

# What makes the page's commands small enough for a test; without these they are the page's own.
SMALLER = {
    "tune": ["--budget", "14", "--sources", "3", "--size", "128", "--recall", "0", "--set", "resolution.long_side=128"],
    "run": [],
    "train": [
        "epochs=1",
        "imgsz=64",
        "batch=2",
        "workers=0",
        "plots=False",
    ],
    "eval": ["--device", "cpu", "--plan", "--train-args", "epochs=1 imgsz=64 batch=2"],
}


def page() -> tuple[str, list[list[str]]]:
    """The recipe of the page, and its commands."""
    text = (ROOT / "docs/your-own-night.md").read_text("utf-8")
    (recipe,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return recipe, [shlex.split(line) for line in lines]


@pytest.mark.timeout(600)
def test_the_page_from_folder_to_detector(
    tmp_path: Path, world: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_CONFIG_DIR", world["YOLO_CONFIG_DIR"])
    recipe, commands = page()
    assert [words[1] for words in commands] == ["tune", "run", "train", "eval"]
    make_dataset(tmp_path / "mine", counts=(4, 2), size=(160, 120))
    make_dataset(tmp_path / "labelled-nights", counts=(1, 3), size=(160, 120))
    for i, path in enumerate(sorted((tmp_path / "labelled-nights").rglob("*.jpg"))):
        save(path, photo(300 + i, (160, 120)) // 4)
    for i in range(5):
        save(tmp_path / f"nights/{i}.jpg", photo(60 + i, (160, 120)) // 4)
    saved(tmp_path / "yolo26n.pt", "yolo26n.yaml")
    shutil.copy(tmp_path / "yolo26n.pt", tmp_path / "detector.pt")
    # The photographs of a test are too small and too odd for the checks of real ones.
    loose = dict.fromkeys(("structure", "registration", "change", "effect", "recall"))
    (tmp_path / "night.yaml").write_text(yaml.safe_dump({**yaml.safe_load(recipe), "checks": loose}))
    smaller = SMALLER | {"train": [*SMALLER["train"], f"project={tmp_path / 'trained'}"]}  # else beside its settings
    for words in commands:
        program = (
            [sys.executable, "-m", "diffgen"]
            if words[0] == "diffgen"
            else [str(Path(sys.executable).with_name("yolo"))]
        )
        command = [*program, *words[1:], *smaller[words[1]]]
        done = subprocess.run(
            command, env=world, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, (words, done.stderr[-3000:], done.stdout[-1000:])
    assert yaml.safe_load((tmp_path / "night-tuned.yaml").read_text())["conditions"]
    assert len(list((tmp_path / "runs/night-tuned/dataset/images/train").iterdir())) > 4
    assert (tmp_path / "runs/night-tune/sheet.png").is_file()
    assert list((tmp_path / "trained").rglob("last.pt")), "a detector was trained"
