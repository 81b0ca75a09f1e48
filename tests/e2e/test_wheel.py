"""The wheel carries the model: installed into an empty folder, stock diffusers loads it from there and it edits."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def pip(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_installed_wheel_has_a_model_that_edits(tmp_path: Path) -> None:
    tree, installed = tmp_path / "tree", tmp_path / "installed"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, tree / name)
    shutil.copytree(ROOT / "diffgen", tree / "diffgen", ignore=shutil.ignore_patterns("__pycache__"))
    pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(tree))
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 40e6
    pip("install", "--quiet", "--no-deps", "--no-index", "--target", str(installed), str(wheel))
    code = (
        "import sys, pathlib, diffgen\n"
        "from PIL import Image\n"
        "from diffusers import StableDiffusionInstructPix2PixPipeline\n"
        "folder = pathlib.Path(diffgen.__file__).parent\n"
        "assert folder.parent == pathlib.Path(sys.argv[1]), folder\n"
        "pipe = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder / 'models/pocket')\n"
        "day = Image.open(sys.argv[2]).resize((320, 224))\n"
        "night = pipe('make it night, severity 65', image=day, num_inference_steps=1, guidance_scale=1.0).images[0]\n"
        "assert night.size == day.size\n"
        "light = [sum(picture.convert('L').getdata()) for picture in (day, night)]\n"
        "assert light[1] < 0.6 * light[0], light\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, str(installed), str(Path(__file__).parent / "data/pagoda.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
