"""Image to image, guided by control maps of the source (edges, depth, segmentation): Zhang, Rao and Agrawala, Adding
Conditional Control to Text-to-Image Diffusion Models, 2023.

Everything in `img2img` holds here too: strength, steps, objects, noise, batches. A job without controls is an img2img job,
and runs in the plain pipeline.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffgen.editing.editor import EditBatch, Edited, Family
from diffgen.editing.families.img2img import Img2Img
from diffgen.editing.levels import effective_object_strength, effective_strength
from diffgen.editing.pipelines.loading import load_pipeline
from diffgen.errors import DiffgenError, TransientError, UsageError
from diffgen.models.load_network import load_network, quiet
from diffgen.models.memory import RESIDENT_PARTS
from diffgen.models.model import pipeline_class
from diffgen.models.networks import Network, is_union
from diffgen.models.pipelines import SPECS, class_to_load, spec_of

if TYPE_CHECKING:
    from diffgen.models.model import Model

# The control type indices of ControlNet-Union for SDXL (xinsir).
MODES = {"depth": 1, "softedge": 2, "canny": 3, "segmentation": 5}
# Config fields that must be the same in a ControlNet and in the UNet that it was made for.
_SHARED = ("in_channels", "cross_attention_dim", "block_out_channels")


def load(model: Model, device: str, dtype: str) -> ControlNet:
    """The model and its ControlNets. Raises DiffgenError when one cannot be loaded, or was made for another base model."""
    named = pipeline_class(model)
    guided_class: str | None = class_to_load("controlnet", named, model.name)
    controlnets = [network for network in model.networks if network.role == "controlnet"]
    union = is_union(controlnets[0])
    if union:
        guided_class = SPECS[named].union_controlnet
    if guided_class is None:
        raise UsageError(
            f"{controlnets[0].full_name} is a Union ControlNet, which is for SDXL; model '{model.name}' is not",
            "use an SDXL model, or a ControlNet for each kind of map",
        )
    plain = load_pipeline("img2img", model, device, dtype)
    nets = {n.identity: _load_net(n, union, plain.unet, device, dtype) for n in controlnets}
    return ControlNet(plain, _guided(guided_class, plain, next(iter(nets.values()))), nets, union)


FAMILY = Family("controlnet", load, effective_strength, effective_object_strength)


def _load_net(network: Network, union: bool, unet: Any, device: str, dtype: str) -> Any:
    import diffusers
    import torch

    cls = diffusers.ControlNetUnionModel if union else diffusers.ControlNetModel
    net = load_network(cls, network, device, dtype, hint="copy or download it again")
    for field in _SHARED:
        own, base = net.config.get(field), unet.config.get(field)
        if _as_tuple(own) != _as_tuple(base):
            raise DiffgenError(
                f"{network.full_name} was made for another base model: its {field} is {own}, this model's is {base}",
                "use a ControlNet made for this base: one for SD 1.5 with sd15, one for SDXL with sdxl",
            )
    if not device.startswith("mps"):
        net.to(memory_format=torch.channels_last)
    return net


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _guided(cls_name: str, plain: Any, net: Any) -> Any:
    """The pipeline with a ControlNet on the plain one's own parts, which keep their dtypes (`from_pipe` would not)."""
    import diffusers

    cls = getattr(diffusers, cls_name)
    takes = inspect.signature(cls).parameters  # the components and flags that this diffusers class knows
    parts = {name: part for name, part in plain.components.items() if name in takes}
    flags = ("requires_aesthetics_score", "force_zeros_for_empty_prompt")
    parts |= {flag: plain.config[flag] for flag in flags if flag in takes and flag in plain.config}
    parts |= spec_of(plain).loader_options
    with quiet():
        pipe = cls(**parts, controlnet=net)
    pipe._exclude_from_cpu_offload = [*pipe._exclude_from_cpu_offload, *RESIDENT_PARTS]
    pipe.set_progress_bar_config(disable=True)
    return pipe


class ControlNet(Img2Img):
    def __init__(self, plain: Any, guided: Any, nets: Mapping[str, Any], union: bool) -> None:
        """`guided` shares the components of `plain`; `nets` are its ControlNets by identity."""
        super().__init__(plain)
        guided.prepare_latents = self._noised
        self._plain, self._guided = plain, guided
        self._nets, self._union = nets, union

    def edit(self, batch: EditBatch) -> list[Edited | TransientError]:
        """See `Editor.edit`."""
        self._pipe = self._guided if batch.settings.controls else self._plain
        made = super().edit(batch)
        self._plain.maybe_free_model_hooks()  # with offloading, only the pipeline that loads parts to the device frees them
        return made

    def _guidance(self, batch: EditBatch) -> dict[str, Any]:
        """The maps as tensors (B, 3, H, W) in 0–1. They have the working size, so that the pipeline does not resize them."""
        import numpy as np
        import torch

        guides = batch.settings.controls or ()
        if not guides or batch.controls is None:
            return {}
        # ControlNet-Union applies the weight after mixing the maps, so a map with weight 0 would still act; leave it out.
        used = [i for i, guide in enumerate(guides) if guide.weight] or [0]
        chosen = [guides[i] for i in used]
        stacks = [np.stack([maps[i] for maps in batch.controls]) for i in used]
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
        """The ControlNet for the pipeline to call, or several as one. One ControlNet-Union reads several maps by itself."""
        from diffusers.models import MultiControlNetModel, MultiControlNetUnionModel

        if len(nets) == 1 or (self._union and len({id(net) for net in nets}) == 1):
            return nets[0]
        return MultiControlNetUnionModel(nets) if self._union else MultiControlNetModel(nets)
