"""Qwen-Image-Edit and its Plus form: a language model reads the source with the prompt, and the source's tokens follow the
noisy ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffgen.editing.families.instruct.one_at_a_time import OneAtATime
from diffgen.editing.pipelines.codecs import Codec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class QwenEdit(OneAtATime):
    def __init__(self, pipe: Any, codec: Codec) -> None:
        super().__init__(pipe, codec)
        self._grid: tuple[int, int, int] = (1, 0, 0)
        # Replaced: a method and an argument of the transformer. Both would be for the source at another size.
        pipe.prepare_latents = self._prepared
        pipe.transformer.register_forward_pre_hook(self._with_shapes, with_kwargs=True)

    def _arguments(self, image: NDArray[np.uint8], negative: str, guidance: float | None) -> dict[str, Any]:
        height, width = image.shape[:2]
        self._grid = (1, height // self._codec.multiple, width // self._codec.multiple)
        return {
            "negative_prompt": None if guidance is None else negative or " ",  # an empty one has no tokens
            "true_cfg_scale": guidance or 1.0,
            "height": height,
            "width": width,
        }

    def _prepared(
        self, _i: Any, _b: Any, _c: Any, _h: Any, _w: Any, dtype: Any, device: Any, _g: Any, latents: Any
    ) -> Any:
        """Replaces the pipeline's `prepare_latents`: the noise, and the source's tokens."""
        return latents.to(device, dtype), self._codec.pack(self._source).to(device, dtype)

    def _with_shapes(self, _: Any, arguments: Any, named: dict[str, Any]) -> Any:
        """Tells the transformer the sizes of the noisy picture and of the source, in tokens."""
        return arguments, {**named, "img_shapes": [[self._grid, self._grid]]}
