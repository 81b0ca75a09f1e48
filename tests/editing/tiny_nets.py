"""Tiny ControlNets, depth and segmentation models, open-vocabulary detectors with random weights, as folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffgen.models.load_network import quiet
from tests.editing.tiny_models import write_tokenizer

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
    import torch

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
    import torch
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


def write_open_detector(folder: Path, kind: str) -> Path:
    """ "owlv2" or "dino": they find something of every class everywhere."""
    import torch
    import transformers

    torch.manual_seed(1)
    if kind == "owlv2":
        tokenizer: Any = write_tokenizer(folder / "words", limit=24)
        text = {
            "vocab_size": 514, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 24, "pad_token_id": 513, "bos_token_id": 512,
            "eos_token_id": 513,
        }  # fmt: skip
        vision = {
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8,
        }  # fmt: skip
        config: Any = transformers.Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)
        model: Any = transformers.Owlv2ForObjectDetection(config)
        for parameter in [*model.class_head.parameters(), *model.box_head.parameters()]:
            parameter.data *= 0.3  # else all boxes are a hair's breadth, and surely there
        looks = transformers.Owlv2ImageProcessor(size={"height": 32, "width": 32})
        processor: Any = transformers.Owlv2Processor(looks, tokenizer)
    else:
        text = transformers.BertConfig(
            vocab_size=1100, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
        backbone = transformers.SwinConfig(
            image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4,
            out_indices=[2, 3, 4],
        )  # fmt: skip
        config = transformers.GroundingDinoConfig(
            backbone_config=backbone, text_config=text, num_queries=12, d_model=32, encoder_layers=1,
            encoder_ffn_dim=16, encoder_attention_heads=2, decoder_layers=2, decoder_ffn_dim=16,
            decoder_attention_heads=2, max_text_len=64,
        )  # fmt: skip
        model = transformers.GroundingDinoForObjectDetection(config)
        looks = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 128, "longest_edge": 192})
        processor = transformers.GroundingDinoProcessor(looks, _bert_tokenizer(folder / "words"))
    with quiet():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def _bert_tokenizer(folder: Path) -> Any:
    """Every letter is a token; what Grounding DINO knows by number stands where it does in BERT's vocabulary."""
    from transformers import BertTokenizer

    words = [f"[unused{i}]" for i in range(1100)]
    fixed = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
    letters = "abcdefghijklmnopqrstuvwxyz"
    fixed |= {letter: 200 + i for i, letter in enumerate(letters)}
    fixed |= {f"##{letter}": 300 + i for i, letter in enumerate(letters)}
    for word, i in fixed.items():
        words[i] = word
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(words))
    return BertTokenizer.from_pretrained(folder)
