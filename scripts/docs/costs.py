"""What one pass of each architecture costs, counted without weights: python -m scripts.docs.costs writes costs.json.

The estimates of docs/models.md are made of it: passes a picture × FLOPs a pass ÷ half of the GPU's half-precision peak, one
picture at a time. FLUX.1 dev reaches that half on an H100: 12.3 s for 50 steps at 1024² (eager bfloat16, published with
onnxruntime #22986), 13 s by this count. U-Nets are counted operation by operation, transformers as 2 FLOPs for each weight
and token and 4 for each pair of tokens, layer and channel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffgen.models.pipelines import SPECS

FILE = Path(__file__).with_name("costs.json")

# Half-precision peaks in TFLOPS, dense, with float32 sums, from the makers' data sheets.
GPUS = {"RTX 4060 (8 GB)": 60, "RTX 4080 (16 GB)": 97, "RTX 4090 (24 GB)": 165, "H100 (80 GB)": 989}
SHARE = 0.5  # of the peak
AROUND = 0.3  # seconds for text encoder and autoencoder

_SDXL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280), "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
    "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"), "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20), "cross_attention_dim": 2048, "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
# Name -> (configs that differ from diffusers' defaults, side of the latents).
UNETS: dict[str, tuple[dict[str, Any], int]] = {
    "sd15": ({"cross_attention_dim": 768, "attention_head_dim": 8}, 64),
    "sd15-edit": ({"cross_attention_dim": 768, "attention_head_dim": 8, "in_channels": 8}, 64),
    "sd21": ({"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}, 96),
    "sdxl": (_SDXL, 128),
}
_SD3: dict[str, Any] = {
    "qk_norm": "rms_norm",
    "pos_embed_max_size": 384,
    "joint_attention_dim": 4096,
    "sample_size": 128,
}
# Name -> (class, configs that differ, layers, channels, tokens of text). 4096 tokens are a picture of 1024².
TRANSFORMERS: dict[str, tuple[str, dict[str, Any], int, int, int]] = {
    "sd3.5-medium": (
        "SD3Transformer2DModel",
        {**_SD3, "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536,
         "dual_attention_layers": tuple(range(13))},
        37, 1536, 333,
    ),
    "sd3.5-large": (
        "SD3Transformer2DModel",
        {**_SD3, "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432},
        38, 2432, 333,
    ),
    "flux": ("FluxTransformer2DModel", {"guidance_embeds": True}, 57, 3072, 512),
    "z-image": ("ZImageTransformer2DModel", {}, 34, 3840, 512),
    "klein": (
        "Flux2Transformer2DModel",
        {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
        25, 3072, 512,
    ),
    "qwen": ("QwenImageTransformer2DModel", {}, 60, 3072, 300),
    "longcat": ("LongCatImageTransformer2DModel", {"num_layers": 10, "num_single_layers": 20}, 30, 3072, 512),
}  # fmt: skip


def count() -> dict[str, float]:
    """TFLOPs of a pass by architecture, at its native size; transformers with the source's tokens ("-edit") too."""
    import diffusers
    import torch

    found: dict[str, float] = {}
    with torch.device("meta"):
        for name, (config, side) in UNETS.items():
            found[name] = _unet_flops(diffusers.UNet2DConditionModel(**config), config, side)
        for name, (cls, config, layers, width, text) in TRANSFORMERS.items():
            weights = sum(parameter.numel() for parameter in getattr(diffusers, cls)(**config).parameters())
            for end, tokens in (("", 4096 + text), ("-edit", 8192 + text)):
                found[name + end] = (2 * weights * tokens + 4 * layers * tokens**2 * width) / 1e12
    return {name: round(flops, 2) for name, flops in found.items()}


def _unet_flops(unet: Any, config: dict[str, Any], side: int) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    latents = torch.empty(1, config.get("in_channels", 4), side, side)
    text = torch.empty(1, 77, config["cross_attention_dim"])
    more = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
    with FlopCounterMode(display=False) as counter:
        unet(latents, torch.empty(1), text, added_cond_kwargs=more if "addition_embed_type" in config else None)
    return float(counter.get_total_flops()) / 1e12


# Alias -> architecture.
ARCHITECTURES = {
    "sd-turbo": "sd21", "sdxl-turbo": "sdxl", "sd15": "sd15", "sd21": "sd21", "sdxl": "sdxl", "sdxl-lightning": "sdxl",
    "instruct-pix2pix": "sd15-edit", "lcm-dreamshaper": "sd15", "sd3.5-medium": "sd3.5-medium",
    "sd3.5-large-turbo": "sd3.5-large", "flux1-dev": "flux", "flux1-dev-turbo": "flux", "flux1-schnell": "flux",
    "z-image-turbo": "z-image", "flux1-kontext-dev": "flux-edit", "flux2-klein": "klein-edit",
    "qwen-image-edit": "qwen-edit", "qwen-image-edit-plus": "qwen-edit", "qwen-image-edit-lightning": "qwen-edit",
    "longcat-image-edit": "longcat-edit", "longcat-image-edit-turbo": "longcat-edit", "sd15-inpaint": "sd15",
    "sdxl-inpaint": "sdxl",
}  # fmt: skip


def passes(entry: Mapping[str, Any]) -> int:
    """How often a model of models.yaml runs for one picture with its defaults."""
    spec, guidance = SPECS[entry["pipeline"]], entry["guidance"]
    if spec.second_pass == "never" or entry.get("scheduler") == "lcm":
        rows = 1
    else:
        rows = 2 if guidance > (0 if spec.second_pass == "above_0" else 1) else 1
    return int(entry["steps"]) * (3 if rows == 2 and spec.adapter == "pix2pix" else rows)


def seconds(architecture: str, passes: float, gpu: str) -> float:
    """Estimated seconds a picture."""
    tflops: float = json.loads(FILE.read_text("utf-8"))[architecture]
    return passes * tflops / (SHARE * GPUS[gpu]) + AROUND


if __name__ == "__main__":
    FILE.write_text(json.dumps(count(), indent=1) + "\n", encoding="utf-8")
