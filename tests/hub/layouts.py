"""Tiny random models in the layouts of real repositories: their parts, file names, halves, shards, and what we must not fetch.

A layout's `index` adds to the model_index.json that diffusers writes; `seen` says where the real one was seen. Where it was not,
the index has every part that the class takes, with weights that would break whoever loads them.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffgen.models.aliases import aliases
from tests.editing.tiny_models import write_lora

NONE = [None, None]
CHECKER = ["stable_diffusion", "StableDiffusionSafetyChecker"]
EXTRACTOR = ["transformers", "CLIPImageProcessor"]
OLD_EXTRACTOR = ["transformers", "CLIPFeatureExtractor"]  # not in today's transformers
ENCODER = ["transformers", "CLIPVisionModelWithProjection"]
EVERY = {"safety_checker": CHECKER, "feature_extractor": EXTRACTOR, "image_encoder": ENCODER}


@dataclass(frozen=True)
class Layout:
    """`tiny` is the fixture with the model; `half` the parts that are there in half precision, `only_half` those without
    another copy; `shards` how many files a part is in; `plain_words` the tokenizers without tokenizer.json; `root` files
    beside model_index.json."""

    tiny: str
    seen: str
    index: dict[str, Any] = field(default_factory=dict)
    half: tuple[str, ...] = ()
    only_half: tuple[str, ...] = ()
    shards: dict[str, int] = field(default_factory=dict)
    plain_words: tuple[str, ...] = ()
    root: tuple[str, ...] = ()


_SD = ("unet", "vae", "text_encoder")
_XL = (*_SD, "text_encoder_2")
_T5 = {"transformer": 3, "text_encoder_2": 2}
_WORDS = ("tokenizer",)
_XL_WORDS = ("tokenizer", "tokenizer_2")
_SD35 = "RevL-Lambda-DevRel/Stable-Diffusion-3.5-Large on GitHub, a copy of the large one"
_QWEN = {"transformer": 5, "text_encoder": 4}

LAYOUTS = {
    "sd-turbo": Layout(
        "sd", "Aryanne/testOrt e61d5d1 on the hub, a copy", dict.fromkeys(EVERY, NONE), _SD, plain_words=_WORDS,
        root=("sd_turbo.safetensors",),
    ),
    "sdxl-turbo": Layout(
        "sdxl", "not seen", {k: v for k, v in EVERY.items() if k != "safety_checker"}, _XL, plain_words=_XL_WORDS,
        root=("sd_xl_turbo_1.0.safetensors", "sd_xl_turbo_1.0_fp16.safetensors"),
    ),
    "sd15": Layout(
        "sd", "HDRJ-One/runwayml-stable-diffusion-v1-5 on GitHub, a copy; later ones name CLIPImageProcessor",
        {"safety_checker": CHECKER, "feature_extractor": OLD_EXTRACTOR, "requires_safety_checker": True}, _SD,
        plain_words=_WORDS, root=("v1-5-pruned.safetensors", "v1-5-pruned.ckpt"),
    ),
    "sd21": Layout(
        "sd", "jack-op11/stable-diffusion-2-1 on GitHub, a copy",
        {"safety_checker": NONE, "feature_extractor": OLD_EXTRACTOR}, _SD, plain_words=_WORDS, root=("v2-1_768-ema-pruned.safetensors",),
    ),
    "sdxl": Layout(
        "sdxl", "its page on the hub", half=_XL, plain_words=_XL_WORDS,
        root=("sd_xl_base_1.0.safetensors", "vae_1_0/diffusion_pytorch_model.safetensors", "unet/model.onnx_data"),
    ),
    "sdxl-lightning": Layout("sdxl", "its page on the hub", half=_XL, plain_words=_XL_WORDS),
    "instruct-pix2pix": Layout(
        "ip2p", "a loaded pipeline, printed in an issue", {**EVERY, "image_encoder": NONE}, _SD, plain_words=_WORDS
    ),
    "lcm-dreamshaper": Layout("lcm", "not seen", EVERY, plain_words=_WORDS, root=("LCM_Dreamshaper_v7_4k.safetensors",)),
    "sd3.5-medium": Layout(
        "sd3", _SD35, half=("text_encoder", "text_encoder_2", "text_encoder_3"),
        shards={"text_encoder_3": 2}, plain_words=_XL_WORDS, root=("sd3.5_medium.safetensors",),
    ),
    "sd3.5-large-turbo": Layout(
        "sd3", _SD35, half=("text_encoder", "text_encoder_2", "text_encoder_3"),
        shards={"text_encoder_3": 2, "transformer": 2}, plain_words=_XL_WORDS,
    ),
    "flux1-dev": Layout(
        "flux", "not seen", {"image_encoder": ENCODER, "feature_extractor": EXTRACTOR}, shards=_T5, plain_words=_WORDS,
        root=("flux1-dev.safetensors", "ae.safetensors"),
    ),
    "flux1-dev-turbo": Layout("flux", "not seen", {"image_encoder": ENCODER, "feature_extractor": EXTRACTOR}, shards=_T5),
    "flux1-schnell": Layout(
        "schnell", "edkamesh/FluX-optimized on GitHub, a copy", shards=_T5, plain_words=_WORDS,
        root=("flux1-schnell.safetensors",),
    ),
    "z-image-turbo": Layout("zimage", "a test of unsloth", shards={"transformer": 2, "text_encoder": 3}),
    "flux1-kontext-dev": Layout(
        "kontext", "not seen", {"image_encoder": ENCODER, "feature_extractor": EXTRACTOR}, shards=_T5, plain_words=_WORDS,
        root=("flux1-kontext-dev.safetensors", "ae.safetensors"),
    ),
    "flux2-klein": Layout(
        "klein", "ModelsLab/FLUX.2-klein-9B on the hub, a copy of the 9B", shards={"text_encoder": 2},
        root=("flux-2-klein-4b.safetensors",),
    ),
    "qwen-image-edit": Layout("qwen_edit", "its page on the hub", shards=_QWEN | {"transformer": 9}, plain_words=_WORDS),
    "qwen-image-edit-plus": Layout("qwen_plus", "its page on the hub", shards=_QWEN, plain_words=_WORDS),
    "qwen-image-edit-lightning": Layout("qwen_plus", "its page on the hub", shards=_QWEN, plain_words=_WORDS),
    "longcat-image-edit": Layout("longcat", "not seen", shards={"text_encoder": 5}, root=("config.json",)),
    "longcat-image-edit-turbo": Layout("longcat", "not seen", shards={"text_encoder": 5}, root=("config.json",)),
    "sd15-inpaint": Layout("sd_inpaint", "not seen", EVERY, ("text_encoder",), ("unet", "vae"), plain_words=_WORDS),
    "sdxl-inpaint": Layout(
        "xl_inpaint", "not seen", {k: v for k, v in EVERY.items() if k != "safety_checker"}, _XL, plain_words=_XL_WORDS
    ),
}  # fmt: skip


# Alias -> (its LoRA's names of tensors, what else is in the repository).
LORAS = {
    "sdxl-lightning": ("kohya", ("sdxl_lightning_8step_lora.safetensors", "sdxl_lightning_4step_unet.safetensors")),
    "flux1-dev-turbo": ("diffusers", ()),
    "qwen-image-edit-lightning": ("bare", ("qwen_image_edit_2511_fp8_e4m3fn_scaled_lightning.safetensors",)),
}


def write_lora_layout(alias: str, tiny: Path, folder: Path) -> Path:
    """The repository of an alias's LoRA, made for the tiny model."""
    import diffusers

    part = "unet" if (tiny / "unet").is_dir() else "transformer"
    cls = json.loads((tiny / "model_index.json").read_text())[part][1]
    names, rest = LORAS[alias]
    folder.mkdir()
    file = aliases()[alias]["loras"][0]["weight_name"]
    write_lora(folder / file, part, getattr(diffusers, cls).from_pretrained(tiny / part), names=names)
    for name in ("README.md", *rest):
        (folder / name).write_bytes(b"not to be fetched")
    return folder


