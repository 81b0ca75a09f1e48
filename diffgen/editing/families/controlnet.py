"""Image to image held to maps of the source (edges, depth, segmentation) by ControlNets: Zhang, Rao and Agrawala, Adding
Conditional Control to Text-to-Image Diffusion Models, 2023.

All of `img2img` holds here too: strength, steps, objects, noise, batches. A job without controls is an img2img job, and is
run by the plain pipeline.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffgen.dataset.geometry import View
from diffgen.editing.editor import Edited
from diffgen.editing.families import choose_class, img2img
from diffgen.editing.families.img2img import Img2Img, effective_object_strength, effective_strength
from diffgen.editing.pipelines.callbacks import Watch
from diffgen.editing.pipelines.loading import load_pipeline
from diffgen.errors import DiffgenError, UsageError, why
from diffgen.models.load_network import out_of_memory, quiet
from diffgen.models.memory import STAYING
from diffgen.models.networks import Network, half_variant, is_union
from diffgen.types import Job, Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffgen.models.model import Model

__all__ = ["ControlNet", "effective_object_strength", "effective_strength", "load"]

# The img2img pipeline -> the same with ControlNets, and with Union ones, which read several kinds of maps.
GUIDED = {
    "StableDiffusionImg2ImgPipeline": ("StableDiffusionControlNetImg2ImgPipeline", None),
    "StableDiffusionXLImg2ImgPipeline": (
        "StableDiffusionXLControlNetImg2ImgPipeline",
        "StableDiffusionXLControlNetUnionImg2ImgPipeline",
    ),
}
CLASSES = {own: cls for own, cls in img2img.CLASSES.items() if cls in GUIDED}
# The numbers by which ControlNet-Union for SDXL (xinsir) knows what a map shows.
MODES = {"depth": 1, "softedge": 2, "canny": 3, "segmentation": 5}
# What a ControlNet has in common with the UNet it was made for.
_SHARED = ("in_channels", "cross_attention_dim", "block_out_channels")


def load(model: Model, device: str, dtype: str) -> ControlNet:
    """The model and its ControlNets. Raises DiffgenError when one cannot be loaded, or was made for another base model."""
    plain_class = choose_class(model, CLASSES)
    controlnets = [network for network in model.networks if network.role == "controlnet"]
    union = is_union(controlnets[0])
    guided_class = GUIDED[plain_class][union]
    if guided_class is None:
        raise UsageError(
            f"{controlnets[0].full_name} is a Union ControlNet, which is for SDXL; model '{model.name}' is not",
            "use an SDXL model, or a ControlNet for each kind of map",
        )
    plain = load_pipeline(plain_class, model, device, dtype)
    nets = {n.identity: _load_net(n, union, plain.unet, device, dtype) for n in controlnets}
    return ControlNet(plain, _guided(guided_class, plain, next(iter(nets.values()))), nets, union)


def _load_net(network: Network, union: bool, unet: Any, device: str, dtype: str) -> Any:
    import diffusers
    import torch

    assert network.folder is not None
    cls = diffusers.ControlNetUnionModel if union else diffusers.ControlNetModel
    with quiet():
        try:
            net, found = cls.from_pretrained(
                network.folder, dtype=getattr(torch, dtype), variant=half_variant(network), use_safetensors=True,
                local_files_only=True, output_loading_info=True,
            )  # fmt: skip
            lacking = sorted(found["missing_keys"])
            net = net if lacking else net.to(device).eval()
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            if out_of_memory(error):
                raise DiffgenError(f"{network.full_name} does not fit on {device}", "use fewer controls") from error
            raise DiffgenError(
                f"{network.full_name} cannot be loaded: {why(error)}", "copy or download it again"
            ) from error
    if lacking:
        raise DiffgenError(f"{network.full_name}: its files lack {lacking[0]}", "copy or download it again")
    for field in _SHARED:
        own, base = net.config.get(field), unet.config.get(field)
        if _plain(own) != _plain(base):
            raise DiffgenError(
                f"{network.full_name} was made for another base model: its {field} is {own}, this model's {base}",
                "use a ControlNet made for this base: one for SD 1.5 with sd15, one for SDXL with sdxl",
            )
    if not device.startswith("mps"):
        net.to(memory_format=torch.channels_last)
    return net


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _guided(cls_name: str, plain: Any, net: Any) -> Any:
    """The pipeline with a ControlNet on the plain one's own parts, which keep their dtypes (`from_pipe` would not)."""
    import diffusers

    cls = getattr(diffusers, cls_name)
    takes = inspect.signature(cls).parameters
    parts = {name: part for name, part in plain.components.items() if name in takes}
    flags = ("requires_safety_checker", "requires_aesthetics_score", "force_zeros_for_empty_prompt")
    parts |= {flag: plain.config[flag] for flag in flags if flag in takes and flag in plain.config}
    if "add_watermarker" in takes:
        parts["add_watermarker"] = False
    with quiet():
        pipe = cls(**parts, controlnet=net)
    pipe._exclude_from_cpu_offload = [*pipe._exclude_from_cpu_offload, *STAYING]
    pipe.set_progress_bar_config(disable=True)
    return pipe


