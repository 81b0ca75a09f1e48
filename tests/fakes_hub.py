"""Models in the layout of diffusers and of the hub's cache, of a few bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SD = {
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "image_encoder": [None, None],
    "requires_safety_checker": True,
}


def write_model(
    folder: Path,
    cls: str = "StableDiffusionPipeline",
    vae: Any = None,
    unet: Any = None,
    suffix: str = ".safetensors",
) -> Path:
    index = {"_class_name": cls, "_diffusers_version": "0.36.0", **SD}
    for name in ("scheduler", "tokenizer", "text_encoder", "unet", "vae"):
        (folder / name).mkdir(parents=True)
        (folder / name / ("scheduler_config.json" if name == "scheduler" else "config.json")).write_text("{}")
        if name in ("text_encoder", "unet", "vae"):
            stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
            (folder / name / f"{stem}{suffix}").write_bytes(name.encode())
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    (folder / "tokenizer" / "merges.txt").write_text("")
    (folder / "vae" / "config.json").write_text(json.dumps(vae or {"block_out_channels": [128, 256, 512, 512]}))
    (folder / "unet" / "config.json").write_text(json.dumps(unet or {"sample_size": 64}))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_snapshot(tmp_path: Path, hub_id: str, ref: bool = True, **model: Any) -> Path:
    repo = tmp_path / "hub" / ("models--" + hub_id.replace("/", "--"))
    if ref:
        (repo / "refs").mkdir(parents=True)
        (repo / "refs" / "main").write_text(COMMIT)
    return write_model(repo / "snapshots" / COMMIT, **model)
