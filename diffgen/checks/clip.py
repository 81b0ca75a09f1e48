"""CLIP as a second opinion on the effect of an edit: pictures and texts in, unit vectors out.

The dot product of two vectors is the CLIP score without its factor (Hessel et al., CLIPScore, EMNLP 2021), −1 to 1. The
score of the edit minus that of its source says whether the edit moved the picture towards the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffgen.dataset.images import Pixels
from diffgen.errors import OutOfMemory, why
from diffgen.models import weights
from diffgen.models.load_network import load_network, load_processor
from diffgen.models.networks import Network

Vectors = NDArray[np.float32]
Planes = NDArray[np.float32]  # (S, S, 3): a picture as the model takes it
# Of OpenAI's training pictures; used for folders without preprocessor_config.json.
_MEAN, _DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
MAX_TEXTS = 1024  # cached text vectors


class Clip:
    def __init__(
        self, model: Any, tokenizer: Any, device: str, mean: Sequence[float], deviation: Sequence[float]
    ) -> None:
        self._model, self._tokenizer, self._device = model, tokenizer, device
        self._side = int(model.config.vision_config.image_size)
        self._length = int(model.config.text_config.max_position_embeddings)
        self._mean, self._deviation = (np.array(three, np.float32) for three in (mean, deviation))
        self._read: dict[str, Vectors] = {}

    def prepare(self, image: Pixels) -> Planes:
        """A picture (H, W, 3) as the model takes it: squeezed to a square, as a crop would cut its sides off."""
        small = Image.fromarray(image).resize((self._side, self._side), Image.Resampling.BICUBIC)
        return np.asarray((np.asarray(small, np.float32) / 255 - self._mean) / self._deviation, dtype=np.float32)

    def look(self, pictures: Sequence[Planes]) -> list[Vectors]:
        """The unit vectors (D,) of pictures that `prepare` has made. Raises OutOfMemory."""
        import torch

        try:
            with torch.inference_mode():
                pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(self._device)
                return _unit(self._model.visual_projection(self._model.vision_model(pixels).pooler_output))
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"CLIP does not fit on the device: {why(error)}") from None

    def read(self, text: str) -> Vectors:
        """The unit vector (D,) of a text, cached. The text is cut at the model's token limit."""
        import torch

        if text not in self._read:
            if len(self._read) >= MAX_TEXTS:
                self._read.clear()
            with torch.inference_mode():
                tokens = self._tokenizer(text, truncation=True, max_length=self._length, return_tensors="pt")
                pooled = self._model.text_model(**tokens.to(self._device)).pooler_output
                (self._read[text],) = _unit(self._model.text_projection(pooled))
        return self._read[text]


def _unit(rows: Any) -> list[Vectors]:
    vectors = rows.float().cpu().numpy()
    return [np.asarray(row / max(float(np.linalg.norm(row)), 1e-9), np.float32) for row in vectors]


def load_clip(network: Network, device: str) -> Clip:
    """The CLIP model in the network's folder, in float32. Raises DiffgenError if the folder holds another model."""
    from transformers import CLIPModel, CLIPTokenizer

    hint = "give a hub id or folder of a CLIP model with .safetensors weights, e.g. openai/clip-vit-large-patch14"
    model = load_network(CLIPModel, network, device, hint=hint, types=("clip",))
    tokenizer = load_processor(CLIPTokenizer, network, hint=hint)
    path = Path(str(network.folder)) / "preprocessor_config.json"
    config = weights.read_json(path) if path.is_file() else {}
    return Clip(model, tokenizer, device, config.get("image_mean", _MEAN), config.get("image_std", _DEVIATION))


def measure_clip(source: Vectors, edited: Vectors, text: Vectors) -> dict[str, list[float]]:
    """The fact `clip`: scores of source and edit against the prompt, −1 to 1. All three are unit vectors (D,)."""
    return {"clip": [round(float(picture @ text), 4) for picture in (source, edited)]}


def judged_clip(facts: Mapping[str, Any]) -> float | None:
    """The value compared with `checks.clip`: score of the edit minus score of the source, −2 to 2.

    None for the tasks `remove` and `insert`, whose prompt describes the painted part only.
    """
    if "clip" not in facts or facts.get("task") in ("remove", "insert"):
        return None
    before, after = facts["clip"]
    return round(float(after) - float(before), 4)
