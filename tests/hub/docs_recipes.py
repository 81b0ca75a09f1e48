"""The whole recipes in docs/models.md, and the world that they are written for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from tests.fakes import make_dataset, put

PAGE = (Path(__file__).resolve().parents[2] / "docs/models.md").read_text("utf-8")


def recipes() -> dict[str, dict[str, Any]]:
    """By the name of their run folder; the other YAML blocks are parts of recipes."""
    blocks = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    whole = [block for block in blocks if "conditions" in block]
    assert len(whole) >= 10
    return {Path(block["output"]).name: block for block in whole}


def write_world(name: str, root: Path, **changes: Any) -> Path:
    """The recipe as a file, with the dataset and the LoRA that it names beside it."""
    make_dataset(root / "datasets/street", counts=(2, 1))
    recipe = {**recipes()[name], **changes}
    for lora in recipe.get("loras", ()):
        if "file" in lora:
            path = root / "recipes" / lora["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"unet.conv.lora_A.weight": np.zeros((2, 2), np.float32)}, path)
    return put(root / "recipes/recipe.yaml", yaml.safe_dump(recipe))
