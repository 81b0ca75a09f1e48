"""Tiny models, written to disk once a session and loaded as users' are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from diffgen.cache import FileCache
from diffgen.editors import Editor, load_editor
from diffgen.models import resolve_model
from tests.editors.tiny_models import NOISE, kl, saved, text_encoder, unet, write_tokenizer, xl_parts


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


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
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Editor]]:
    """Load a folder as a run does; once a session each."""
    loaded: dict[Path, Editor] = {}
    with FileCache(tmp_path_factory.mktemp("cache")) as cache:

        def get(folder: Path, fresh: bool = False) -> Editor:
            if fresh or folder not in loaded:
                editor = load_editor(resolve_model(str(folder), None, folder.parent, cache), "cpu", "float32")
                if fresh:
                    return editor
                loaded[folder] = editor
            return loaded[folder]

        yield get
