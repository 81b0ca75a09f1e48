"""A tiny training run of every stage, killed in the middle and started again: it ends with a model that loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from scripts.pocket import train

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = ROOT / "diffgen/models/pocket"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dozen small streets: sky, ground, a house, a car."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(24):
        image = Image.new("RGB", (192, 144), (150 + 4 * i, 190, 230))
        pen = ImageDraw.Draw(image)
        pen.rectangle((0, 90, 192, 144), fill=(90 + i, 90, 88))
        pen.rectangle((10 + 3 * i, 40, 70 + 3 * i, 95), fill=(150, 60 + 5 * i, 50))
        pen.rectangle((90, 95, 130, 112), fill=(20, 20 + 8 * i, 120))
        noise = rng.normal(0, 4, (144, 192, 3))
        Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{i:02}.png")
    return folder


def command(photos: Path, work: Path, out: Path, minutes_vae: float, minutes_unet: float = 0.05) -> list[str]:
    return [
        sys.executable, "-m", "scripts.pocket.train", "--photos", str(photos), "--work", str(work), "--out", str(out),
        "--minutes-vae", str(minutes_vae), "--minutes-unet", str(minutes_unet), "--checkpoint-seconds", "1",
        "--conditions", str(ROOT / "diffgen/recipe/conditions.yaml"),
    ]  # fmt: skip


def killed_when(checkpoint: Path, line: list[str]) -> dict:
    """What is in the checkpoint that it wrote before it was killed."""
    import torch

    process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    try:
        while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert checkpoint.exists(), process.stderr.read() if process.stderr else ""
    return torch.load(checkpoint, map_location="cpu")


@pytest.mark.slow
def test_every_stage_killed_and_resumed(photos: Path, tmp_path: Path) -> None:
    import torch

    work, out = tmp_path / "work", tmp_path / "model"
    vae = killed_when(work / "vae.pt", command(photos, work, out, 9.0))
    minutes_vae = vae["seconds"] / 60 + 0.05
    unet = killed_when(work / "unet.pt", command(photos, work, out, minutes_vae, 0.5))
    last = command(photos, work, out, minutes_vae, unet["seconds"] / 60 + 0.05)
    done = subprocess.run(last, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for name, before in (("vae.pt", vae), ("unet.pt", unet)):
        after = torch.load(work / name, map_location="cpu")
        assert after["step"] > before["step"]
        assert after["seconds"] > before["seconds"]
    assert "linear start" not in done.stderr, "it went on, and did not begin again"
    assert f"starts at step {unet['step']}," in done.stderr
    assert "min left" in done.stderr
    assert "round trip at" in done.stdout
    assert json.loads((out / "vocabulary.json").read_text())["snow"]
    check_loads(out)


@pytest.mark.slow
def test_goes_on_from_an_exported_model(photos: Path, tmp_path: Path) -> None:
    import torch

    marks = tmp_path / "marks.jsonl"
    seen = {"horizon": 60, "sky": [[[0, 0], [100, 0], [100, 62], [0, 62]]], "ground": [], "things": []}
    seen |= {"heads": [[40, 70, 46, 76]], "tails": [[60, 70, 64, 74]], "windows": [[10, 62, 50, 80, 4, 2]]}
    rows = [{"name": "00.png", "use": 0}, {"name": "01.png", "use": 0}, {"name": "02.png", "use": 1, **seen}]
    marks.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    out = tmp_path / "model"
    more = ["--start", str(SHIPPED), "--marks", str(marks), "--bfloat16"]
    done = subprocess.run(
        [*command(photos, tmp_path / "work", out, 0), *more], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "learns from 21 of them" in done.stderr
    before, after = (
        load_file(folder / "unet/diffusion_pytorch_model.safetensors")["conv_in.weight"].float()
        for folder in (SHIPPED, out)
    )
    assert 0 < float((before - after).abs().mean()) < 0.1 * float(before.abs().mean())
    assert json.loads((out / "vae/config.json").read_text())["scaling_factor"] == pytest.approx(
        json.loads((SHIPPED / "vae/config.json").read_text())["scaling_factor"]
    )
    state = torch.load(tmp_path / "work/unet.pt", map_location="cpu")
    assert state["step"] > 0
    check_loads(out)


def test_only_needs_a_model_to_stay_like(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        train.parse_args(["--photos", "x", "--only", "rain"])
    assert "--keep" in capsys.readouterr().err
    args = train.parse_args(["--photos", "x", "--only", "rain", "snow", "--start", str(SHIPPED)])
    assert (args.only, args.keep) == (["rain", "snow"], SHIPPED)
    assert train.parse_args(["--photos", "x", "--start", str(SHIPPED)]).keep is None
    with pytest.raises(SystemExit):
        train.parse_args(["--photos", "x", "--start", "nowhere"])
    assert "--start nowhere: no exported model" in capsys.readouterr().err


def check_loads(model: Path) -> None:
    """It loads as what its model_index.json says, and `diffgen` needs no further word about it."""
    code = (
        "import sys, torch\n"
        "from PIL import Image\n"
        "from diffusers import DiffusionPipeline\n"
        "pipe = DiffusionPipeline.from_pretrained(sys.argv[1])\n"
        "image = pipe('make it snow, severity 65', image=Image.new('RGB', (96, 64)), num_inference_steps=1,\n"
        "             guidance_scale=1.0).images[0]\n"
        "assert type(pipe).__name__ == 'StableDiffusionInstructPix2PixPipeline' and image.size == (96, 64)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        [sys.executable, "-m", "diffgen", "models", "show", str(model), "--json"], capture_output=True, text=True
    )
    facts = json.loads(shown.stdout)
    assert (facts["editor"], facts["steps"], facts["multiple"]) == ("instruct", 1, 32)


def test_a_cpu_without_bfloat16_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def taken(has: bool, *more: str) -> bool:
        monkeypatch.setattr(train, "cpu_has_bfloat16", lambda: has)
        return train.bfloat16(train.parse_args(["--photos", "x", *more]))

    assert taken(True, "--bfloat16")
    assert taken(False, "--bfloat16", "--device", "cuda")
    assert not taken(True)
    assert not taken(False)
    assert capsys.readouterr().err == ""
    assert not taken(False, "--bfloat16")
    assert "float32 instead" in capsys.readouterr().err
