"""Training of the denoiser and its text encoder, and the export as a diffusers folder."""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, StableDiffusionInstructPix2PixPipeline
from pocket_marks import LIGHTS
from pocket_model import TEXT_WIDTH, UNET_WIDTHS, build_scheduler, build_unet, build_vae, grown, init_identity
from pocket_muon import Muon
from pocket_pairs import CROP_SIDES, GOING_ON_SIDES, SCENE, SEEN, SHARES, PairPool
from pocket_photos import Photo
from pocket_prompts import build_text_encoder, draw_prompt, preset_texts, train_tokenizer, vocabulary
from pocket_vae import save, vae_batch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTokenizer

BATCH = 16
LEARNING_RATE = 1e-3
SETTLING = 0.25  # of the time, at its end, in which the rate falls; till then it stays, so that more time may be added
GOING_ON = 0.6  # of that, from weights that were trained before
SEEING = 0.2  # weight of telling sky, depth, ground and plants apart
FEW = 20  # cells: fewer than about so many with a light in a batch say less
FINDING = 0.5  # weight of finding lamps and windows
TURNS = 2  # of so many steps one is about pairs, and the others about telling what is where, in fresh crops
NEW_PAIRS = 3  # a step about pairs
LAST_STEPS = (499, 749, 249, 499)  # timesteps of 2- and 4-step sampling, beside the first one

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


def start_from(model: Path, work: Path) -> None:
    """Lay the weights of an exported folder into an empty `work` as if they had just been trained for no time at all."""
    if (work / "unet.pt").exists():
        return
    pipe = StableDiffusionInstructPix2PixPipeline.from_pretrained(model, torch_dtype=torch.float32)
    pipe.tokenizer.save_pretrained(work / "tokenizer")
    vae = pipe.vae.state_dict()
    denoiser = Denoiser(pipe.tokenizer)
    denoiser.text.load_state_dict(pipe.text_encoder.state_dict())
    denoiser.unet.load_state_dict(grown(pipe.unet.state_dict(), denoiser.unet))
    weights = denoiser.state_dict()
    # The denoiser last: it is what tells a start that was cut off from a whole one.
    fresh = {"optimizer": None, "seconds": 0.0, "step": 0}
    save(work / "vae.pt", {"vae": vae, "ema": vae, **fresh})
    scaling = pipe.vae.config.scaling_factor
    save(work / "unet.pt", {"model": weights, "ema": weights, **fresh, "scaling": scaling, "going_on": True})


class OldCheckpoint(Exception):
    """Of a network that is no longer trained."""


