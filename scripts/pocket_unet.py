"""Training of the denoiser and its text encoder, and the export as a diffusers folder."""

from __future__ import annotations

import copy
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, StableDiffusionInstructPix2PixPipeline
from pocket_lessons import BATCH, TURNS, Denoiser, Lessons
from pocket_model import build_scheduler, build_vae, grown, init_identity
from pocket_muon import Muon
from pocket_pairs import CROP_SIDES, GOING_ON_SIDES, SEEN, PairPool
from pocket_photos import Photo
from pocket_prompts import preset_texts, train_tokenizer, vocabulary
from pocket_vae import save, vae_batch
from torch import nn
from transformers import CLIPTokenizer

LEARNING_RATE = 1e-3
SETTLING = 0.25  # of the time, at its end, in which the rate falls; till then it stays, so that more time may be added
GOING_ON = 0.6  # of the learning rate, from weights that were trained before

# What the exported model says about itself to diffgen.
ABOUT = {
    "steps": 1, "guidance": 1.0, "image_guidance": 1.0, "native": 1280, "smallest": 256, "multiple": 32, "least_object": 8,
    "cpu_seconds_per_mpx": 2.4, "severity": "{prompt}, severity {percent}", "vocabulary": "vocabulary.json",
}  # fmt: skip


@dataclass(frozen=True)
class LatentFacts:
    """Measured on the trained autoencoder: `scaling` = 1 / deviation of all latents; (16,) each: the others."""

    scaling: float
    mean: torch.Tensor
    deviation: torch.Tensor
    weight: torch.Tensor


def load_exported(model: Path) -> tuple[StableDiffusionInstructPix2PixPipeline, Denoiser]:
    """An exported folder, and its denoiser as the one that is trained."""
    pipe = StableDiffusionInstructPix2PixPipeline.from_pretrained(model, torch_dtype=torch.float32)
    denoiser = Denoiser(pipe.tokenizer)
    denoiser.text.load_state_dict(pipe.text_encoder.state_dict())
    denoiser.unet.load_state_dict(grown(pipe.unet.state_dict(), denoiser.unet))
    return pipe, denoiser


def start_from(model: Path, work: Path) -> None:
    """Lay the weights of an exported folder into an empty `work` as if they had just been trained for no time at all."""
    if (work / "unet.pt").exists():
        return
    pipe, denoiser = load_exported(model)
    pipe.tokenizer.save_pretrained(work / "tokenizer")
    vae, weights = pipe.vae.state_dict(), denoiser.state_dict()
    # The denoiser last: it is what tells a start that was cut off from a whole one.
    fresh = {"optimizer": None, "seconds": 0.0, "step": 0}
    save(work / "vae.pt", {"vae": vae, "ema": vae, **fresh})
    scaling = pipe.vae.config.scaling_factor
    save(work / "unet.pt", {"model": weights, "ema": weights, **fresh, "scaling": scaling, "going_on": True})


def load_kept(model: Path, scaling: float, tokenizer: CLIPTokenizer) -> Denoiser:
    """The denoiser of an exported folder, for others to stay like it."""
    pipe, denoiser = load_exported(model)
    if pipe.vae.config.scaling_factor != scaling or pipe.tokenizer.get_vocab() != tokenizer.get_vocab():
        raise Mismatch(f"{model} has other latents or tokens than what is trained: --keep what it was started from")
    return denoiser.requires_grad_(False)


class Mismatch(Exception):
    """Weights that do not go with the network that is trained."""


def load_checkpoint(path: Path) -> dict:
    """The denoiser's."""
    state = torch.load(path, map_location="cpu")
    if len(state["model"].get("seen.bias", ())) != len(SEEN):
        raise Mismatch(
            f"{path} is an older version's: export it with that, and --start from the export in another --work"
        )
    return state


def load_vae(work: Path) -> AutoencoderTiny:
    """The averaged autoencoder."""
    vae = build_vae().requires_grad_(False)
    vae.load_state_dict(torch.load(work / "vae.pt", map_location="cpu")["ema"])
    return vae


def measure(vae: AutoencoderTiny, photos: list[Photo], seed: int) -> LatentFacts:
    """What the denoiser must know about the autoencoder's latents, from 32 crops."""
    images = vae_batch(photos, np.random.default_rng(seed), 32)
    with torch.no_grad():
        latents = vae.encoder(images)
        scaling = 1 / latents.std().item()
        few = latents[:8]  # as good within a twelfth, and all of them took longer than the rest of a short training
        plain = vae.decoder(few)
        weights = []
        for k in range(latents.shape[1]):
            moved = few.clone()
            moved[:, k] += 0.1
            # How much a wrong value in this channel shows; the root gives fine detail more say than the error alone would.
            weights.append((vae.decoder(moved) - plain).abs().mean().sqrt().item())
    weight = torch.tensor(weights)
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    return LatentFacts(scaling, mean, deviation, weight / weight.mean())


def build_optimizers(model: Denoiser) -> list[torch.optim.Optimizer]:
    """Muon for the matrices within the UNet, AdamW for the rest."""
    ends = ("conv_in", "conv_out", "add_embedding")
    inner = [p for name, p in model.unet.named_parameters() if p.ndim > 1 and not name.startswith(ends)]
    taken = {id(p) for p in inner}
    rest = [p for p in model.parameters() if id(p) not in taken]
    return [
        Muon(inner, lr=LEARNING_RATE, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01),
    ]


