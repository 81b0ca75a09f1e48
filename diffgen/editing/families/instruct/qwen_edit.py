"""Qwen-Image-Edit and its Plus form: a language model reads the source with the prompt, and the source's tokens follow the
noisy ones.

By itself it would bring every source to about a megapixel, which is another size than that of the edit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffgen.editing.families.instruct.one_at_a_time import OneAtATime
from diffgen.editing.pipelines.callbacks import Watch, from_noise
from diffgen.editing.pipelines.codecs import Codec
from diffgen.editing.pipelines.prompts import has_second_pass
from diffgen.models.load_network import quiet
from diffgen.models.pipelines import spec_of
from diffgen.types import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class QwenEdit(OneAtATime):
    def __init__(self, pipe: Any, codec: Codec) -> None:
        super().__init__(pipe, codec)
        self._source: Any = None
        self._grid: tuple[int, int, int] = (1, 0, 0)
        # Replaced: a method and an argument of the transformer. Both would be for the source at another size.
        pipe.prepare_latents = self._prepared
        pipe.transformer.register_forward_pre_hook(self._with_shapes, with_kwargs=True)

    def _one(
        self,
        source: Any,
        start: Any,
        image: NDArray[np.uint8],
        job: Job,
        prompt: str,
        generator: Any,
        watch: Watch | None,
    ) -> Any:
        from PIL import Image

        pipe, codec, guidance = self._pipe, self._codec, job.settings.guidance
        guided = has_second_pass(spec_of(pipe).second_pass, pipe, guidance)
        height, width = image.shape[:2]
        self._source = codec.pack(codec.to_model(source))
        self._grid = (1, height // codec.multiple, width // codec.multiple)
        tokens = codec.pack(start).to(source.device)
        with quiet():
            made = pipe(
                **from_noise(watch, lambda latents: codec.shown(latents, source.shape[2:]), tokens),
                image=Image.fromarray(image),
                prompt=prompt,
                negative_prompt=(job.negative_prompt or " ") if guided else None,  # an empty one has no tokens
                true_cfg_scale=guidance if guided else 1.0,
                latents=tokens,
                height=height,
                width=width,
                num_inference_steps=job.settings.steps,
                generator=generator,
                output_type="latent",
            ).images
        return codec.from_model(codec.unpack(made, source.shape[2:]))

    def _prepared(
        self, _i: Any, _b: Any, _c: Any, _h: Any, _w: Any, dtype: Any, device: Any, _g: Any, latents: Any
    ) -> Any:
        """Replaces the pipeline's `prepare_latents`: the noise, and the source's tokens."""
        return latents.to(device, dtype), self._source.to(device, dtype)

    def _with_shapes(self, _: Any, arguments: Any, named: dict[str, Any]) -> Any:
        """Tells the transformer the sizes of the noisy picture and of the source, in tokens."""
        return arguments, {**named, "img_shapes": [[self._grid, self._grid]]}
