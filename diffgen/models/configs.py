"""What the config files of a model tell: pipeline class, sizes, scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffgen.errors import DiffgenError, UsageError
from diffgen.models import hub
from diffgen.models.pipelines import SPECS, PipelineSpec


def sizes_of_folder(folder: Path, facts: dict[str, Any]) -> dict[str, int]:
    """`native` and `multiple` from the configs.

    `multiple` is what the VAE divides by. The UNet divides further, but UNet2DConditionModel brings its upward path to the
    size of each skip connection by itself; a model that wants rounder sides says so in its diffgen.json. Transformers take
    patches of 2 × 2 latents.
    """
    if "native" in facts and "multiple" in facts:
        return {}
    vae = hub.read_json(folder / "vae" / "config.json")
    transformer = folder / "transformer"
    model = hub.read_json((transformer if transformer.is_dir() else folder / "unet") / "config.json")
    # AutoencoderTiny: the first block keeps the size, each further one halves it. AutoencoderKL: all but the last halve.
    # AutoencoderKLQwenImage lists what halves, after the first.
    levels = vae.get("num_encoder_blocks") or vae.get("block_out_channels")
    if isinstance(halves := vae.get("temperal_downsample"), list):
        levels = [False, *halves]
    own = model.get("sample_size")
    size = own or facts.get("native")
    side = max(size, default=0) if isinstance(size, list) and all(type(n) is int for n in size) else size
    if not isinstance(levels, list) or len(levels) > 8 or type(side) is not int or side < 1:
        raise DiffgenError(
            f"{folder}: its configs do not tell the sizes it works at",
            "give `model: {…, native: PIXELS, multiple: PIXELS}`",
        )
    factor = 2 ** (len(levels) - 1)
    found = {"multiple": factor * 2 if transformer.is_dir() else factor}
    return {**found, "native": side * factor} if own else found


def scheduler_of_folder(folder: Path) -> dict[str, str]:
    """LCM's scheduler makes short schedules, which a plan has to know."""
    config = folder / "scheduler" / "scheduler_config.json"
    own = hub.read_json(config).get("_class_name") if config.is_file() else None
    return {"scheduler": "lcm"} if own == "LCMScheduler" else {}


def class_of_folder(folder: Path) -> str:
    name = hub.read_json(folder / "model_index.json").get("_class_name")
    if not isinstance(name, str):
        raise DiffgenError(f"{folder}/model_index.json names no pipeline class", "copy or download the model again")
    return name


def editor_of_class(cls: str, place: Path) -> str:
    """The family that edits with a pipeline class. Raises UsageError for a class that is not in the table."""
    if cls not in SPECS:
        raise UsageError(
            f"model: diffgen knows no editor for {cls} ({place})", "add `editor:` to the recipe if one fits"
        )
    return SPECS[cls].family


def class_defaults(cls: str) -> dict[str, Any]:
    """The facts that models of a pipeline class have in common, where the table gives any."""
    return SPECS[cls].defaults if cls in SPECS else {}


def spec_of_file(file: Path) -> PipelineSpec:
    """The pipeline class of a single-file checkpoint in the original layout, from its tensor names and shapes.

    Its `single_file` is set. Raises UsageError for a checkpoint of another kind.
    """
    shapes = hub.tensors(file)
    first = shapes.get("model.diffusion_model.input_blocks.0.0.weight", ())
    channels = first[1] if len(first) == 4 else None
    two_encoders = any(key.startswith("conditioner.embedders.") for key in shapes)
    for spec in SPECS.values():
        known = spec.single_file
        if known is not None and (known.channels, known.two_encoders) == (channels, two_encoders):
            return spec
    raise UsageError(
        f"model: {file} is not a Stable Diffusion checkpoint that diffgen knows",
        "give its configs: `model: {file: …, config: FOLDER}`",
    )
