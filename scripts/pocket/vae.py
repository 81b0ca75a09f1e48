"""Training of the autoencoder: photographs in, weights in `work/vae.pt`. Can be killed at any time and goes on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny

from scripts.pocket.model import build_vae, init_decoder, init_encoder
from scripts.pocket.photos import Photo, random_crop
from scripts.pocket.training import Budget, Mismatch, Say, Training, load_checkpoint, load_mean

BATCH, CROP_PX = 8, 128
CROP_SCALES = (0.4, 1.25)  # of the photograph
LEARNING_RATE = 1.5e-3
WARM_UP = 50  # steps
LEAST_RATE = 0.02  # of the learning rate, at the end
DECAY = 0.997  # of the running mean of the weights


def train_vae(train: list[Photo], held: list[Photo], work: Path, budget: Budget, say: Say) -> None:
    """Writes `work/vae.pt`, a checkpoint of scripts/pocket/training.py, and goes on from it when it is there."""
    state = load_checkpoint(work / "vae.pt")
    start = budget.seed + (state["step"] if state else 0)
    rng = np.random.default_rng(start)
    torch.manual_seed(start)
    vae = build_vae()
    if state:
        vae.load_state_dict(state["model"])
    else:
        start_linear(vae, train, rng)
        say(f"autoencoder: linear start, held-out PSNR {held_out_psnr(vae, held, 'cpu'):.2f} dB")
    vae.to(budget.device)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    training = Training(work / "vae.pt", vae, [optimizer], budget, DECAY, state)
    while training.progress < 1:
        cosine = 0.5 * (1 + math.cos(math.pi * training.progress))
        rate = LEARNING_RATE * min(1, (training.step + 1) / WARM_UP) * (LEAST_RATE + (1 - LEAST_RATE) * cosine)
        loss = vae_loss(vae, vae_batch(train, rng).to(budget.device))
        training.update(loss, rate)
        if training.due:
            training.save()
            with training.averaged():
                psnr = held_out_psnr(vae, held, budget.device)
            left = f"{training.minutes_left:.1f} min left"
            say(f"autoencoder: step {training.step}, loss {loss.item():.4f}, held-out {psnr:.2f} dB, {left}")
            training.restart_clock()


def load_vae(work: Path) -> AutoencoderTiny:
    """The averaged autoencoder of `work/vae.pt`."""
    state = load_checkpoint(work / "vae.pt")
    if state is None:
        raise Mismatch(f"{work / 'vae.pt'} is not there: train the autoencoder first (--stage vae)")
    vae = build_vae().requires_grad_(False)
    load_mean(vae, state)
    return vae


def start_linear(vae: AutoencoderTiny, photos: list[Photo], rng: np.random.Generator) -> None:
    """PCA encoder and least-squares decoder from 96 crops."""
    crops = vae_batch(photos, rng, count=96) * 0.5 + 0.5
    with torch.no_grad():
        init_encoder(vae, crops)
        init_decoder(vae, crops)


def vae_batch(photos: list[Photo], rng: np.random.Generator, count: int = BATCH) -> torch.Tensor:
    """(count, 3, 128, 128) in -1..1; half of them changed to look like the conditions, so that these decode well too."""
    crops = []
    for _ in range(count):
        photo = photos[rng.integers(len(photos))]
        crop = random_crop(photo.pixels, CROP_PX, CROP_SCALES, rng)
        crops.append(like_weather(crop, rng) if rng.random() < 0.5 else crop)
    return torch.stack(crops) * 2 - 1


def like_weather(crop: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A cheap stand-in for rendered weather: dark and blue, hazy, or with specks and streaks."""
    kind = rng.integers(4)
    if kind == 0:
        tint = torch.tensor([0.8, 0.9, 1.2]) ** float(rng.uniform(0, 1))
        return (crop ** float(rng.uniform(1, 2.2)) * float(rng.uniform(0.15, 0.8)) * tint[:, None, None]).clamp(0, 1)
    if kind == 1:
        share = float(rng.uniform(0.1, 0.9))
        return crop * (1 - share) + share * float(rng.uniform(0.4, 0.95))
    noise = torch.from_numpy(rng.standard_normal((1, 1, CROP_PX // 4, CROP_PX // 4), np.float32))
    if kind == 2:  # streaks: noise run along a slanted line
        noise = sum(torch.roll(noise, (k, -(k // 4)), (2, 3)) for k in range(-4, 5)) / 3
    field = F.interpolate(noise, size=crop.shape[-2:], mode="bicubic", align_corners=False)[0]
    mask = ((field - float(rng.uniform(1.2, 2.4))) * 2.5).clamp(0, 1) * float(rng.uniform(0.3, 1))
    return (crop * float(rng.uniform(0.3, 1))) * (1 - mask) + mask * float(rng.uniform(0.6, 1))


def vae_loss(vae: AutoencoderTiny, batch: torch.Tensor) -> torch.Tensor:
    """L1 + MSE + gradient L1 at two scales; 2 % noise on the latents, because the denoiser will not hit them exactly."""
    latents = vae.encoder(batch)
    back = vae.decoder(latents + 0.02 * torch.randn_like(latents))
    loss = F.l1_loss(back, batch) + 2 * F.mse_loss(back, batch) + 1e-4 * latents.square().mean()
    error = back - batch
    for scale in (1, 2):
        if scale == 2:
            error = F.avg_pool2d(error, 2)
        loss = loss + 0.25 * (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean())
    return loss


@torch.no_grad()
def held_out_psnr(vae: AutoencoderTiny, held: list[Photo], device: str, long_side: int = 512, count: int = 8) -> float:
    """Mean PSNR in dB of the round trip at `long_side` px, over the first `count` held-out photographs."""
    values = []
    for photo in held[:count]:
        image = photo.pixels[None].float() / 255
        scale = long_side / max(image.shape[-2:])
        size = [max(4, round(n * scale / 4) * 4) for n in image.shape[-2:]]
        image = F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False).to(device)
        back = (vae.decoder(vae.encoder(image * 2 - 1)) * 0.5 + 0.5).clamp(0, 1)
        values.append(-10 * math.log10(F.mse_loss(back, image).item()))
    return sum(values) / len(values)
