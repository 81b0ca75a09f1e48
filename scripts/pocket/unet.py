"""Training of the denoiser and its text encoder: pairs in, weights in `work/unet.pt`. Can be killed at any time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from transformers import CLIPTokenizer

from scripts.pocket.export import load_denoiser, load_kept
from scripts.pocket.lessons import BATCH, TURNS, Denoiser, Lessons
from scripts.pocket.model import init_identity
from scripts.pocket.muon import Muon
from scripts.pocket.pairs import CROP_SIDES, GOING_ON_SIDES, PairPool
from scripts.pocket.photos import Photo
from scripts.pocket.prompts import preset_texts, train_tokenizer
from scripts.pocket.training import Budget, Say, Training
from scripts.pocket.vae import load_vae, vae_batch

LEARNING_RATE = 1e-3
WARM_UP = 100  # steps
SETTLING = 0.25  # share of the time, at its end, in which the rate falls; before, it stays, so a run can be prolonged
LEAST_RATE = 0.03  # of the learning rate, at the end
GOING_ON = 0.6  # of the learning rate, when starting from trained weights
DECAY = 0.998  # of the running mean of the weights


@dataclass(frozen=True)
class Settings:
    """`bfloat16`: whether the networks compute in it (weights, loss and optimizers stay float32). `conditions`: a presets
    file whose texts are trained on as well. `only`: conditions to teach, all when empty; the others stay as the exported
    model `keep` paints them."""

    budget: Budget
    bfloat16: bool = False
    conditions: Path | None = None
    only: frozenset[str] = frozenset()
    keep: Path | None = None


@dataclass(frozen=True)
class LatentFacts:
    """Measured on the trained autoencoder: `scaling` is 1 / standard deviation of all latents; the others, (16,) each,
    are per channel."""

    scaling: float
    mean: torch.Tensor
    deviation: torch.Tensor
    weight: torch.Tensor


def measure(vae: AutoencoderTiny, photos: list[Photo], seed: int) -> LatentFacts:
    """What the denoiser must know about the autoencoder's latents, from 32 crops."""
    images = vae_batch(photos, np.random.default_rng(seed), 32)
    with torch.no_grad():
        latents = vae.encoder(images)
        scaling = 1 / latents.std().item()
        few = latents[:8]  # weights within a twelfth of those from all 32, in a quarter of the time
        plain = vae.decoder(few)
        weights = []
        for k in range(latents.shape[1]):
            moved = few.clone()
            moved[:, k] += 0.1
            # How much an error in this channel shows in pixels; the root raises the weight of fine detail.
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


def own_tokenizer(work: Path, presets: dict[str, list[str]], seed: int) -> CLIPTokenizer:
    """The tokenizer of `work`; trained first when there is none."""
    if not (work / "tokenizer").exists():
        part = work / "tokenizer.part"
        train_tokenizer(presets, seed).save_pretrained(part)
        part.rename(work / "tokenizer")
    return CLIPTokenizer.from_pretrained(work / "tokenizer")


def begin(photos: list[Photo], maps: dict[str, torch.Tensor], work: Path, how: Settings) -> tuple[Training, Lessons]:
    """The networks, from the last checkpoint or freshly started, and the lessons that train them."""
    device, seed = how.budget.device, how.budget.seed
    state = load_denoiser(work)
    torch.manual_seed(seed + (state["step"] if state else 0))
    presets = preset_texts(how.conditions)
    tokenizer = own_tokenizer(work, presets, seed)
    vae = load_vae(work)
    latents = measure(vae, photos, seed)
    model = Denoiser(tokenizer)
    if state:
        model.load_state_dict(state["model"])
        facts = {name: state[name] for name in ("scaling", "going_on")}
    else:
        init_identity(model.unet, latents.scaling, latents.mean, latents.deviation)
        facts = {"scaling": latents.scaling, "going_on": False}
    vae.to(device, memory_format=torch.channels_last)  # on CPUs it encodes in half the time
    model.to(device)
    training = Training(work / "unet.pt", model, build_optimizers(model), how.budget, DECAY, state, facts)
    phases = GOING_ON_SIDES if facts["going_on"] else CROP_SIDES
    lessons = Lessons(
        model=model,
        vae=vae,
        pool=PairPool(photos, maps, vae, phases, only=how.only),
        tokenizer=tokenizer,
        presets=presets,
        scaling=facts["scaling"],
        weight=latents.weight,
        bfloat16=how.bfloat16,
        keep=load_kept(how.keep, facts["scaling"], tokenizer).to(device) if how.keep else None,
    )
    return training, lessons


def learning_rate(training: Training) -> float:
    """Rises over WARM_UP steps, stays constant, and falls in the last part (SETTLING) of the time."""
    most = LEARNING_RATE * (GOING_ON if training.facts["going_on"] else 1)
    falling = min(1.0, max(LEAST_RATE, (1 - training.progress) / SETTLING))
    return most * falling * min(1, (training.step + 1) / WARM_UP)


def train_unet(photos: list[Photo], maps: dict[str, torch.Tensor], work: Path, how: Settings, say: Say) -> None:
    """Writes `work/unet.pt` and `work/tokenizer/`; goes on from them when they are there. Raises Mismatch."""
    training, lessons = begin(photos, maps, work, how)
    pool = lessons.pool
    rng = np.random.default_rng(how.budget.seed + training.step)
    first_pairs = min(
        300, 3 * BATCH + int(20 * how.budget.minutes)
    )  # a short run must not spend its time on preparing pairs
    say(f"denoiser: starts at step {training.step}, latent scale {lessons.scaling:.3f}")
    while training.progress < 1:
        if pool.grow_crops(training.progress):
            while len(pool) < first_pairs:
                pool.add(rng)
            say(f"denoiser: crops of {', '.join(map(str, pool.pairs))} px, {len(pool)} pairs ready")
            training.restart_clock()
        loss = lessons.look(rng) if training.step % TURNS else lessons.paint(rng)
        training.update(loss, learning_rate(training))
        if training.due:
            training.save()
            mean = ", ".join(f"{name} {sum(v) / len(v):.3f}" for name, v in sorted(lessons.losses.items()))
            left = f"{training.minutes_left:.1f} min left"
            say(f"denoiser: step {training.step}, {len(pool)} pairs, loss {mean}; {left}")
            lessons.losses.clear()
            training.restart_clock()
