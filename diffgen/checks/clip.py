"""A CLIP model as a second opinion on whether the condition came about: pictures and texts in, unit vectors out.

Their dot product is the CLIP score without its factor (Hessel et al., CLIPScore, EMNLP 2021), −1 to 1; that of the edited
picture less that of its source says whether the edit moved towards the words.
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
from diffgen.models import hub
from diffgen.models.load_network import load_network, load_processor
from diffgen.models.networks import Network

Vectors = NDArray[np.float32]
# Of OpenAI's training pictures, for folders without a preprocessor's config.
_MEAN, _DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
MOST_READ = 1024  # texts kept


class Clip:
    def __init__(
        self, model: Any, tokenizer: Any, device: str, mean: Sequence[float], deviation: Sequence[float]
    ) -> None:
        self._model, self._tokenizer, self._device = model, tokenizer, device
        self._side = int(model.config.vision_config.image_size)
        self._length = int(model.config.text_config.max_position_embeddings)
        self._mean, self._deviation = (np.array(three, np.float32) for three in (mean, deviation))
        self._read: dict[str, Vectors] = {}

    def look(self, image: Pixels) -> Vectors:
        """The picture's unit vector, (D,). The whole picture, squeezed to a square: a crop would leave out what lies beside
        it. One at a time, so that it does not depend on the others. Raises OutOfMemory."""
        import torch

        small = Image.fromarray(image).resize((self._side, self._side), Image.Resampling.BICUBIC)
        planes = (np.asarray(small, np.float32) / 255 - self._mean) / self._deviation
        try:
            with torch.inference_mode():
                pixels = torch.from_numpy(planes).permute(2, 0, 1)[None].to(self._device)
                return _unit(self._model.visual_projection(self._model.vision_model(pixels).pooler_output))
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"the device has no room for CLIP: {why(error)}") from None

    def read(self, text: str) -> Vectors:
        """The text's unit vector, (D,); what is longer than the model reads is cut. Each text is read once."""
        import torch

        if text not in self._read:
            if len(self._read) >= MOST_READ:
                self._read.clear()
            with torch.inference_mode():
                tokens = self._tokenizer(text, truncation=True, max_length=self._length, return_tensors="pt")
                found = self._model.text_model(**tokens.to(self._device)).pooler_output
                self._read[text] = _unit(self._model.text_projection(found))
        return self._read[text]


def _unit(rows: Any) -> Vectors:
    row = rows[0].float().cpu().numpy()
    return np.asarray(row / max(float(np.linalg.norm(row)), 1e-9), np.float32)


def load_clip(network: Network, device: str) -> Clip:
    """The CLIP model in a folder on this machine, in float32. Raises DiffgenError when it is none."""
    from transformers import CLIPModel, CLIPTokenizer

    hint = "give a hub id or folder of a CLIP model with .safetensors weights, e.g. openai/clip-vit-large-patch14"
    model = load_network(CLIPModel, network, device, hint=hint, types=("clip",))
    tokenizer = load_processor(CLIPTokenizer, network, hint=hint)
    config = Path(str(network.folder)) / "preprocessor_config.json"
    own = hub.read_json(config) if config.is_file() else {}
    return Clip(model, tokenizer, device, own.get("image_mean", _MEAN), own.get("image_std", _DEVIATION))


Row = NDArray[np.float32]


def measure_clip(source: Row, edited: Row, text: Row) -> dict[str, list[float]]:
    """CLIP scores of the source and of the edit against the job's prompt, −1 to 1, from unit vectors (D,) each."""
    return {"clip": [round(float(picture @ text), 4) for picture in (source, edited)]}


def judged_clip(facts: Mapping[str, Any]) -> float | None:
    """The number that `checks.clip` is held against: how much nearer to the words the edit brought the picture.

    None where only an object was painted, which the words are about and not the picture.
    """
    if "clip" not in facts or facts.get("task") in ("remove", "insert"):
        return None
    before, after = facts["clip"]
    return round(float(after) - float(before), 4)
