"""Tiny models of the real diffusers classes with random weights, and what tests of editors ask of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffgen.models.load_network import quiet
from diffgen.types import Job, Settings

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def write_tokenizer(folder: Path, limit: int = 16) -> Any:
    """A byte-level CLIP tokenizer without merges: every letter is a token."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=limit)


def write_t5_tokenizer(limit: int = 16) -> Any:
    """A Unigram tokenizer: every letter is a token."""
    from transformers import T5TokenizerFast

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters = [(chr(code), -2.0) for code in (0x2581, *range(33, 127))]
    return T5TokenizerFast(vocab=[*special, *letters], extra_ids=0, model_max_length=limit)


def t5(width: int = 16) -> Any:
    import transformers

    config = transformers.T5Config(
        vocab_size=100, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0, eos_token_id=1
    )
    return transformers.T5EncoderModel(config).eval()


def qwen_tokenizer(limit: int = 16, special: tuple[str, ...] = ()) -> Any:
    """A byte-level BPE tokenizer without merges: every letter is a token. The template adds nothing."""
    from transformers import Qwen2TokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    words = [*bytes_to_unicode().values(), "<|endoftext|>", *special]
    made = Qwen2TokenizerFast(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=limit)
    made.add_tokens(list(special), special_tokens=True)
    made.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    return made


VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|im_start|>", "<|im_end|>")


def qwen_vl() -> dict[str, Any]:
    """A language model that sees, its tokenizer, and the processor that cuts pictures for it."""
    import transformers

    tokenizer = qwen_tokenizer(4096, VISION)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in zip("sevu", VISION, strict=False)}
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 264,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_parameters": {"mrope_section": [1, 1, 2], "rope_type": "default", "rope_theta": 1e6},
        },
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16},
        vision_start_token_id=ids["s"],
        vision_end_token_id=ids["e"],
        image_token_id=ids["v"],
        video_token_id=ids["u"],
    )
    return {
        "text_encoder": transformers.Qwen2_5_VLForConditionalGeneration(config).eval(),
        "tokenizer": tokenizer,
        "processor": transformers.Qwen2VLProcessor(
            image_processor=transformers.Qwen2VLImageProcessor(
                size={"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
            ),
            tokenizer=tokenizer,
            video_processor=transformers.Qwen2VLVideoProcessor(),
        ),
    }


def qwen3(cls: str, layers: int = 2, width: int = 16) -> Any:
    import transformers

    config = transformers.Qwen3Config(
        vocab_size=260,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        bos_token_id=256,
        eos_token_id=256,
        pad_token_id=256,
    )
    return getattr(transformers, cls)(config).eval()


def flux_transformer(guidance_embeds: bool = True) -> Any:
    """Packed: 2 × 2 patches of 4 channels."""
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 4, 8),
    )


def flux_parts(folder: Path, guidance_embeds: bool = True) -> dict[str, Any]:
    import diffusers

    return {
        "vae": kl(shift_factor=0.1, scaling_factor=0.4),
        "transformer": flux_transformer(guidance_embeds),
        "text_encoder": text_encoder("CLIPTextModel"),
        "text_encoder_2": t5(),
        "tokenizer": write_tokenizer(folder / "tokenizer"),
        "tokenizer_2": write_t5_tokenizer(),
        # dev bends its schedule by the size of the picture
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=guidance_embeds),
    }


# How authors call the two factors of a LoRA, and where their names begin: diffusers, kohya, and what is trained on Qwen-Image.
LORA_NAMES = {
    "diffusers": ("{part}.{name}.lora_A.weight", "{part}.{name}.lora_B.weight", None),
    "kohya": ("lora_unet_{flat}.lora_down.weight", "lora_unet_{flat}.lora_up.weight", "lora_unet_{flat}.alpha"),
    "bare": ("{name}.lora_down.weight", "{name}.lora_up.weight", "{name}.alpha"),
}


