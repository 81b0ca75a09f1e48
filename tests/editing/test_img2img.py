"""The img2img family: exactly as many steps as asked, from the level nearest the strength."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from diffgen.editing.editor import EditBatch
from diffgen.editing.families import effective_strength
from diffgen.editing.families.img2img import schedule
from tests.editing.tiny_models import Calls, denoiser, job, picture, settings, stock_edit

pytestmark = pytest.mark.editors

STRENGTHS = [s / 20 for s in range(1, 21)]


@pytest.mark.parametrize("steps", range(1, 51))
def test_schedule_runs_the_steps_from_the_nearest_level(steps: int) -> None:
    for strength in [0.001, 0.01, *STRENGTHS]:
        total, share = schedule(strength, steps)
        assert steps <= total <= 1000
        assert 0 < share <= 1
        # the arithmetic of diffusers' get_timesteps
        assert min(int(total * share), total) == steps
        best = min(abs(steps / n - strength) for n in range(steps, 1001))
        assert abs(steps / total - strength) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50])
def test_effective_strength_does_not_shrink(steps: int) -> None:
    levels = [effective_strength(settings("img2img", strength=i / 500, steps=steps)) for i in range(501)]
    assert levels[0] == 0
    assert levels[-1] == 1
    assert all(a <= b for a, b in itertools.pairwise(levels))
    assert levels[1] > 0


def test_between_two_equally_near_levels_the_lower_is_taken() -> None:
    assert schedule(0.75, 1)[0] == 2


def test_finer_than_training_is_not_asked_for() -> None:
    assert schedule(0.01, 50)[0] == 1000
    assert schedule(0.01, 5, train_steps=100)[0] == 100


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
    wanted = settings("img2img", strength=0.5, steps=3, guidance=5.0, scheduler="ddim")
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
    wanted = settings("img2img", strength=strength, steps=steps, guidance=8.0, scheduler="lcm")
    made = editor.edit(EditBatch([picture(0)], [job(wanted, negative="sun")]))
    assert unet.rows == [1] * steps
    assert made[0].strength == effective_strength(wanted) >= steps / 50


@pytest.mark.parametrize("model", ["sd3", "flux", "zimage"])
def test_the_stock_pipeline_of_flow_matching_gives_the_same_picture(model: str, load: Any, request: Any) -> None:
    import diffusers
    import torch

    folder, image = request.getfixturevalue(model), picture(0)
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
            height=48,
            width=64,
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
