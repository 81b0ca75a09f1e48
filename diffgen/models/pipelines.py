"""What diffgen knows about each diffusers pipeline class, in one table. Adding a class means adding one PipelineSpec.

Pure data: imports neither torch nor diffusers, because `plan` resolves models by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from diffgen.errors import UsageError

# How images become latents and latents become tokens: see `editing.pipelines.codecs`.
CodecName = Literal["plain", "packed", "flux2", "qwen"]
# How text becomes embeddings: see `editing.pipelines.prompts`.
ReaderName = Literal["sd", "sdxl", "sd3", "flux", "flux2", "zimage"]
# How the family `instruct` calls the pipeline: a file each in `editing.families.instruct`.
AdapterName = Literal["pix2pix", "kontext", "klein", "qwen_edit", "longcat"]
# The guidance scale at which a pipeline runs the model a second time with the negative prompt. Distilled models
# (LCM, FLUX.2 klein) read the scale as a number instead, or ignore it.
SecondPass = Literal["never", "above_0", "above_1", "above_1_unless_distilled"]


@dataclass(frozen=True, slots=True)
class PromptReader:
    """The call that encodes a prompt, and its token limit.

    The limit is that of the first of `tokenizers` that the pipeline has, and never above `most_tokens`. `chat` are the
    options of the template that the pipeline puts around a prompt, whose tokens count too; None: it has none.
    """

    name: ReaderName
    tokenizers: tuple[str, ...] = ("tokenizer",)
    most_tokens: int = 512
    chat: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SingleFile:
    """How to recognise the class of a checkpoint that is one file in the original layout, without configs.

    `channels` is how many the UNet reads; `two_encoders` says that the text encoders are SDXL's. `native` is the long
    side in pixels that such models are trained at.
    """

    channels: int
    two_encoders: bool
    native: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSpec:
    """One diffusers pipeline class.

    `family` edits with it unless the recipe names another. `loads` maps each family that can use a model of this class
    to the diffusers class that it loads for it; a missing family cannot use it. `steps`, `guidance` and `native` are
    defaults of such models where they differ from the family's, or where the configs may not tell them.
    """

    name: str
    family: str
    loads: Mapping[str, str]
    union_controlnet: str | None = None  # the class that takes ControlNet-Union, where there is one
    steps: int | None = None
    guidance: float | None = None
    native: int | None = None
    # Where the class is for a distilled model, steps and guidance of one whose model_index.json does not call it that.
    undistilled: Mapping[str, Any] | None = None
    single_file: SingleFile | None = None
    reader: PromptReader | None  # None: the pipeline reads prompt and image together, so embeddings cannot be kept
    second_pass: SecondPass
    # Trained by flow matching: takes its own schedulers, is told the image size, and for `strength` s runs N - int(N - N*s)
    # of N steps instead of int(N*s).
    flow: bool = False
    codec: CodecName = "plain"
    patch: int = 1  # latents per side of a token; image sides must divide by it
    adapter: AdapterName | None = None  # only for the family `instruct`
    batches: bool = True  # False: one picture a call
    optional_parts: tuple[str, ...] = ()  # components that a complete model may lack
    float32_vae: bool = False  # the VAE overflows in float16 and then decodes to black
    loader_options: Mapping[str, Any] = field(default_factory=dict)  # for from_pretrained and the constructor

    @property
    def defaults(self) -> dict[str, Any]:
        """`steps`, `guidance` and `native`, those that are given."""
        given = {"steps": self.steps, "guidance": self.guidance, "native": self.native}
        return {name: value for name, value in given.items() if value is not None}

    def defaults_of(self, index: Mapping[str, Any]) -> dict[str, Any]:
        """`defaults` for the model whose model_index.json is `index`."""
        plain = self.undistilled is not None and not index.get("is_distilled")
        return {**self.defaults, **((self.undistilled or {}) if plain else {})}


# Flagged images would become black pictures. Made images are marked as synthetic in their metadata, not by a watermark.
_NO_SAFETY_CHECKER = {"requires_safety_checker": False}
_NO_WATERMARK = {"add_watermarker": False}

# What the classes of one architecture have in common.
_sd = partial(
    PipelineSpec, reader=PromptReader("sd"), second_pass="above_1_unless_distilled", loader_options=_NO_SAFETY_CHECKER
)
_sdxl = partial(
    PipelineSpec,
    reader=PromptReader("sdxl", ("tokenizer", "tokenizer_2")),
    second_pass="above_1_unless_distilled",
    optional_parts=("text_encoder", "tokenizer"),  # the SDXL refiner has only the second ones
    float32_vae=True,
    loader_options=_NO_WATERMARK,
)
_flow = partial(PipelineSpec, flow=True, patch=2, native=1024)
# FLUX.1 dev reads the guidance scale as a number, schnell ignores it.
_flux = partial(_flow, reader=PromptReader("flux", ("tokenizer_2",)), second_pass="never", codec="packed")
_one_picture = partial(_flow, reader=None, second_pass="above_1", batches=False)
_qwen = partial(_one_picture, steps=30, guidance=4.0, codec="qwen", adapter="qwen_edit")

# Those of them that edit image to image.
_sd_img2img = partial(
    _sd,
    family="img2img",
    loads={
        "img2img": "StableDiffusionImg2ImgPipeline",
        "controlnet": "StableDiffusionControlNetImg2ImgPipeline",
        "inpaint": "StableDiffusionInpaintPipeline",
        "text2img": "StableDiffusionPipeline",
    },
)
# Latent consistency models have the parts of Stable Diffusion. Only the scheduler differs, and the img2img class of Stable
# Diffusion can start it at any level.
_lcm_img2img = partial(
    _sd,
    family="img2img",
    loads={
        "img2img": "StableDiffusionImg2ImgPipeline",
        "controlnet": "StableDiffusionControlNetImg2ImgPipeline",
        "text2img": "LatentConsistencyModelPipeline",
    },
    steps=4,
    guidance=8.0,
)
_sdxl_img2img = partial(
    _sdxl,
    family="img2img",
    loads={
        "img2img": "StableDiffusionXLImg2ImgPipeline",
        "controlnet": "StableDiffusionXLControlNetImg2ImgPipeline",
        "inpaint": "StableDiffusionXLInpaintPipeline",
        "text2img": "StableDiffusionXLPipeline",
    },
    union_controlnet="StableDiffusionXLControlNetUnionImg2ImgPipeline",
)
_sd3_img2img = partial(
    _flow,
    family="img2img",
    loads={"img2img": "StableDiffusion3Img2ImgPipeline", "text2img": "StableDiffusion3Pipeline"},
    guidance=4.5,
    reader=PromptReader("sd3", ("tokenizer_3", "tokenizer"), 256),
    second_pass="above_1",
    optional_parts=("text_encoder_3", "tokenizer_3"),  # T5 may be left out
)
_flux_img2img = partial(
    _flux, family="img2img", loads={"img2img": "FluxImg2ImgPipeline", "text2img": "FluxPipeline"}, guidance=3.5
)
_zimage_img2img = partial(
    _flow,
    family="img2img",
    loads={"img2img": "ZImageImg2ImgPipeline", "text2img": "ZImagePipeline"},
    guidance=4.0,
    reader=PromptReader("zimage", chat={"enable_thinking": True}),
    second_pass="above_0",  # its guidance scale counts from 0: 4 is what other models call 5
)


def _as_itself(spec: partial[PipelineSpec], family: str, name: str, **fields: Any) -> PipelineSpec:
    """A class for one family, which loads it as the files name it."""
    return spec(name=name, family=family, loads={family: name}, **fields)


_PIX2PIX: dict[str, Any] = {"second_pass": "above_1", "adapter": "pix2pix"}
_KLEIN: dict[str, Any] = {"second_pass": "above_1_unless_distilled", "codec": "flux2", "adapter": "klein"}

_ALL = (
    _sd_img2img(name="StableDiffusionPipeline", single_file=SingleFile(4, False, 512)),
    _sd_img2img(name="StableDiffusionImg2ImgPipeline"),
    _lcm_img2img(name="LatentConsistencyModelPipeline"),
    _lcm_img2img(name="LatentConsistencyModelImg2ImgPipeline"),
    _sdxl_img2img(name="StableDiffusionXLPipeline", single_file=SingleFile(4, True, 1024)),
    _sdxl_img2img(name="StableDiffusionXLImg2ImgPipeline"),
    _sd3_img2img(name="StableDiffusion3Pipeline"),
    _sd3_img2img(name="StableDiffusion3Img2ImgPipeline"),
    _flux_img2img(name="FluxPipeline"),
    _flux_img2img(name="FluxImg2ImgPipeline"),
    _zimage_img2img(name="ZImagePipeline"),
    _zimage_img2img(name="ZImageImg2ImgPipeline"),
    _as_itself(_sd, "inpaint", "StableDiffusionInpaintPipeline", single_file=SingleFile(9, False, 512)),
    _as_itself(_sdxl, "inpaint", "StableDiffusionXLInpaintPipeline", single_file=SingleFile(9, True, 1024)),
    _as_itself(
        _sd, "instruct", "StableDiffusionInstructPix2PixPipeline", single_file=SingleFile(8, False, 512), **_PIX2PIX
    ),
    _as_itself(
        _sdxl, "instruct", "StableDiffusionXLInstructPix2PixPipeline", single_file=SingleFile(8, True, 1024), **_PIX2PIX
    ),
    _as_itself(_flux, "instruct", "FluxKontextPipeline", steps=24, guidance=2.5, adapter="kontext"),
    _as_itself(
        _flow,
        "instruct",
        "Flux2KleinPipeline",
        steps=4,
        guidance=1.0,
        undistilled={"steps": 28, "guidance": 4.0},
        reader=PromptReader("flux2", chat={"enable_thinking": False}),
        **_KLEIN,
    ),
    _as_itself(_qwen, "instruct", "QwenImageEditPipeline"),
    _as_itself(_qwen, "instruct", "QwenImageEditPlusPipeline"),
    _as_itself(
        _one_picture, "instruct", "LongCatImageEditPipeline", steps=50, guidance=4.5, codec="packed", adapter="longcat"
    ),
)
SPECS: dict[str, PipelineSpec] = {spec.name: spec for spec in _ALL}


def spec_of(pipe: object) -> PipelineSpec:
    """The spec of a loaded pipeline."""
    return SPECS[type(pipe).__name__]


def class_to_load(family: str, named: str, model: str) -> str:
    """The diffusers class that `family` loads for the model called `model`, whose files name the class `named`.

    Raises UsageError where the family cannot use such a model.
    """
    if named in SPECS and family in SPECS[named].loads:
        return SPECS[named].loads[family]
    if family == "text2img":
        raise UsageError(
            f"text2img: model '{model}' is a {named}, which cannot generate images from text alone",
            "use a text-to-image model, such as sd-turbo, sdxl-turbo, sdxl or flux1-schnell",
        )
    asked = "controls:" if family == "controlnet" else "editor:"
    usable = sorted(spec.name for spec in _ALL if family in spec.loads)
    raise UsageError(
        f"model '{model}' is a {named}, which the editor '{family}' cannot use",
        f"remove `{asked}`, or use a model of class {' or '.join(usable)}",
    )
