"""Strength is a level of the model's own schedule, the same at every size and number of steps."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from diffgen.editing.levels import effective_object_strength, effective_strength, levels, object_steps
from diffgen.editing.pipelines.schedulers import SCHEDULERS, Schedulers
from tests.editing.tiny_models import settings

pytestmark = pytest.mark.editors

STRENGTHS = [0.001, 0.01, *(s / 20 for s in range(1, 21))]


def asked(**fields: Any) -> Any:
    return settings("img2img", **fields)


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50])
def test_the_first_level_is_the_strength_whatever_the_steps(steps: int) -> None:
    for strength in STRENGTHS:
        run = levels(asked(strength=strength, steps=steps))
        assert run[0] == strength == effective_strength(asked(strength=strength, steps=steps))
        assert len(run) == min(steps, round(1000 * strength)), "no more steps than the training has levels below"
        gaps = -np.diff([*run, 0.0])
        assert np.allclose(gaps, gaps[0])
    assert levels(asked(strength=0.0, steps=steps)) == ()


@pytest.mark.parametrize("known", [1, 2, 4, 8, 50])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8])
def test_a_distilled_model_meets_only_levels_that_it_knows(known: int, steps: int) -> None:
    trained = {k / known for k in range(1, known + 1)}
    firsts = []
    for strength in STRENGTHS:
        run = levels(asked(strength=strength, steps=steps, levels=known))
        assert set(run) <= trained
        assert len(run) == min(steps, round(run[0] * known))
        assert all(a > b for a, b in itertools.pairwise(run))
        below = trained - {1.0} if strength < 1 and known > 1 else trained
        assert abs(run[0] - strength) == pytest.approx(min(abs(level - strength) for level in below))
        firsts.append(run[0])
    assert firsts == sorted(firsts), "the change never shrinks"
    assert firsts[-1] == 1


def test_the_heavy_presets_of_turbo_models_keep_something_of_the_source() -> None:
    assert levels(asked(strength=0.9, steps=4, levels=4)) == (0.75, 0.5, 0.25)
    assert levels(asked(strength=0.65, steps=4, levels=4)) == (0.75, 0.5, 0.25)
    assert levels(asked(strength=0.6, steps=4, levels=4)) == (0.5, 0.25)
    assert levels(asked(strength=1.0, steps=2, levels=4)) == (1.0, 0.5)
    assert levels(asked(strength=0.625, steps=4, levels=4))[0] == 0.5, "of two equally near the lower"


def test_objects_begin_at_the_nearest_of_the_scene_s_levels() -> None:
    wanted = asked(strength=0.8, steps=8, object_strength=0.33)
    assert object_steps(wanted) == 3
    assert effective_object_strength(wanted) == 0.3
    assert effective_object_strength(asked(strength=0.75, steps=4, levels=4, object_strength=0.2)) == 0.25
    assert effective_object_strength(asked(strength=0.8, steps=8)) is None


SD: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def scheduler_for(name: str, config: dict[str, Any], **fields: Any) -> Any:
    import diffusers

    own = diffusers.FlowMatchEulerDiscreteScheduler if name == "flow_euler" else diffusers.PNDMScheduler
    scheduler = Schedulers(own(**config)).at_levels(asked(scheduler=name, **fields))
    scheduler.set_timesteps(50, device="cpu")
    return scheduler


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize(("strength", "steps"), [(0.65, 20), (0.65, 7), (1.0, 4), (0.01, 5), (0.3, 1)])
def test_every_scheduler_meets_the_level(name: str, spacing: str, strength: float, steps: int) -> None:
    """At .65 of the schedule of Stable Diffusion 1.5, whatever its spacing and the steps: its timestep 649."""
    scheduler = scheduler_for(
        name, {**SD, "steps_offset": 1, "timestep_spacing": spacing}, strength=strength, steps=steps
    )
    times = scheduler.timesteps.tolist()
    assert times[0] == round(1000 * strength) - 1
    assert len(times) == (2 * steps - 1 if name == "heun" else steps)
    assert times == sorted(times, reverse=True)
    if hasattr(scheduler, "sigmas"):
        assert len(scheduler.sigmas) == (2 * steps if name == "heun" else steps + 1)
        share = float(1 - scheduler.alphas_cumprod[int(times[0])]) ** 0.5
        sigma = float(scheduler.sigmas[0])
        assert sigma / (1 + sigma**2) ** 0.5 == pytest.approx(share, rel=1e-5)


@pytest.mark.parametrize("option", ["use_karras_sigmas", "use_exponential_sigmas"])
@pytest.mark.parametrize("name", ["euler", "dpm++2m", "deis", "heun"])
def test_other_spacings_of_the_noise_begin_at_the_same_level(name: str, option: str) -> None:
    plain = scheduler_for(name, SD, strength=0.65, steps=8)
    other = scheduler_for(name, SD, strength=0.65, steps=8, scheduler_options=((option, True),))
    assert float(other.sigmas[0]) == pytest.approx(float(plain.sigmas[0]), rel=1e-4)
    assert other.timesteps[0] == pytest.approx(float(plain.timesteps[0]), abs=1)
    assert not np.allclose(other.sigmas[1:-1], plain.sigmas[1:-1])


def shifted(share: float, shift: float) -> float:
    return shift * share / (1 + (shift - 1) * share)


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_flow_matching_has_its_own_shift_once_and_at_its_native_size(steps: int) -> None:
    """Esser et al., Scaling Rectified Flow Transformers, 2024, 5.3.2; FLUX.1: a shift of e^1.15 at 1024 × 1024."""
    static = scheduler_for("flow_euler", {"shift": 3.0}, strength=0.65, steps=steps, native=1024)
    assert float(static.sigmas[0]) == pytest.approx(shifted(0.65, 3.0), rel=1e-5)
    flux = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "shift": 3.0}
    for size in (None, 64, 2048):
        dynamic = scheduler_for("flow_euler", flux, strength=0.65, steps=steps, native=1024, long_side=size)
        assert float(dynamic.sigmas[0]) == pytest.approx(shifted(0.65, np.exp(1.15)), rel=1e-5)
        assert dynamic.timesteps[0] == pytest.approx(1000 * float(dynamic.sigmas[0]))
        assert float(dynamic.sigmas[-1]) == 0
    smaller = scheduler_for("flow_euler", flux, strength=0.65, steps=steps, native=512)
    assert float(smaller.sigmas[0]) < shifted(0.65, np.exp(1.15))


def test_a_second_run_begins_anew() -> None:
    scheduler = scheduler_for("dpm++2m", SD, strength=0.5, steps=3)
    first = scheduler.timesteps.clone()
    scheduler.set_timesteps(12, device="cpu")
    assert scheduler.timesteps.equal(first)
    assert scheduler.step_index is None
    assert scheduler.model_outputs == [None, None]
