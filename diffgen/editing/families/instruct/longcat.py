"""LongCat-Image-Edit and its Turbo: a language model reads the source with the prompt, and the source's tokens follow the
noisy ones."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from diffgen.editing.families.instruct.one_at_a_time import OneAtATime
from diffgen.editing.pipelines.codecs import Codec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


logger = logging.getLogger(__name__)


class LongCat(OneAtATime):
    calls_back = False

    def __init__(self, pipe: Any, codec: Codec) -> None:
        super().__init__(pipe, codec)
        # The only method replaced: it would be for the source at another size.
        pipe.prepare_latents = self._prepared

    def _arguments(self, image: NDArray[np.uint8], negative: str, guidance: float | None) -> dict[str, Any]:
        return {"negative_prompt": self._fitted(negative), "guidance_scale": guidance or 1.0}

    def _fitted(self, text: str) -> str:
        """The text without the words that are too many. The pipeline itself fails on them."""
        words, limit = text.split(" "), self._pipe.tokenizer_max_length
        while len(words) > 1 and self._tokens(" ".join(words)) > limit:
            words.pop()
        if (cut := " ".join(words)) != text:
            logger.warning("prompt cut to the model's %d tokens: %s", limit, text)
        return cut

    def _tokens(self, text: str) -> int:
        from diffusers.pipelines.longcat_image.pipeline_longcat_image_edit import split_quotation

        # What is in quotation marks is read letter by letter.
        parts = [part if quoted else [part] for part, quoted in split_quotation(text)]
        return sum(len(self._pipe.tokenizer(piece, add_special_tokens=False).input_ids) for p in parts for piece in p)

    def _prepared(
        self, _i: Any, _b: Any, _c: Any, _h: Any, _w: Any, dtype: Any, text: int, device: Any, _g: Any, latents: Any
    ) -> Any:
        """Replaces the pipeline's `prepare_latents`: tokens of the noise and of the source, and the places of both, (n, 3).

        `text` is the number of the prompt's tokens, whose places come first.
        """
        import torch
        from diffusers.pipelines.longcat_image.pipeline_longcat_image_edit import prepare_pos_ids

        height, width = (side // 2 for side in self._source.shape[2:])
        places = [
            prepare_pos_ids(modality_id=i, type="image", start=(text, text), height=height, width=width).to(device)
            for i in (1, 2)
        ]
        source = self._codec.pack(self._source).to(device, dtype)
        return latents.to(device, dtype), source, places[0], places[1].to(torch.float64)
