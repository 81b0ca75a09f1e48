"""Objects with a strength of their own: held to their source until their own start, and the feather between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from diffgen.dataset.geometry import View
from diffgen.editing.editor import EditBatch
from diffgen.editing.levels import object_steps
from diffgen.editing.pipelines.latents import noise
from diffgen.editing.pipelines.schedulers import SCHEDULERS
from tests.editing.tiny_models import job, picture, settings

pytestmark = pytest.mark.editors

FULL = np.ones((48, 64), np.float32)
HALF = np.zeros((48, 64), np.float32)
HALF[:, :32] = 1
# What draws new noise at each step, or remembers earlier ones, does not repeat a run that began later to the last bit.
EXACT = {"euler", "heun"}


def latents(editor: Any, held: np.ndarray | None, **fields: Any) -> Any:
    """Edited model latents of one picture."""
    batch = EditBatch([picture(0)], [job(settings("img2img", **fields))], None if held is None else [held])
    with torch.inference_mode():
        source = editor._codec.encode(batch.images)
        return editor._denoise(source, batch), editor._codec.to_model(source)


@pytest.mark.parametrize("model", ["sd", "sdxl"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_held_picture_is_a_plain_run_at_that_strength(model: str, scheduler: str, load: Any, request: Any) -> None:
    editor = load(request.getfixturevalue(model))
    held, source = latents(editor, FULL, strength=0.8, steps=8, scheduler=scheduler, object_strength=0.3)
    plain, _ = latents(editor, None, strength=0.3, steps=3, scheduler=scheduler)
    whole, _ = latents(editor, None, strength=0.8, steps=8, scheduler=scheduler)
    distance = (held - plain).abs().mean() / (whole - source).abs().mean()
    assert distance < (1e-5 if scheduler in EXACT else 0.2), float(distance)
    assert (whole - plain).abs().mean() > 0.1 * (plain - source).abs().mean(), "the two strengths differ at all"


@pytest.mark.parametrize("model", ["sd", "sdxl"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_strength_0_is_the_source_and_the_scene_does_not_know(
    model: str, scheduler: str, load: Any, request: Any
) -> None:
    editor = load(request.getfixturevalue(model))
    fields = {"strength": 0.6, "steps": 3, "scheduler": scheduler}
    held, source = latents(editor, HALF, **fields, object_strength=0.0)
    assert torch.equal(held[..., :4], source[..., :4]), "clean, not noised"
    assert (held[..., 4:] - source[..., 4:]).abs().mean() > 0.05


@pytest.mark.parametrize("model", ["sd3", "flux", "schnell", "zimage"])
def test_flow_matching_holds_exactly(model: str, load: Any, request: Any) -> None:
    editor = load(request.getfixturevalue(model))
    held, source = latents(editor, FULL, strength=0.8, steps=8, object_strength=0.3)
    plain, _ = latents(editor, None, strength=0.3, steps=3)
    whole, _ = latents(editor, None, strength=0.8, steps=8)
    assert (held - plain).abs().mean() < 1e-5 * (whole - source).abs().mean()
    assert (whole - plain).abs().mean() > 0.1 * (plain - source).abs().mean(), "the two strengths differ at all"
    half, _ = latents(editor, HALF, strength=0.6, steps=3, object_strength=0.0)
    assert torch.equal(half[..., :4], source[..., :4]), "clean, not noised"
    assert (half[..., 4:] - source[..., 4:]).abs().mean() > 0.05


@pytest.mark.parametrize("name", ["unipc", "sasolver"])
def test_schedulers_that_would_undo_it_are_replaced(name: str, sd: Any, load: Any) -> None:
    editor = load(sd)
    held, source = latents(editor, FULL, strength=0.8, steps=4, scheduler=name, object_strength=0.0)
    assert torch.equal(held, source)
    assert type(editor._pipe.scheduler).__name__ == "DPMSolverMultistepScheduler"


@pytest.mark.parametrize("steps", [1, 2, 5, 20, 50])
@pytest.mark.parametrize("strength", [i / 20 for i in range(1, 21)])
def test_object_steps_lie_between_none_and_the_scene_s(steps: int, strength: float) -> None:
    counts = [
        object_steps(settings("img2img", strength=strength, steps=steps, object_strength=strength * i / 10))
        for i in range(11)
    ]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert counts[-1] == steps


def test_the_feather_passes_through_the_strengths_between(sd: Any, load: Any) -> None:
    editor = load(sd)
    ramp = np.tile(np.linspace(1, 0, 64, dtype=np.float32), (48, 1))
    made, source = latents(editor, ramp, strength=0.8, steps=8, scheduler="euler", object_strength=0.0)
    change = (made - source).abs().mean((0, 1, 2))
    assert change[0] == 0
    assert change[-2:].mean() > change[1:3].mean() > 0


@pytest.mark.parametrize("model", ["ip2p", "xl_ip2p", "pocket_like", "cosxl", "kontext", "klein", "qwen_plus"])
def test_instruct_takes_the_strength_as_a_map(model: str, load: Any, request: Any) -> None:
    editor = load(request.getfixturevalue(model))
    fields = {"strength": 0.8, "steps": 2 if model == "cosxl" else 1, "image_guidance": 1.5}
    if model == "pocket_like":
        fields |= {"severity": "{prompt} {percent}"}
    image = picture(0)
    none = job(settings("instruct", **fields))
    some = job(settings("instruct", **fields, object_strength=0.0, feather=0))
    half = job(settings("instruct", **fields, object_strength=0.4, feather=0))
    (plain,) = editor.edit(EditBatch([image], [none]))
    (held,) = editor.edit(EditBatch([image], [some], [FULL]))
    (between,) = editor.edit(EditBatch([image], [half], [FULL]))
    (trip,) = editor.edit(EditBatch([image], [job(settings("instruct", **{**fields, "strength": 0.0}))]))
    assert (held.image == trip.image).all()
    assert plain.object_strength is None
    assert (held.object_strength, between.object_strength) == (0.0, 0.4)
    far = np.abs(plain.image.astype(int) - trip.image).mean()
    near = np.abs(between.image.astype(int) - trip.image).mean()
    assert 0 < near < far
    (outside,) = editor.edit(EditBatch([image], [some], [np.zeros((48, 64), np.float32)]))
    assert (outside.image == plain.image).all()


def test_batches_of_masks_equal_single_ones(sd: Any, load: Any) -> None:
    editor = load(sd)
    wanted = settings("img2img", strength=0.6, steps=3, object_strength=0.2, feather=4)
    jobs = [job(wanted, seed) for seed in (1, 2)]
    images = [picture(1), picture(2)]
    masks = [HALF, 1 - HALF]
    together = editor.edit(EditBatch(images, jobs, masks))
    for image, one, mask, made in zip(images, jobs, masks, together, strict=True):
        (alone,) = editor.edit(EditBatch([image], [one], [mask]))
        assert np.abs(alone.image.astype(int) - made.image).max() <= 1
        assert made.object_strength == pytest.approx(0.2)


def test_parts_of_a_picture_share_one_field_of_noise() -> None:
    one = job(settings("img2img"), seed=5)
    views = [View(0, 0, (128, 96)), View(64, 32, (128, 96))]
    rows, _ = noise([one, one], (4, 8, 8), views, 8)
    whole, _ = noise([one], (4, 12, 16))
    assert torch.equal(rows[0], whole[0, :, :8, :8])
    assert torch.equal(rows[1], whole[0, :, 4:12, 8:16])
