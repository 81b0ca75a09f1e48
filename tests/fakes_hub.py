"""Models in the layout of diffusers and of the hub's cache, of a few bytes, and a hub to fetch them from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

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
    weights: str = "model.safetensors",
) -> Path:
    index = {"_class_name": cls, "_diffusers_version": "0.36.0", **SD}
    for name in ("scheduler", "tokenizer", "text_encoder", "unet", "vae"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
        if name in ("text_encoder", "unet", "vae"):
            (folder / name / weights).write_bytes(name.encode())
    (folder / "tokenizer" / "vocab.json").write_text("{}")
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


class FakeHub:
    """huggingface_hub's functions over the repository that `make` writes into the cache; counts the questions.

    It says that it has `files`, whatever `make` writes; without them it has what `make` wrote, and what is not wanted of
    that is not there once fetched.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        make: Callable[[str], Path],
        files: Sequence[str] | None = None,
        error: Exception | None = None,
    ) -> None:
        import huggingface_hub

        self.make, self.files, self.error = make, files, error
        self.asked = 0
        self.wanted: list[str] = []
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot)

    def model_info(self, hub_id: str, revision: str | None, timeout: float) -> Any:
        self.asked += 1
        if self.error:
            raise self.error
        self.folder = self.make(hub_id)
        written = [p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file()]
        siblings = [SimpleNamespace(rfilename=name) for name in self.files or written]
        return SimpleNamespace(sha=COMMIT, siblings=siblings)

    def download(self, hub_id: str, name: str, revision: str) -> str:
        return str(self.folder / name)

    def snapshot(self, hub_id: str, revision: str, allow_patterns: list[str]) -> str:
        self.wanted = allow_patterns
        for path in self.folder.rglob("*") if self.files is None else ():
            if path.is_file() and path.relative_to(self.folder).as_posix() not in allow_patterns:
                path.unlink()
        return str(self.folder)