def write_lora(file: Path, part: str, model: Any, rank: int = 2, wider: int = 0, names: str = "diffusers") -> Path:
    """A LoRA of every query projection, named as in LORA_NAMES."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(7)
    tensors = {}
    for name, module in model.named_modules():
        if name.endswith("to_q"):
            down, up, alpha = LORA_NAMES[names]
            words = {"part": part, "name": name, "flat": name.replace(".", "_")}
            tensors[down.format(**words)] = torch.randn(rank, module.in_features + wider)
            tensors[up.format(**words)] = torch.randn(module.out_features, rank)
            if alpha:
                tensors[alpha.format(**words)] = torch.tensor(float(rank))
    save_file(tensors, file, metadata={"format": "pt"})
    return file


def denoiser(editor: Any) -> Any:
    """The model that a pipeline runs at each step."""
    pipe = editor._pipe
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


def text_encoder(cls: str, width: int = 16) -> Any:
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=514,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=16,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    return getattr(transformers, cls)(config).eval()


def kl(**config: Any) -> Any:
    """AutoencoderKL dividing by 8."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        sample_size=64,
        **{"latent_channels": 4, **config},
    )


def unet(channels: int, out: int = 4, **config: Any) -> Any:
    from diffusers import UNet2DConditionModel

    settings: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": channels,
        "out_channels": out,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**(settings | config))


def saved(tmp: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> Path:
    import torch

    torch.manual_seed(0)
    folder = tmp.mktemp(name)
    with quiet():
        make(folder).save_pretrained(folder / "model")
    return folder / "model"


def xl_parts(folder: Path, channels: int) -> dict[str, Any]:
    import diffusers

    addition = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    return {
        "vae": kl(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[0.9, 1.1, 1.2, 1.0], scaling_factor=0.13025),
        "unet": unet(channels, cross_attention_dim=32, projection_class_embeddings_input_dim=6 * 8 + 16, **addition),
        "text_encoder": text_encoder("CLIPTextModel"),
        "text_encoder_2": text_encoder("CLIPTextModelWithProjection"),
        "tokenizer": write_tokenizer(folder / "tokenizer"),
        "tokenizer_2": write_tokenizer(folder / "tokenizer_2"),
        "scheduler": diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **NOISE),
        "add_watermarker": False,
    }


def settings(editor: str, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "editor": editor,
        "model": "test",
        "condition": "snow",
        "strength": 0.5,
        "steps": 2,
        "guidance": 1.0,
        "long_side": 64,
        "multiple": 8,
        "image_format": "png",
        "quality": None,
    }
    return Settings(**(values | changes))


def job(wanted: Settings, seed: int = 1, prompt: str = "snow", negative: str | None = None) -> Job:
    return Job(source="s", settings=wanted, prompt=prompt, negative_prompt=negative, seed=seed)


def stock_edit(pipeline: Any, image: np.ndarray, steps: int, strength: float, **inputs: Any) -> np.ndarray:
    """What a stock pipeline makes of an image, times 255, with Euler, guidance 5, seed 4, "snow" and without "sun".

    It takes the VAE's mode in place of a sample, as our editors do.
    """
    import diffusers
    import torch

    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="trailing"
    )
    posterior = diffusers.models.autoencoders.vae.DiagonalGaussianDistribution
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(posterior, "sample", lambda self, generator=None: self.mode())
        made = pipeline(
            prompt="snow",
            negative_prompt="sun",
            image=torch.from_numpy(image).permute(2, 0, 1)[None] / 255,
            generator=torch.Generator().manual_seed(4),
            num_inference_steps=steps,
            strength=strength,
            guidance_scale=5.0,
            output_type="np",
            **inputs,
        )
    return np.asarray(made.images[0] * 255)


def picture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A photograph of sorts: smooth colours and some grain."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(30, 225, (3, 3, 3))
    ys, xs = np.linspace(0, 2, height), np.linspace(0, 2, width)
    smooth = sum(
        np.clip(1 - abs(ys - i), 0, 1)[:, None, None] * np.clip(1 - abs(xs - j), 0, 1)[None, :, None] * coarse[i, j]
        for i in range(3)
        for j in range(3)
    )
    return np.clip(smooth + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)