def write_layout(tiny: Path, layout: Layout, folder: Path) -> Path:
    """The tiny model as that repository has it."""
    shutil.copytree(tiny, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | layout.index))
    for name, value in layout.index.items():
        if value != NONE and isinstance(value, list):
            _write_unused(folder / name)
    for part in {*layout.half, *layout.only_half}:
        _halve(folder / part, keep=part not in layout.only_half)
    for part, count in layout.shards.items():
        for file in sorted((folder / part).glob("*.safetensors")):
            _shard(file, count)
    for part in layout.plain_words:
        _plain_words(folder / part)
    for name in (
        "README.md",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        *layout.root,
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not to be fetched")
    return folder


def _write_unused(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "preprocessor_config.json", "model.safetensors", "model.fp16.safetensors"):
        (folder / name).write_bytes(b"not to be fetched")


def _halve(part: Path, keep: bool) -> None:
    from safetensors.torch import load_file, save_file

    for file in list(part.glob("*.safetensors")):
        tensors = {name: tensor.half() for name, tensor in load_file(file).items()}
        save_file(tensors, file.with_name(f"{file.stem}.fp16.safetensors"), {"format": "pt"})
        if not keep:
            file.unlink()


def _shard(file: Path, count: int) -> None:
    """As diffusers and transformers name them, with the index that they read."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    stem, _, variant = file.stem.partition(".")
    dotted = f".{variant}" if variant else ""
    names, where = sorted(tensors), {}
    for i in range(count):
        shard = f"{stem}{dotted}-{i + 1:05d}-of-{count:05d}.safetensors"
        mine = {name: tensors[name] for name in names[i::count]}
        save_file(mine, file.with_name(shard), {"format": "pt"})
        where |= dict.fromkeys(mine, shard)
    total = sum(tensor.nbytes for tensor in tensors.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": where})
    file.with_name(f"{stem}.safetensors.index{dotted}.json").write_text(text)
    file.unlink()


def _plain_words(folder: Path) -> None:
    """vocab.json and merges.txt in the place of tokenizer.json, as in most older repositories."""
    whole = folder / "tokenizer.json"
    model = json.loads(whole.read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    whole.unlink()


# Checks of recipes whose models have random weights, which make no pictures.
ANY = dict.fromkeys(("contrast", "registration", "structure", "effect", "change"))
