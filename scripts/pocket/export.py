"""Export of trained weights as a diffusers folder, and training that starts from such a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from transformers import CLIPTokenizer

from scripts.pocket.lessons import Denoiser
from scripts.pocket.model import build_scheduler, grown
from scripts.pocket.pairs import SEEN
from scripts.pocket.prompts import preset_texts, vocabulary
from scripts.pocket.training import Mismatch, Say, first_checkpoint, load_checkpoint, load_mean, save
from scripts.pocket.vae import load_vae

# What the exported model says about itself to diffgen.
ABOUT = {
    "steps": 1, "guidance": 1.0, "image_guidance": 1.0, "native": 1280, "smallest": 256, "multiple": 32, "least_object": 8,
    "severity": "{prompt}, severity {percent}", "vocabulary": "vocabulary.json",
}  # fmt: skip


def load_exported(model: Path) -> tuple[StableDiffusionInstructPix2PixPipeline, Denoiser]:
    """The pipeline of an exported folder, and its denoiser in the form that is trained."""
    pipe = StableDiffusionInstructPix2PixPipeline.from_pretrained(model, torch_dtype=torch.float32)
    denoiser = Denoiser(pipe.tokenizer)
    denoiser.text.load_state_dict(pipe.text_encoder.state_dict())
    denoiser.unet.load_state_dict(grown(pipe.unet.state_dict(), denoiser.unet))
    return pipe, denoiser


def start_from(model: Path, work: Path) -> None:
    """Put the weights of an exported folder into an empty `work`, as checkpoints whose training has not begun."""
    if (work / "unet.pt").exists():
        return
    pipe, denoiser = load_exported(model)
    pipe.tokenizer.save_pretrained(work / "tokenizer")
    # The denoiser last: its file marks the start as complete.
    save(work / "vae.pt", first_checkpoint(pipe.vae))
    facts = {"scaling": pipe.vae.config.scaling_factor, "going_on": True}
    save(work / "unet.pt", {**first_checkpoint(denoiser), **facts})


def load_kept(model: Path, scaling: float, tokenizer: CLIPTokenizer) -> Denoiser:
    """The denoiser of an exported folder as a frozen reference (`--keep`). Raises Mismatch for other latents or tokens."""
    pipe, denoiser = load_exported(model)
    if pipe.vae.config.scaling_factor != scaling or pipe.tokenizer.get_vocab() != tokenizer.get_vocab():
        raise Mismatch(f"{model} has other latents or tokens than what is trained: --keep what it was started from")
    return denoiser.requires_grad_(False)


def load_denoiser(work: Path) -> dict[str, Any] | None:
    """The denoiser's checkpoint; None when there is none yet. Raises Mismatch for one that reads other maps than SEEN."""
    path = work / "unet.pt"
    state = load_checkpoint(path)
    if state and len(state["model"].get("seen.bias", ())) != len(SEEN):
        raise Mismatch(
            f"{path} is of an older version: export it with that, and --start from the export in another --work"
        )
    return state


def averaged_pipeline(work: Path) -> StableDiffusionInstructPix2PixPipeline:
    """The newest averaged weights of both networks as a pipeline. Raises Mismatch when one of them is not there."""
    state = load_denoiser(work)
    if state is None:
        raise Mismatch(f"{work / 'unet.pt'} is not there: train the denoiser first (--stage unet)")
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    vae = load_vae(work)
    vae.register_to_config(scaling_factor=state["scaling"])
    denoiser = Denoiser(tokenizer)
    load_mean(denoiser, state)
    return StableDiffusionInstructPix2PixPipeline(
        vae=vae,
        text_encoder=denoiser.text,
        tokenizer=tokenizer,
        unet=denoiser.unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(work: Path, out: Path, conditions: Path | None, say: Say) -> None:
    """Write the newest averaged weights as a diffusers folder in fp16, then swap it in whole."""
    fresh, old = out.with_name(out.name + ".new"), out.with_name(out.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    averaged_pipeline(work).to(torch.float16).save_pretrained(fresh)
    # transformers loads in the type that the config names, and half precision does not run beside the others on a CPU.
    config = fresh / "text_encoder" / "config.json"
    config.write_text(
        json.dumps({**json.loads(config.read_text("utf-8")), "dtype": "float32"}, indent=2) + "\n", "utf-8"
    )
    (fresh / "diffgen.json").write_text(json.dumps(ABOUT, indent=1) + "\n", encoding="utf-8")
    words = json.dumps(vocabulary(preset_texts(conditions)), indent=1, ensure_ascii=False)
    (fresh / str(ABOUT["vocabulary"])).write_text(words + "\n", encoding="utf-8")
    for path in fresh.rglob("*"):
        # save_pretrained leaves weights readable by their owner only, which breaks a wheel.
        path.chmod(0o755 if path.is_dir() else 0o644)
    fresh.chmod(0o755)
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 1e6
    say(f"export: {size:.1f} MB in {out}")
