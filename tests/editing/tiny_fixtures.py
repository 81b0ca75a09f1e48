"""Tiny models, written to disk once a session and loaded as users' are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffgen.dataset.file_cache import FileCache
from diffgen.editing.editor import Editor
from diffgen.editing.families import load_editor
from diffgen.models.find import resolve_model
from tests.editing.tiny_models import (
    NOISE,
    flux_parts,
    kl,
    qwen3,
    qwen_tokenizer,
    qwen_vl,
    saved,
    t5,
    text_encoder,
    unet,
    write_t5_tokenizer,
    write_tokenizer,
    xl_parts,
)


@pytest.fixture(scope="session")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion 1.x: 8 px a latent, 4 channels, PNDM as the original ships."""
    import diffusers

    def make(folder: Path) -> Any:
        return diffusers.StableDiffusionPipeline(
            vae=kl(),
            unet=unet(4),
            text_encoder=text_encoder("CLIPTextModel"),
            tokenizer=write_tokenizer(folder / "tokenizer"),
            scheduler=diffusers.PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1, **NOISE),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    return saved(tmp_path_factory, "sd", make)


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SDXL, with a VAE that has latents_mean and latents_std."""
    import diffusers

    return saved(tmp_path_factory, "sdxl", lambda folder: diffusers.StableDiffusionXLPipeline(**xl_parts(folder, 4)))


@pytest.fixture(scope="session")
def xl_ip2p(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """InstructPix2Pix on SDXL."""
    import diffusers

    def make(folder: Path) -> Any:
        return diffusers.StableDiffusionXLInstructPix2PixPipeline(**xl_parts(folder, 8))

    return saved(tmp_path_factory, "xl_ip2p", make)


@pytest.fixture(scope="session")
def ip2p(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """InstructPix2Pix on Stable Diffusion 1.x with its ancestral scheduler, which draws noise while stepping."""
    import diffusers

    def make(folder: Path) -> Any:
        return diffusers.StableDiffusionInstructPix2PixPipeline(
            vae=kl(),
            unet=unet(8),
            text_encoder=text_encoder("CLIPTextModel"),
            tokenizer=write_tokenizer(folder / "tokenizer"),
            scheduler=diffusers.EulerAncestralDiscreteScheduler(**NOISE),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    return saved(tmp_path_factory, "ip2p", make)


@pytest.fixture(scope="session")
def sd_inpaint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion 1.x for inpainting: the UNet sees latents, mask and masked latents."""
    import diffusers

    def make(folder: Path) -> Any:
        return diffusers.StableDiffusionInpaintPipeline(
            vae=kl(),
            unet=unet(9),
            text_encoder=text_encoder("CLIPTextModel"),
            tokenizer=write_tokenizer(folder / "tokenizer"),
            scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1, **NOISE),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    return saved(tmp_path_factory, "sd_inpaint", make)


