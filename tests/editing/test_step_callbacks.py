"""An edit that is watched: what is shown, and that watching changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diffgen.editing.editor import EditBatch
from diffgen.editing.pipelines.callbacks import shown_steps
from diffgen.editing.pipelines.schedulers import SCHEDULERS
from tests.editing.tiny_models import job, picture, settings

pytestmark = pytest.mark.editors


def watched(editor: Any, family: str, **fields: Any) -> tuple[list[str], list[np.ndarray], np.ndarray]:
    """(captions, pictures, the edit)."""
    seen: list[tuple[str, list[np.ndarray]]] = []
    jobs = [job(settings(family, **fields))]
    (edited,) = editor.edit(EditBatch([picture(0)], jobs, watch=lambda *what: seen.append(what)))
    (plain,) = editor.edit(EditBatch([picture(0)], jobs))
    assert np.array_equal(edited.image, plain.image)
    assert all(images[0].shape == (48, 64, 3) for _, images in seen)
    return [caption for caption, _ in seen], [images[0] for _, images in seen], edited.image


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (10, [3, 7, 10])], ids=str
)
def test_the_moments(count: int, expected: list[int]) -> None:
    assert shown_steps(count) == expected


@pytest.mark.parametrize("model", ["sd", "sdxl"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_img2img_is_noised_as_far_as_its_strength_and_denoised(
    model: str, scheduler: str, load: Any, request: Any
) -> None:
    editor = load(request.getfixturevalue(model))
    captions, pictures, edited = watched(editor, "img2img", strength=0.6, steps=6, scheduler=scheduler)
    assert captions[2].startswith("noise of strength 0.6")
    assert captions[-1].startswith("after step ")
    assert [caption.split()[0] for caption in captions] == ["noise"] * 3 + ["after"] * 3
    (clean,) = editor.edit(EditBatch([picture(0)], [job(settings("img2img", strength=0.0))]))
    away = [np.abs(image.astype(float) - clean.image).mean() for image in pictures[:3]]
    assert 0 < away[0] < away[1] < away[2], "more noise at each level"
    assert np.abs(pictures[-1].astype(float) - edited).mean() <= 1, "the last step is the edit"


@pytest.mark.parametrize("model", ["sd3", "flux", "zimage"])
def test_flow_matching_is_watched_the_same_way(model: str, load: Any, request: Any) -> None:
    fields = {"strength": 0.6, "steps": 6, "guidance": 0.0}
    captions, pictures, edited = watched(load(request.getfixturevalue(model)), "img2img", **fields)
    assert [caption.split()[0] for caption in captions] == ["noise"] * 3 + ["after"] * 3
    assert np.abs(pictures[-1].astype(float) - edited).mean() <= 1, "the last step is the edit"


@pytest.mark.parametrize("model", ["kontext", "klein", "qwen_plus"])
def test_instruct_of_flow_matching_is_watched_to_the_whole_edit(model: str, load: Any, request: Any) -> None:
    captions, pictures, edited = watched(load(request.getfixturevalue(model)), "instruct", strength=1.0, steps=2)
    assert captions == ["pure noise, at any strength", "after step 1 of 2", "after step 2 of 2"]
    assert np.abs(pictures[-1].astype(float) - edited).mean() <= 1


def test_strength_0_takes_no_way(sd: Any, load: Any) -> None:
    assert watched(load(sd), "img2img", strength=0.0)[0] == []


def test_instruct_begins_at_pure_noise_whatever_its_strength(ip2p: Any, load: Any) -> None:
    editor = load(ip2p)
    weak = watched(editor, "instruct", strength=0.2, steps=4)
    strong = watched(editor, "instruct", strength=0.9, steps=4)
    assert weak[0] == ["pure noise, at any strength", "after step 1 of 4", "after step 3 of 4", "after step 4 of 4"]
    assert all(np.array_equal(a, b) for a, b in zip(weak[1], strong[1], strict=True)), "strength comes after the steps"


def test_one_step_is_one_step(pocket_like: Any, load: Any) -> None:
    captions, _, _ = watched(load(pocket_like), "instruct", strength=0.5, steps=1, guidance=1.0)
    assert captions == ["pure noise, at any strength", "after step 1 of 1"]


def test_a_pipeline_that_calls_nobody_back_shows_its_start(xl_ip2p: Any, load: Any) -> None:
    assert watched(load(xl_ip2p), "instruct", strength=0.5, steps=2)[0] == ["pure noise, at any strength"]
