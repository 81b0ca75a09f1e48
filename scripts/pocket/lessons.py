"""The denoiser in training, and its two alternating lessons: painting a condition, and predicting what the scene shows."""

from __future__ import annotations

import copy
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTokenizer

from scripts.pocket.conditions import LIT, SHARES
from scripts.pocket.lamps import SHOWN
from scripts.pocket.marks import LIGHTS
from scripts.pocket.model import TEXT_WIDTH, UNET_WIDTHS, build_scheduler, build_unet
from scripts.pocket.pairs import SCENE, SEEN, PairPool
from scripts.pocket.prompts import build_text_encoder, draw_prompt

BATCH = 16
NEW_PAIRS = 3  # a batch; each is used about five times
SEEING = 0.4  # weight of predicting sky, depth, ground and plants
FEW = 20  # cells: a kind of light with fewer cells than about this in a batch gets less weight
NONE = 5  # weight of all cells without a light against all with one: a false light is painted as a blot
FINDING = 0.5  # weight of finding lamps and windows
TURNS = 2  # one step in TURNS paints, the others predict what is where in fresh crops
SEEN_BLOCKS = 2  # up blocks of the UNet, after which the scene is read
LAST_STEPS = (499, 749, 249, 499)  # timesteps of 2- and 4-step sampling, beside the first one