class ControlNet(Img2Img):
    def __init__(self, plain: Any, guided: Any, nets: Mapping[str, Any], union: bool) -> None:
        """`guided` has the parts of `plain`; `nets` are its ControlNets by identity."""
        super().__init__(plain)
        guided.prepare_latents = self._noised
        self._plain, self._guided = plain, guided
        self._nets, self._union = nets, union
        self._controls: Sequence[Sequence[NDArray[np.uint8]]] = ()

    def edit(
        self,
        images: Sequence[NDArray[np.uint8]],
        jobs: Sequence[Job],
        masks: Sequence[NDArray[np.float32]] | None = None,
        views: Sequence[View] | None = None,
        watch: Watch | None = None,
        controls: Sequence[Sequence[NDArray[np.uint8]]] | None = None,
    ) -> list[Edited]:
        """See `diffgen.editing.editor.Editor`."""
        guides = jobs[0].settings.controls or ()
        self._controls = controls or ((),) * len(images)
        for image, maps in zip(images, self._controls, strict=True):
            if len(maps) != len(guides) or any(m.shape != image.shape or m.dtype != image.dtype for m in maps):
                shapes = [m.shape for m in maps]
                raise ValueError(f"expected {len(guides)} maps as large as the image {image.shape}, got {shapes}")
        self._pipe = self._guided if guides else self._plain
        made = super().edit(images, jobs, masks, views, watch)
        self._plain.maybe_free_model_hooks()  # only the pipeline that moves parts to the device moves them off again
        return made

    def _guidance(self, settings: Settings) -> dict[str, Any]:
        """The maps as tensors (B, 3, H, W) in 0–1 at the working size, which the pipeline then does not scale."""
        import numpy as np
        import torch

        guides = settings.controls or ()
        if not guides:
            return {}
        # A Union ControlNet mixes what it is given before it weighs it: off is not given.
        used = [i for i, guide in enumerate(guides) if guide.weight] or [0]
        chosen = [guides[i] for i in used]
        stacks = [np.stack([maps[i] for maps in self._controls]) for i in used]
        maps = [torch.from_numpy(stack).permute(0, 3, 1, 2).float().div(255) for stack in stacks]
        nets = [self._nets[guide.model] for guide in chosen]
        weights = [guide.weight for guide in chosen]
        self._pipe.controlnet = self._joined(nets)
        if self._union:
            modes = [MODES[guide.kind] for guide in chosen]
            return {"control_image": maps, "control_mode": modes, "controlnet_conditioning_scale": weights}
        if len(nets) == 1:
            return {"control_image": maps[0], "controlnet_conditioning_scale": weights[0]}
        return {"control_image": maps, "controlnet_conditioning_scale": weights}

    def _joined(self, nets: Sequence[Any]) -> Any:
        """What the pipeline calls: the ControlNet, or several as one. One Union ControlNet reads several maps in one go."""
        from diffusers.models import MultiControlNetModel, MultiControlNetUnionModel

        if len(nets) == 1 or (self._union and len({id(net) for net in nets}) == 1):
            return nets[0]
        return MultiControlNetUnionModel(nets) if self._union else MultiControlNetModel(nets)
