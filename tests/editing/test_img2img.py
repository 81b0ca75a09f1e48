"""The img2img family: exactly as many steps as asked, from the level nearest the strength."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from diffgen.editing.editor import EditBatch
from diffgen.editing.families import effective_strength
from tests.editing.tiny_models import Calls, denoiser, job, picture, settings, stock_edit

pytestmark = pytest.mark.editors


@pytest.mark.parametrize("model", ["sd", "sdxl", "sd3", "flux", "zimage"])
@pytest.mark.parametrize(("strength", "steps"), [(0.02, 1), (0.5, 1), (0.3, 4), (0.99, 3), (1.0, 2)])
def test_the_unet_runs_exactly_the_steps(
    model: str, strength: float, steps: int, load: Any, request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = load(request.getfixturevalue(model))
    unet = Calls(monkeypatch, denoiser(editor), "forward")
    wanted = settings("img2img", strength=strength, steps=steps, guidance=0.0)
    made = editor.edit(EditBatch([picture(0)], [job(wanted)]))
    assert unet.rows == [1] * steps
    assert made[0].strength == effective_strength(wanted)


@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_the_stock_pipeline_gives_the_same_picture(model: str, load: Any, request: Any) -> None:
    """Our batching, caching and decoding change nothing, but for the VAE's mode in place of a sample."""
    import diffusers

    folder, image = request.getfixturevalue(model), picture(0)
    wanted = settings("img2img", strength=0.5, steps=3, guidance=5.0, scheduler="euler")
    ours = load(folder).edit(EditBatch([image], [job(wanted, seed=4, negative="sun")]))[0].image
    name = f"StableDiffusion{'XL' if model == 'sdxl' else ''}Img2ImgPipeline"
    stock = getattr(diffusers, name).from_pretrained(str(folder), safety_checker=None)
    plain = stock_edit(stock, image, 6, 0.5)
    assert np.abs(ours - plain).max() <= 1


@pytest.mark.parametrize(("strength", "steps"), [(0.3, 4), (0.9, 3), (1.0, 2), (0.02, 1)])
def test_a_consistency_model_runs_exactly_the_steps(
    strength: float, steps: int, lcm: Any, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its schedules have 50 levels at most."""
    editor = load(lcm)
    unet = Calls(monkeypatch, denoiser(editor), "forward")
    wanted = settings("img2img", strength=strength, steps=steps, guidance=8.0, scheduler="lcm", levels=50)
    made = editor.edit(EditBatch([picture(0)], [job(wanted, negative="sun")]))
    assert unet.rows == [1] * steps
    assert made[0].strength == effective_strength(wanted) == max(1, round(50 * strength)) / 50


@pytest.mark.parametrize("model", ["sd3", "flux", "zimage"])
def test_the_stock_pipeline_of_flow_matching_gives_the_same_picture(model: str, load: Any, request: Any) -> None:
    import diffusers
    import torch

    folder, image = request.getfixturevalue(model), picture(0, 64, 64)
    wanted = settings("img2img", strength=0.5, steps=3, guidance=4.0)
    ours = load(folder).edit(EditBatch([image], [job(wanted, seed=4, negative="sun")]))[0].image
    names = {"sd3": "StableDiffusion3", "flux": "Flux", "zimage": "ZImage"}
    stock = getattr(diffusers, f"{names[model]}Img2ImgPipeline").from_pretrained(str(folder))
    posterior = diffusers.models.autoencoders.vae.DiagonalGaussianDistribution
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(posterior, "sample", lambda self, generator=None: self.mode())
        plain = stock(
            prompt="snow",
            **({} if model == "flux" else {"negative_prompt": "sun"}),
            image=torch.from_numpy(image).permute(2, 0, 1)[None] / 255,
            height=64,
            width=64,
            sigmas=np.linspace(1, 1 / 6, 6).tolist(),
            generator=torch.Generator().manual_seed(4),
            num_inference_steps=6,
            strength=0.5,
            guidance_scale=4.0,
            max_sequence_length=16,
            output_type="np",
        ).images[0]
    assert np.abs(ours - plain * 255).max() <= 1


def test_asking_for_effective_strength_imports_no_torch() -> None:
    program = (
        "import sys; from diffgen.editing.families import FAMILIES; from diffgen.editing.pipelines import schedulers;"
        "print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"