class Denoiser(nn.Module):
    """UNet and text encoder as one module, so that one average and one checkpoint hold both. For training alone it also
    reads from the UNet's features what the scene shows, at SEEN_PX px a cell."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text = build_text_encoder(tokenizer, TEXT_WIDTH)
        self.unet = build_unet()
        self.unet.up_blocks[SEEN_BLOCKS - 1].register_forward_hook(self._keep)
        self.seen = nn.Conv2d(UNET_WIDTHS[2], len(SEEN), 1)

    def _keep(self, _block: nn.Module, _inputs: tuple[torch.Tensor, ...], features: torch.Tensor) -> None:
        self.features = features

    def forward(
        self, noisy: torch.Tensor, source: torch.Tensor, time: torch.Tensor, ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 16, h, w) noisy scaled latents and unscaled source latents -> scaled latents of the answer, and logits of
        SEEN (B, 8, h/2, w/2)."""
        answer = self._run(self.unet, noisy, source, time, ids)
        seen = self.seen(self.features)
        del self.features  # or a step's whole graph would stay
        return answer, seen

    def look(self, noisy: torch.Tensor, source: torch.Tensor, time: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """The logits of SEEN alone, for half the time: from a UNet that ends where they are read."""
        seen = self._run(self._lower(), noisy, source, time, ids)
        del self.features
        return seen

    def _run(
        self, unet: nn.Module, noisy: torch.Tensor, source: torch.Tensor, time: torch.Tensor, ids: torch.Tensor
    ) -> torch.Tensor:
        return unet(torch.cat((noisy, source), 1), time, encoder_hidden_states=self.text(ids)[0]).sample

    def _lower(self) -> nn.Module:
        """The UNet up to where the scene is read, with the same weights. Made for each call: as a part of this module it
        would hold its weights twice."""
        lower = copy.copy(self.unet)
        lower._modules = dict(self.unet._modules)
        lower.up_blocks = self.unet.up_blocks[:SEEN_BLOCKS]
        lower.conv_norm_out, lower.conv_out = None, self.seen
        return lower


def misread(seen: torch.Tensor, shown: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of the logits (B, 8, h, w) of SEEN, of the scene's parts and of the lights. Only one
    cell in a hundred has a light: together they weigh a fifth of those without, because with equal weights predicting none
    would be nearly right."""
    each = F.binary_cross_entropy_with_logits(seen, shown, reduction="none")
    scene, lights = each.split([len(SCENE), len(LIGHTS)], 1)
    there = shown[:, len(SCENE) :]
    with_light = (lights * there).sum((0, 2, 3)) / (there.sum((0, 2, 3)) + FEW)
    without = (lights * (1 - there)).mean((0, 2, 3))
    return scene.mean(), (with_light + NONE * without).mean()


def doubted(seen: torch.Tensor) -> torch.Tensor:
    """How likely a light is at each place, 0..1 (B, 1, h, w), from the logits (B, 8, h/2, w/2) of SEEN.

    Where the model suspects a light, false positives have to weigh like misses; otherwise a 20 % chance is already painted
    as a blot. The logits overrate lights (`misread`), so no real doubt is left out.
    """
    lights = seen[:, len(SCENE) :].detach().float().sigmoid().amax(1, keepdim=True)
    return F.interpolate(F.max_pool2d(lights, 3, 1, 1), scale_factor=2, mode="bilinear")


@dataclass
class Lessons:
    """`paint` and `look` return a loss; `losses` collects them by what was learned, until somebody empties it.

    `scaling`: of the latents; `weight` (16,): of their channels. `keep`: the model whose answer is the target for
    conditions that are not taught ("learning without forgetting", Li and Hoiem, ECCV 2016).
    """

    model: Denoiser
    vae: AutoencoderTiny
    pool: PairPool
    tokenizer: CLIPTokenizer
    presets: dict[str, list[str]]
    scaling: float
    weight: torch.Tensor
    bfloat16: bool
    keep: Denoiser | None = None
    losses: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    alphas: torch.Tensor = field(default_factory=lambda: build_scheduler().alphas_cumprod)

    def paint(self, rng: np.random.Generator) -> torch.Tensor:
        """Paint a batch of pairs, and predict the scenes that they show."""
        for _ in range(NEW_PAIRS):
            self.pool.add(rng)
        pairs = self.pool.batch(BATCH, rng)

        def all_of(name: str) -> torch.Tensor:
            return torch.stack([getattr(pair, name) for pair in pairs]).float().to(self.device)

        source, target, mask, fixed = (all_of(name) for name in ("source", "target", "mask", "noise"))
        target = target * self.scaling
        noise = torch.cat((fixed, torch.randn_like(target[:, fixed.shape[1] :])), 1)
        times = torch.tensor([LAST_STEPS[rng.integers(4)] if rng.random() < 0.2 else 999 for _ in pairs])
        alpha = self.alphas[times][:, None, None, None].to(self.device)
        ids = self._ids([draw_prompt(pair.condition, pair.severity, self.presets, rng) for pair in pairs])
        kept = [i for i, pair in enumerate(pairs) if self.pool.kept(pair.condition)]
        with self._attention(), self._precision():
            if self.keep and kept:
                first = torch.full((len(kept),), 999, device=self.device)
                with torch.no_grad():
                    target[kept] = self.keep(noise[kept], source[kept], first, ids[kept])[0].float()
            noisy = alpha.sqrt() * target + (1 - alpha).sqrt() * noise
            answer, seen = self.model(noisy, source, times.to(self.device), ids)
        lit = torch.tensor([pair.condition in LIT for pair in pairs])[:, None, None, None].to(self.device)
        mask = torch.maximum(mask, lit * SHOWN * doubted(seen))
        error = answer.float() - target
        # With the absolute error alone nothing is painted where a light is less likely than not; the square paints the mean.
        each = (error.abs() + (0.5 + 4 * mask**4) * error.square()) * (1 + 6 * mask)
        each = (each * self.weight.to(self.device)[:, None, None]).mean((1, 2, 3))
        for pair, value in zip(pairs, each.tolist(), strict=True):
            self.losses[pair.condition if pair.severity else "same"].append(value)
        return each.mean() + self._misread(seen, all_of("maps"), "")

    def look(self, rng: np.random.Generator) -> torch.Tensor:
        """Predict what fresh crops show; the texts are random, because the answer does not depend on them."""
        pictures, shown = self.pool.scenes(rng)
        names = list(SHARES)
        texts = [draw_prompt(str(rng.choice(names)), 65, self.presets, rng) for _ in pictures]
        with torch.no_grad(), self._precision():
            source = self.vae.encoder(pictures.to(self.device) * 2 - 1)
        times = torch.full((len(pictures),), 999, device=self.device)
        with self._attention(), self._precision():
            seen = self.model.look(torch.randn_like(source), source, times, self._ids(texts))
        return self._misread(seen, shown.to(self.device), " fresh")

    def _misread(self, seen: torch.Tensor, shown: torch.Tensor, kind: str) -> torch.Tensor:
        scene, lights = misread(seen.float(), shown)
        self.losses[f"(scene{kind})"].append(scene.item())
        self.losses[f"(lights{kind})"].append(lights.item())
        return SEEING * scene + FINDING * lights

    @property
    def device(self) -> torch.device:
        return self.vae.device

    def _ids(self, texts: list[str]) -> torch.Tensor:
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
        return tokens.input_ids.to(self.device)

    def _attention(self) -> AbstractContextManager[object]:
        # On CPUs the fused kernel makes a step a fifth slower, for 8 heads of 20 channels.
        return sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)
