"""FLUX.2 klein: the source's tokens beside the noisy ones. By itself it would take several sources for pictures of one
scene, crop each about its centre, and shrink what is larger than a megapixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffgen.dataset.geometry import View
from diffgen.editing.pipelines.callbacks import Watch, from_noise
from diffgen.editing.pipelines.latents import Codec, noise
from diffgen.editing.pipelines.prompts import Prompts
from diffgen.editing.pipelines.schedulers import Schedulers
from diffgen.types import Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Flux2Codec(Codec):
    """Patches of 2 × 2 latents become channels, (B, 4 C, h/2, w/2), centred by the statistics of a batch norm."""

    def __init__(self, pipe: Any) -> None:
        super().__init__(pipe, patch=2)

    def to_model(self, latents: Any) -> Any:
        import torch

        mean, std = self._norm(latents)
        return (torch.nn.functional.pixel_unshuffle(latents, 2) - mean) / std

    def from_model(self, latents: Any) -> Any:
        import torch

        mean, std = self._norm(latents.float())
        return torch.nn.functional.pixel_shuffle(latents.float() * std + mean, 2)

    def _norm(self, like: Any) -> tuple[Any, Any]:
        norm = self.vae.bn
        mean, variance = (v.view(1, -1, 1, 1).to(like) for v in (norm.running_mean, norm.running_var))
        return mean, (variance + self.vae.config.batch_norm_eps).sqrt()

    def pack(self, latents: Any) -> Any:
        return latents.flatten(2).transpose(1, 2)

    def unpack(self, latents: Any, size: Sequence[int]) -> Any:
        """Of `size` (h, w) before patches were taken."""
        return latents.transpose(1, 2).unflatten(2, (size[0] // 2, size[1] // 2))


class Klein:
    def __init__(self, pipe: Any) -> None:
        self.codec = Flux2Codec(pipe)
        self._pipe = pipe
        self._prompts = Prompts(pipe)
        self._schedulers = Schedulers(pipe.scheduler)
        self._latents: Any = None
        # The only method replaced: it would make one sequence of all sources.
        pipe.prepare_image_latents = self._image_latents

    def edited(
        self,
        source: Any,
        images: Sequence[NDArray[np.uint8]],
        jobs: Sequence[Job],
        prompts: Sequence[str],
        views: Sequence[View] | None,
        watch: Watch | None,
    ) -> Any:
        """See `InstructPipeline`."""
        from PIL import Image

        settings, pipe, codec = jobs[0].settings, self._pipe, self.codec
        guided = settings.guidance > 1 and not pipe.config.is_distilled  # the pipeline's own rule
        negatives = [job.negative_prompt for job in jobs] if guided else None
        self._latents = codec.to_model(source)
        start, generators = noise(jobs, self._latents.shape[1:], views, codec.multiple)
        pipe.scheduler = self._schedulers.get(settings.scheduler)
        tokens = codec.pack(start).to(source.device)
        made = pipe(
            **from_noise(watch, lambda latents: codec.shown(latents, source.shape[2:]), tokens),
            **self._prompts.embeds(prompts, negatives),
            image=Image.new("RGB", (64, 64)),  # unused: _image_latents knows the sources
            latents=start,
            height=images[0].shape[0],
            width=images[0].shape[1],
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance if guided else 1.0,
            generator=generators,
            output_type="latent",
        ).images
        return made.float()  # it undoes centring and patches itself

    def _image_latents(self, images: Any, batch_size: int, generator: Any, device: Any, dtype: Any) -> Any:
        """Tokens (B, n, 4 C) of each row's own source, and their positions."""
        ids = self._pipe._prepare_image_ids([self._latents[:1]]).repeat(batch_size, 1, 1)
        return self.codec.pack(self._latents).to(device, dtype), ids.to(device)
