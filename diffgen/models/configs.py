"""Facts from a model's config files: pipeline class, sizes, scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffgen.errors import DiffgenError, UsageError
from diffgen.models import weights
from diffgen.models.pipelines import SPECS, PipelineSpec


def sizes_of_folder(folder: Path, facts: dict[str, Any]) -> dict[str, int]:
    """`native` and `multiple` in pixels, from the config files, unless `facts` has them.

    `multiple` is the VAE's downsampling factor, doubled for transformers, whose patches are 2 × 2 latents. A UNet divides
    further, but UNet2DConditionModel resizes its upward path to each skip connection; a model that needs rounder sides says
    so in its diffgen.json. Raises DiffgenError if the configs do not say.
    """
    if "native" in facts and "multiple" in facts:
        return {}
    vae = weights.read_json(folder / "vae" / "config.json")
    transformer = folder / "transformer"
    model = weights.read_json((transformer if transformer.is_dir() else folder / "unet") / "config.json")
    # Each entry halves the size, except the first (AutoencoderTiny) or the last (AutoencoderKL). AutoencoderKLQwenImage
    # lists the entries after the first.
    levels = vae.get("num_encoder_blocks") or vae.get("block_out_channels")
    if isinstance(halves := vae.get("temperal_downsample"), list):
        levels = [False, *halves]
    sample_size = model.get("sample_size")
    size = sample_size or facts.get("native")
    side = max(size, default=0) if isinstance(size, list) and all(type(n) is int for n in size) else size
    if not isinstance(levels, list) or len(levels) > 8 or type(side) is not int or side < 1:
        raise DiffgenError(
            f"{folder}: its config files do not state the image sizes that it works at",
            "give `model: {…, native: PIXELS, multiple: PIXELS}`",
        )
    factor = 2 ** (len(levels) - 1)
    sizes = {"multiple": factor * 2 if transformer.is_dir() else factor}
    return {**sizes, "native": side * factor} if sample_size else sizes


def scheduler_of_folder(folder: Path) -> dict[str, str]:
    """`scheduler`, if it is LCM's, whose short schedules a plan must know."""
    config = folder / "scheduler" / "scheduler_config.json"
    name = weights.read_json(config).get("_class_name") if config.is_file() else None
    return {"scheduler": "lcm"} if name == "LCMScheduler" else {}


def class_of_folder(folder: Path) -> str:
    """The pipeline class that model_index.json names. Raises DiffgenError if it names none."""
    name = weights.read_json(folder / "model_index.json").get("_class_name")
    if not isinstance(name, str):
        raise DiffgenError(f"{folder}/model_index.json names no pipeline class", "copy or download the model again")
    return name


def editor_of_class(cls: str, folder: Path) -> str:
    """The family that edits with a pipeline class. Raises UsageError for a class that is not in SPECS."""
    if cls not in SPECS:
        raise UsageError(
            f"model: diffgen has no editor for {cls} ({folder})", "add `editor:` to the recipe if one fits"
        )
    return SPECS[cls].family


def class_defaults(cls: str, folder: Path) -> dict[str, Any]:
    """The default facts of the model in a folder, which is of the pipeline class `cls`."""
    return SPECS[cls].defaults_of(weights.read_json(folder / "model_index.json")) if cls in SPECS else {}


def check_parts_of_file(file: Path) -> None:
    """Raises UsageError if a single file in the original layout lacks the VAE or the text encoder, as many do."""
    names = weights.tensors(file)
    has = {part: any(name.startswith(prefixes) for name in names) for part, prefixes in weights.ORIGINAL_PARTS.items()}
    if has["unet"] and not all(has.values()):
        lacking = " and ".join(part for part, here in has.items() if not here)
        raise UsageError(
            f"model: {file} has no {lacking.replace('_', ' ')}, only the denoiser",
            "use a checkpoint with all parts, or a folder in diffusers layout",
        )


def spec_of_file(file: Path) -> PipelineSpec:
    """The pipeline class of a single-file checkpoint in the original layout, from its tensor names and shapes.

    The spec's `single_file` is set. Raises UsageError for any other checkpoint.
    """
    shapes = weights.tensors(file)
    first = shapes.get("model.diffusion_model.input_blocks.0.0.weight", ())
    channels = first[1] if len(first) == 4 else None
    two_encoders = any(key.startswith("conditioner.embedders.") for key in shapes)
    for spec in SPECS.values():
        layout = spec.single_file
        if layout is not None and (layout.channels, layout.two_encoders) == (channels, two_encoders):
            return spec
    raise UsageError(
        f"model: {file} is not a Stable Diffusion checkpoint that diffgen knows",
        "give its config files: `model: {file: …, config: FOLDER}`",
    )