class Calls:
    """Counts the calls of a module's method and the rows of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.rows: list[int] = []
        inner = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            first = args[0] if args else next(kwargs[key] for key in ("hidden_states", "input_ids") if key in kwargs)
            self.rows.append(len(first))
            return inner(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)


def as_original(folder: Path, file: Path) -> None:
    """The weights of a tiny Stable Diffusion folder as one file in the layout of the original checkpoints."""
    from safetensors.torch import load_file, save_file

    def part(name: str) -> dict[str, Any]:
        return load_file(next((folder / name).glob("*.safetensors")))

    whole = {f"cond_stage_model.transformer.{_clip(k)}": v for k, v in part("text_encoder").items()}
    whole |= {f"model.diffusion_model.{_unet_key(k)}": v for k, v in part("unet").items()}
    whole |= {f"first_stage_model.{_vae_key(k)}": _as_conv(k, v) for k, v in part("vae").items()}
    save_file({name: tensor.contiguous() for name, tensor in whole.items()}, file)


def _clip(key: str) -> str:
    return key if key.startswith("text_model.") else f"text_model.{key}"


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _swap(key: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        key = key.replace(f".{ours}.", f".{theirs}.")
    return key


def _unet_key(key: str) -> str:
    """For two levels of one layer each: input blocks conv, res, down, res+attention; output blocks 4."""
    first, _, rest = key.partition(".")
    top = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    if first in top:
        return f"{top[first]}.{rest}"
    if first == "time_embedding":
        return f"time_embed.{0 if 'linear_1' in rest else 2}.{rest.split('.')[1]}"
    words = key.split(".")
    level, kind, index, tail = words[1], words[2], words[3], ".".join(words[4:])
    if first == "mid_block":
        place = {"resnets0": "0", "attentions0": "1", "resnets1": "2"}[words[1] + words[2]]
        name = f"middle_block.{place}.{'.'.join(words[3:])}"
        return _resnet_names(name, words[1])
    if first == "down_blocks":
        block = 1 + 2 * int(level) + (kind == "downsamplers")
        name = f"input_blocks.{block}.{int(kind == 'attentions')}.{tail}"
        return _resnet_names(name.replace(".conv.", ".op.") if kind == "downsamplers" else name, kind)
    assert first == "up_blocks"
    block = 2 * int(level) + (1 if kind == "upsamplers" else int(index))
    slot = {"resnets": 0, "attentions": 1, "upsamplers": 2 if level == "0" else 1}[kind]
    return _resnet_names(f"output_blocks.{block}.{slot}.{tail}", kind)


def _resnet_names(key: str, kind: str) -> str:
    return _swap(key, _RESNET) if kind == "resnets" else key


def _vae_key(key: str) -> str:
    names = {
        "conv_norm_out": "norm_out",
        "conv_shortcut": "nin_shortcut",
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
    }
    key = _swap(key, names).replace("to_out.0", "proj_out")
    key = key.replace("mid_block.attentions.0", "mid.attn_1")
    for i in range(2):
        key = key.replace(f"mid_block.resnets.{i}", f"mid.block_{i + 1}")
    for i in range(4):
        key = key.replace(f"down_blocks.{i}.resnets", f"down.{i}.block")
        key = key.replace(f"down_blocks.{i}.downsamplers.0", f"down.{i}.downsample")
        key = key.replace(f"up_blocks.{i}.resnets", f"up.{3 - i}.block")
        key = key.replace(f"up_blocks.{i}.upsamplers.0", f"up.{3 - i}.upsample")
    return key


def _as_conv(key: str, tensor: Any) -> Any:
    """The original's attention of the VAE is made of 1 × 1 convolutions."""
    attention = "mid_block.attentions" in key and key.endswith("weight") and tensor.ndim == 2
    return tensor[:, :, None, None] if attention else tensor