@pytest.fixture(scope="session")
def xl_inpaint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SDXL for inpainting."""
    import diffusers

    def make(folder: Path) -> Any:
        parts = xl_parts(folder, 9)
        return diffusers.StableDiffusionXLInpaintPipeline(**{**parts, "vae": kl(scaling_factor=0.13025)})

    return saved(tmp_path_factory, "xl_inpaint", make)


@pytest.fixture(scope="session")
def pocket_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shape of the embedded model: AutoencoderTiny, 4 px a latent, 16 channels, one step of DDIM at zero SNR."""
    import diffusers

    def make(folder: Path) -> Any:
        vae = diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8),
            decoder_block_out_channels=(8, 8, 8),
            num_encoder_blocks=(0, 1, 1),
            num_decoder_blocks=(1, 1, 0),
            latent_channels=16,
            scaling_factor=2.0,
        )
        return diffusers.StableDiffusionInstructPix2PixPipeline(
            vae=vae,
            unet=unet(32, out=16, addition_embed_type="text", addition_embed_type_num_heads=2),
            text_encoder=text_encoder("CLIPTextModel"),
            tokenizer=write_tokenizer(folder / "tokenizer"),
            scheduler=diffusers.DDIMScheduler(
                clip_sample=False,
                set_alpha_to_one=True,
                prediction_type="sample",
                timestep_spacing="trailing",
                rescale_betas_zero_snr=True,
                **NOISE,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    folder = saved(tmp_path_factory, "pocket_like", make)
    (folder / "diffgen.json").write_text(
        json.dumps(
            {"steps": 1, "guidance": 1.0, "image_guidance": 1.0, "multiple": 8, "severity": "{prompt} {percent}"}
        )
    )
    return folder


@pytest.fixture(scope="session")
def lcm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A latent consistency model: guidance is a number that the UNet reads."""
    import diffusers

    def make(folder: Path) -> Any:
        return diffusers.LatentConsistencyModelPipeline(
            vae=kl(),
            unet=unet(4, time_cond_proj_dim=16),
            text_encoder=text_encoder("CLIPTextModel"),
            tokenizer=write_tokenizer(folder / "tokenizer"),
            scheduler=diffusers.LCMScheduler(**NOISE),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    return saved(tmp_path_factory, "lcm", make)


@pytest.fixture(scope="session")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion 3: three text encoders, latents with a shift, flow matching."""
    import diffusers

    def make(folder: Path) -> Any:
        return diffusers.StableDiffusion3Pipeline(
            vae=kl(shift_factor=0.1, scaling_factor=1.5),
            transformer=diffusers.SD3Transformer2DModel(
                sample_size=8,
                in_channels=4,
                out_channels=4,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=32,
                caption_projection_dim=16,
                pooled_projection_dim=32,
                pos_embed_max_size=16,
            ),
            text_encoder=text_encoder("CLIPTextModelWithProjection"),
            text_encoder_2=text_encoder("CLIPTextModelWithProjection"),
            text_encoder_3=t5(32),
            tokenizer=write_tokenizer(folder / "tokenizer"),
            tokenizer_2=write_tokenizer(folder / "tokenizer_2"),
            tokenizer_3=write_t5_tokenizer(),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        )

    return saved(tmp_path_factory, "sd3", make)


@pytest.fixture(scope="session")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.1 dev: packed latents, guidance as a number, a schedule bent by the size."""
    import diffusers

    return saved(tmp_path_factory, "flux", lambda folder: diffusers.FluxPipeline(**flux_parts(folder)))


@pytest.fixture(scope="session")
def schnell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.1 schnell: no guidance at all."""
    import diffusers

    return saved(tmp_path_factory, "schnell", lambda folder: diffusers.FluxPipeline(**flux_parts(folder, False)))


@pytest.fixture(scope="session")
def zimage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Z-Image: a language model reads, lists of embeddings, guidance that counts from 0."""
    import diffusers

    def make(folder: Path) -> Any:
        return diffusers.ZImagePipeline(
            vae=kl(shift_factor=0.1, scaling_factor=0.4),
            transformer=diffusers.ZImageTransformer2DModel(
                in_channels=4,
                dim=32,
                n_layers=1,
                n_refiner_layers=1,
                n_heads=2,
                n_kv_heads=2,
                cap_feat_dim=16,
                axes_dims=[4, 4, 8],
                axes_lens=[128, 64, 64],
            ),
            text_encoder=qwen3("Qwen3Model"),
            tokenizer=qwen_tokenizer(),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        )

    return saved(tmp_path_factory, "zimage", make)


@pytest.fixture(scope="session")
def cosxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CosXL Edit: InstructPix2Pix on SDXL with the schedule of EDM."""
    import diffusers

    def make(folder: Path) -> Any:
        parts = xl_parts(folder, 8)
        parts["scheduler"] = diffusers.EDMEulerScheduler(
            sigma_min=0.002,
            sigma_max=120.0,
            sigma_data=1.0,
            prediction_type="v_prediction",
            sigma_schedule="exponential",
        )
        return diffusers.StableDiffusionXLInstructPix2PixPipeline(**parts)

    return saved(tmp_path_factory, "cosxl", make)


@pytest.fixture(scope="session")
def kontext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.1 Kontext."""
    import diffusers

    return saved(tmp_path_factory, "kontext", lambda folder: diffusers.FluxKontextPipeline(**flux_parts(folder)))


def _klein(tmp: pytest.TempPathFactory, is_distilled: bool) -> Path:
    import diffusers

    def make(folder: Path) -> Any:
        vae = diffusers.AutoencoderKLFlux2(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=4,
            layers_per_block=1,
        )
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(0.5, 2)
        return diffusers.Flux2KleinPipeline(
            vae=vae,
            transformer=diffusers.Flux2Transformer2DModel(
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=48,
                timestep_guidance_channels=16,
                axes_dims_rope=(4, 4, 4, 4),
                guidance_embeds=False,
            ),
            text_encoder=qwen3("Qwen3ForCausalLM", layers=28),  # it reads layers 9, 18 and 27
            tokenizer=qwen_tokenizer(),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            is_distilled=is_distilled,
        )

    return saved(tmp, "klein", make)


@pytest.fixture(scope="session")
def klein(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.2 klein as distilled to four steps: guidance is ignored."""
    return _klein(tmp_path_factory, True)


@pytest.fixture(scope="session")
def klein_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FLUX.2 klein before distillation."""
    return _klein(tmp_path_factory, False)


def _qwen(tmp: pytest.TempPathFactory, cls: str) -> Path:
    import diffusers

    def make(folder: Path) -> Any:
        return getattr(diffusers, cls)(
            vae=diffusers.AutoencoderKLQwenImage(
                base_dim=8,
                z_dim=4,
                dim_mult=[1, 2, 2, 2],
                num_res_blocks=1,
                latents_mean=[0.1, -0.2, 0.3, 0.0],
                latents_std=[0.9, 1.1, 1.2, 1.0],
            ),
            transformer=diffusers.QwenImageTransformer2DModel(
                in_channels=16,
                out_channels=4,
                num_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=16,
                axes_dims_rope=(4, 4, 8),
            ),
            **qwen_vl(),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        )

    return saved(tmp, "qwen", make)


@pytest.fixture(scope="session")
def qwen_edit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen-Image-Edit."""
    return _qwen(tmp_path_factory, "QwenImageEditPipeline")


@pytest.fixture(scope="session")
def qwen_plus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen-Image-Edit-2509 and later."""
    return _qwen(tmp_path_factory, "QwenImageEditPlusPipeline")


@pytest.fixture(scope="session")
def longcat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LongCat-Image-Edit. Its pipeline counts on 16 latent channels."""
    import diffusers

    def make(folder: Path) -> Any:
        parts = qwen_vl()
        return diffusers.LongCatImageEditPipeline(
            vae=kl(shift_factor=0.1, scaling_factor=0.4, latent_channels=16),
            transformer=diffusers.LongCatImageTransformer2DModel(
                in_channels=64,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=16,
                pooled_projection_dim=16,
                axes_dims_rope=[4, 4, 8],
            ),
            text_encoder=parts["text_encoder"],
            tokenizer=parts["tokenizer"],
            text_processor=parts["processor"],
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        )

    return saved(tmp_path_factory, "longcat", make)


@pytest.fixture(scope="session")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Editor]]:
    """Load a folder as a run does, for its own family or the named one; once a session each, but for `fresh` ones."""
    loaded: dict[tuple[Path, str | None, str], Editor] = {}
    with FileCache(tmp_path_factory.mktemp("cache")) as cache:

        def get(folder: Path, family: str | None = None, dtype: str = "float32", fresh: bool = False) -> Editor:
            key = folder, family, dtype
            if fresh or key not in loaded:
                editor = load_editor(resolve_model(str(folder), family, folder.parent, cache), "cpu", dtype)
                if fresh:
                    return editor
                loaded[key] = editor
            return loaded[key]

        yield get