@dataclass(frozen=True)
class Settings:
    """`minutes` of training in all, counted over restarts; seconds between checkpoints; "cpu" or "cuda"; whether the
    networks compute in bfloat16 (weights, loss and optimizer stay float32); conditions to teach, all when empty, while the
    others stay as the exported model `keep` paints them."""

    minutes: float
    checkpoint: float
    device: str
    bfloat16: bool
    seed: int
    only: frozenset[str] = frozenset()
    keep: Path | None = None


def train_unet(photos: list[Photo], maps: dict, work: Path, conditions: Path | None, how: Settings, say) -> None:
    """Writes `work/unet.pt` and `work/tokenizer/`; goes on from them when they are there."""
    minutes, device, seed = how.minutes, how.device, how.seed
    first_pairs = min(300, 3 * BATCH + int(20 * minutes))  # a short run must not spend itself on preparing
    path = work / "unet.pt"
    state = load_checkpoint(path) if path.exists() else None
    seconds, step = (state["seconds"], state["step"]) if state else (0.0, 0)
    rng = np.random.default_rng(seed + step)
    torch.manual_seed(seed + step)
    presets = preset_texts(conditions)
    if not (work / "tokenizer").exists():
        part = work / "tokenizer.part"
        train_tokenizer(presets, seed).save_pretrained(part)
        part.rename(work / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    vae = load_vae(work)
    facts = measure(vae, photos, seed)
    model = Denoiser(tokenizer)
    if state:
        model.load_state_dict(state["model"])
        scaling, going_on = state["scaling"], state.get("going_on", False)
    else:
        init_identity(model.unet, facts.scaling, facts.mean, facts.deviation)
        scaling, going_on = facts.scaling, False
    vae.to(device, memory_format=torch.channels_last)  # on CPUs it encodes in half the time
    model.to(device)
    ema = copy.deepcopy(model).requires_grad_(False)
    optimizers = build_optimizers(model)
    if state:
        ema.load_state_dict(state["ema"])
        for optimizer, kept in zip(optimizers, state["optimizer"] or (), strict=False):
            optimizer.load_state_dict(kept)
    pool = PairPool(photos, maps, vae, device, GOING_ON_SIDES if going_on else CROP_SIDES, only=how.only)
    keep = load_kept(how.keep, scaling, tokenizer).to(device) if how.keep else None
    say(f"denoiser: starts at step {step}, latent scale {scaling:.3f}")
    lessons = Lessons(model, vae, pool, tokenizer, presets, scaling, facts.weight, device, how.bfloat16, keep)
    saved = last = time.monotonic()
    while seconds < minutes * 60:
        rate = LEARNING_RATE * (GOING_ON if going_on else 1) * min(1, (step + 1) / 100)
        rate *= min(1.0, max(0.03, (1 - seconds / (minutes * 60)) / SETTLING))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        if pool.grow_crops(seconds / (minutes * 60)):
            while len(pool) < first_pairs:
                pool.add(rng)
            say(f"denoiser: crops of {', '.join(map(str, pool.pairs))} px, {len(pool)} pairs ready")
            last = time.monotonic()
        loss = lessons.look(rng) if step % TURNS else lessons.paint(rng)
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        decay = min(0.998, step / (step + 10))
        with torch.no_grad():
            for kept, now in zip(ema.parameters(), model.parameters(), strict=True):
                kept.lerp_(now, 1 - decay)
        now = time.monotonic()
        # A step that took over a minute was paused from outside; that is not training time.
        seconds, last = seconds + min(now - last, 60.0), now
        if now - saved > how.checkpoint or seconds >= minutes * 60:
            state = {
                "model": model.state_dict(),
                "ema": ema.state_dict(),
                "optimizer": [o.state_dict() for o in optimizers],
            }
            save(path, {**state, "seconds": seconds, "step": step, "scaling": scaling, "going_on": going_on})
            mean = ", ".join(f"{name} {sum(v) / len(v):.3f}" for name, v in sorted(lessons.losses.items()))
            say(f"denoiser: step {step}, {len(pool)} pairs, loss {mean}; {minutes - seconds / 60:.1f} min left")
            lessons.losses.clear()
            saved = last = time.monotonic()


def export(work: Path, out: Path, conditions: Path | None, say) -> None:
    """Write the newest averaged weights as a diffusers folder in fp16, then swap it in whole."""
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    state = load_checkpoint(work / "unet.pt")
    vae = load_vae(work)
    vae.register_to_config(scaling_factor=state["scaling"])
    model = Denoiser(tokenizer)
    model.load_state_dict(state["ema"])
    pipe = StableDiffusionInstructPix2PixPipeline(
        vae=vae,
        text_encoder=model.text,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    fresh, old = out.with_name(out.name + ".new"), out.with_name(out.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    pipe.to(torch.float16).save_pretrained(fresh)
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
    say(f"export: step {state['step']}, {state['seconds'] / 60:.1f} min of denoiser training, {size:.1f} MB in {out}")
