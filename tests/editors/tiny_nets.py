"""Tiny ControlNets, depth and segmentation models with random weights, as folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from diffgen.editors.loading import quiet

_SHAPE: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
    "conditioning_embedding_out_channels": (4, 4, 8, 8),
}
_XL: dict[str, Any] = {
    "cross_attention_dim": 32,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 16,
}
_UNION: dict[str, Any] = {"num_trans_channel": 8, "num_trans_head": 2, "num_proj_channel": 8}


def write_net(folder: Path, base: str, seed: int) -> Path:
    """A ControlNet for a tiny "sd" or "sdxl", or a "union" one for the latter, whose residuals are not nought as in fresh ones."""
    import diffusers

    torch.manual_seed(seed)
    with quiet():
        if base == "union":
            net = diffusers.ControlNetUnionModel(**(_SHAPE | _XL | _UNION))
        else:
            net = diffusers.ControlNetModel(**(_SHAPE | (_XL if base == "sdxl" else {})))
        for parameter in net.parameters():
            if parameter.abs().max() == 0:
                torch.nn.init.normal_(parameter, std=0.2)
        net.save_pretrained(folder)
    return folder


def write_estimator(folder: Path, kind: str) -> Path:
    """ "dpt" gives nearness, "glpn" metres, "segformer" the classes of ADE20K, "cityscapes" nineteen others."""
    import transformers

    torch.manual_seed(0)
    four = [8] * 4
    small: dict[str, Any] = {
        "depths": [1] * 4, "hidden_sizes": four, "decoder_hidden_size": 8, "num_attention_heads": [1] * 4
    }  # fmt: skip
    if kind == "dpt":
        config = transformers.DPTConfig(
            hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
            backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=four, fusion_hidden_size=8,
        )  # fmt: skip
        model: Any = transformers.DPTForDepthEstimation(config)
        processor: Any = transformers.DPTImageProcessor(size={"height": 32, "width": 32})
    elif kind == "glpn":
        model, processor = transformers.GLPNForDepthEstimation(transformers.GLPNConfig(**small)), None
        processor = transformers.GLPNImageProcessor()
    else:
        labels = 150 if kind == "segformer" else 19
        model = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**small, num_labels=labels))
        processor = transformers.SegformerImageProcessor(size={"height": 64, "width": 64})
    with quiet():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder
