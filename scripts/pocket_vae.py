"""Training of the autoencoder: photographs in, weights in `work/vae.pt`. Can be killed at any time and goes on."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from pocket_model import build_vae, init_decoder, init_encoder
from pocket_photos import Photo, random_crop

BATCH, CROP_PX = 8, 128
LEARNING_RATE = 1.5e-3


def train_vae(
    train: list[Photo], held: list[Photo], work: Path, minutes: float, checkpoint: float, device: str, seed: int, say
) -> None:
    """Train for `minutes` in all, counted over restarts. Writes `work/vae.pt`: {vae, ema, optimizer, seconds, step}, every
    `checkpoint` seconds."""
    path = work / "vae.pt"
    state = torch.load(path, map_location="cpu") if path.exists() else None
    rng = np.random.default_rng(seed + (state["step"] if state else 0))
    torch.manual_seed(seed + (state["step"] if state else 0))
    vae = build_vae()
    if state:
        vae.load_state_dict(state["vae"])
    else:
        start_linear(vae, train, rng)
    vae.to(device)
    ema = copy.deepcopy(vae).requires_grad_(False)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    seconds, step = 0.0, 0
    if state:
        ema.load_state_dict(state["ema"])
        if state["optimizer"]:
            optimizer.load_state_dict(state["optimizer"])
        seconds, step = state["seconds"], state["step"]
    else:
        say(f"autoencoder: linear start, held-out PSNR {held_out_psnr(vae, held, device):.2f} dB")
    saved = last = time.monotonic()
    while seconds < minutes * 60:
        progress = seconds / (minutes * 60)
        rate = LEARNING_RATE * min(1, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = vae_batch(train, rng).to(device)
        loss = vae_loss(vae, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        decay = min(0.997, step / (step + 10))
        with torch.no_grad():
            for kept, now in zip(ema.parameters(), vae.parameters(), strict=True):
                kept.lerp_(now, 1 - decay)
        now = time.monotonic()
        # A step that took over a minute was paused from outside; that is not training time.
        seconds, last = seconds + min(now - last, 60.0), now
        if now - saved > checkpoint or seconds >= minutes * 60:
            state = {"vae": vae.state_dict(), "ema": ema.state_dict(), "optimizer": optimizer.state_dict()}
            save(path, {**state, "seconds": seconds, "step": step})
            left = minutes - seconds / 60
            psnr = held_out_psnr(ema, held, device)
            say(f"autoencoder: step {step}, loss {loss.item():.4f}, held-out {psnr:.2f} dB, {left:.1f} min left")
            saved = last = time.monotonic()


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
        crop = random_crop(photo.pixels, CROP_PX, 0.4, 1.25, rng)
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


def save(path: Path, state: dict) -> None:
    """Write whole or not at all: a kill in the middle must not cost the last checkpoint."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)