def load_checkpoint(path: Path) -> dict:
    """The denoiser's."""
    state = torch.load(path, map_location="cpu")
    if len(state["model"].get("seen.bias", ())) != len(SEEN):
        raise OldCheckpoint(
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
        plain = vae.decoder(latents)
        weights = []
        for k in range(latents.shape[1]):
            moved = latents.clone()
            moved[:, k] += 0.1
            # How much a wrong value in this channel shows; the root gives fine detail more say than the error alone would.
            weights.append((vae.decoder(moved) - plain).abs().mean().sqrt().item())
    weight = torch.tensor(weights)
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    return LatentFacts(scaling, mean, deviation, weight / weight.mean())


class Looked(Exception):
    """The UNet has made of the scene what Denoiser.look wants."""


class Denoiser(nn.Module):
    """UNet and text encoder as one module, so that one average and one checkpoint hold both; and, for training alone, a
    reading of what the UNet has made out of the scene at SEEN_PX px a cell."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text = build_text_encoder(tokenizer, TEXT_WIDTH)
        self.unet = build_unet()
        self.unet.up_blocks[1].register_forward_hook(self._keep)
        self.seen = nn.Conv2d(UNET_WIDTHS[2], len(SEEN), 1)
        self.only_looks = False

    def _keep(self, _block: nn.Module, _inputs: tuple, features: torch.Tensor) -> None:
        self.features = features  # taken at once by forward or look
        if self.only_looks:
            raise Looked

    def forward(
        self, noisy: torch.Tensor, source: torch.Tensor, time: torch.Tensor, ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 16, h, w) noisy scaled latents and unscaled source latents -> scaled latents of the answer, and logits of
        SEEN (B, 8, h/2, w/2)."""
        text = self.text(ids)[0]
        answer = self.unet(torch.cat((noisy, source), 1), time, encoder_hidden_states=text).sample
        seen = self.seen(self.features)
        del self.features  # or a step's whole graph would stay
        return answer, seen

    def look(self, noisy: torch.Tensor, source: torch.Tensor, time: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """The logits of SEEN alone, for half the time: the UNet stops where it has them."""
        self.only_looks = True
        try:
            self.unet(torch.cat((noisy, source), 1), time, encoder_hidden_states=self.text(ids)[0])
        except Looked:
            seen = self.seen(self.features)
        finally:
            self.only_looks = False
        del self.features
        return seen


def misread(seen: torch.Tensor, shown: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of the logits (B, 8, h, w) of SEEN, of the scene's parts and of the lights. A cell in a hundred has a
    light: those with one together weigh as much as those without, or not to see any would be nearly right."""
    each = F.binary_cross_entropy_with_logits(seen, shown, reduction="none")
    scene, lights = each.split([len(SCENE), len(LIGHTS)], 1)
    there = shown[:, len(SCENE) :]
    with_light = (lights * there).sum((0, 2, 3)) / (there.sum((0, 2, 3)) + FEW)
    without = (lights * (1 - there)).mean((0, 2, 3))
    return scene.mean(), (with_light + without).mean()


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
    networks compute in bfloat16 (weights, loss and optimizer stay float32)."""

    minutes: float
    checkpoint: float
    device: str
    bfloat16: bool
    seed: int


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
        train_tokenizer(presets, seed).save_pretrained(work / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    vae = load_vae(work)
    facts = measure(vae, photos, seed)
    weight = facts.weight[:, None, None].to(device)
    model = Denoiser(tokenizer)
    if state:
        model.load_state_dict(state["model"])
        scaling, going_on = state["scaling"], state.get("going_on", False)
    else:
        init_identity(model.unet, facts.scaling, facts.mean, facts.deviation)
        scaling, going_on = facts.scaling, False
    vae.to(device)
    model.to(device)
    ema = copy.deepcopy(model).requires_grad_(False)
    optimizers = build_optimizers(model)
    if state:
        ema.load_state_dict(state["ema"])
        for optimizer, kept in zip(optimizers, state["optimizer"] or (), strict=False):
            optimizer.load_state_dict(kept)
    pool = PairPool(photos, maps, vae, device, GOING_ON_SIDES if going_on else CROP_SIDES)
    say(f"denoiser: starts at step {step}, latent scale {scaling:.3f}")
    # On CPUs the fused kernel is the slower one for 8 heads of 20 channels: a fifth of a step.
    attention = partial(sdpa_kernel, SDPBackend.MATH) if device == "cpu" else nullcontext
    precision = partial(torch.autocast, device, torch.bfloat16, enabled=how.bfloat16)

    def known(texts: list[str]) -> torch.Tensor:
        return tokenizer(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids.to(
            device
        )

    alphas = build_scheduler().alphas_cumprod.to(device)
    losses: dict[str, list[float]] = defaultdict(list)
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
        if step % TURNS:
            images, shown = pool.scenes(rng)
            texts = [draw_prompt(str(rng.choice(list(SHARES))), 65, presets, rng) for _ in images]
            with torch.no_grad(), precision():
                source = vae.encoder(images.to(device) * 2 - 1)
            now = (torch.randn_like(source), source, torch.full((len(images),), 999, device=device), known(texts))
            with attention(), precision():
                seen = model.look(*now)
            painting = 0
        else:
            for _ in range(NEW_PAIRS):  # each is used about five times
                pool.add(rng)
            pairs = pool.batch(BATCH, rng)
            texts = [draw_prompt(p.condition, p.severity, presets, rng) for p in pairs]
            source, target, mask, shown = (
                torch.stack([getattr(p, name) for p in pairs]).float().to(device)
                for name in ("source", "target", "mask", "maps")
            )
            target = target * scaling
            noise = torch.randn_like(target)
            noise[:, : pairs[0].noise.shape[0]] = torch.stack([p.noise for p in pairs]).float().to(device)
            times = torch.tensor(
                [LAST_STEPS[rng.integers(4)] if rng.random() < 0.2 else 999 for _ in pairs], device=device
            )
            alpha = alphas[times][:, None, None, None]
            with attention(), precision():
                answer, seen = model(alpha.sqrt() * target + (1 - alpha).sqrt() * noise, source, times, known(texts))
            error = answer.float() - target
            # The absolute error alone paints nothing where a light is less likely than not; the square its mean.
            each = (error.abs() + (0.5 + 4 * mask**4) * error.square()) * weight * (1 + 6 * mask)
            each = each.mean((1, 2, 3))
            painting = each.mean()
            for pair, value in zip(pairs, each.tolist(), strict=True):
                losses[pair.condition if pair.severity else "same"].append(value)
        scene, lights = misread(seen.float(), shown.to(device))
        model.zero_grad(set_to_none=True)
        (painting + SEEING * scene + FINDING * lights).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        fresh = " fresh" if isinstance(painting, int) else ""
        losses[f"(scene{fresh})"].append(scene.item())
        losses[f"(lights{fresh})"].append(lights.item())
        decay = min(0.998, step / (step + 10))
        with torch.no_grad():
            for kept, now in zip(ema.parameters(), model.parameters(), strict=True):
                kept.lerp_(now, 1 - decay)
        now = time.monotonic()
        # A step that took over 10 s was paused from outside; that is not training time.
        seconds, last = seconds + min(now - last, 10.0), now
        if now - saved > how.checkpoint or seconds >= minutes * 60:
            state = {
                "model": model.state_dict(),
                "ema": ema.state_dict(),
                "optimizer": [o.state_dict() for o in optimizers],
            }
            save(path, {**state, "seconds": seconds, "step": step, "scaling": scaling, "going_on": going_on})
            mean = ", ".join(f"{name} {sum(v) / len(v):.3f}" for name, v in sorted(losses.items()))
            say(f"denoiser: step {step}, {len(pool)} pairs, loss {mean}; {minutes - seconds / 60:.1f} min left")
            losses.clear()
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
