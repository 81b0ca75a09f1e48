"""Text to image on the real classes: from noise to a picture, and from a recipe without a dataset to one with labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from diffgen.checks import detectors
from diffgen.checks.detections import Detection
from diffgen.editing.editor import EditBatch
from diffgen.editing.families import effective_object_strength, effective_strength
from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from tests.editing.tiny_models import Calls, denoiser, job, settings
from tests.fakes import put, tree

pytestmark = pytest.mark.editors

MODELS = ("sd", "sdxl", "lcm", "sd3", "flux", "zimage")
ONE_PASS = ("lcm", "flux")


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def editor(model: str, load: Any, request: pytest.FixtureRequest) -> Any:
    return load(request.getfixturevalue(model), "text2img")


def asked(model: str = "", **changes: Any) -> Any:
    return settings("text2img", **({"strength": 1.0, "scheduler": "lcm" if model == "lcm" else None} | changes))


def blank(height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def one(editor: Any, wanted: Any, **changes: Any) -> np.ndarray:
    (made,) = editor.edit(EditBatch([blank()], [job(wanted, **changes)]))
    assert made.strength == 1.0
    return made.image


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (32, 96)])
def test_the_size_is_what_is_asked_for(editor: Any, model: str, height: int, width: int) -> None:
    (made,) = editor.edit(EditBatch([blank(height, width)], [job(asked(model))]))
    assert made.image.shape == (height, width, 3)
    assert made.image.dtype == np.uint8


def test_the_prompt_and_the_seed_make_the_picture_and_the_blank_does_not(editor: Any, model: str) -> None:
    wanted = asked(model, guidance=4.0)
    first = one(editor, wanted, seed=4)
    assert np.array_equal(first, one(editor, wanted, seed=4))
    assert (first != one(editor, wanted, seed=5)).mean() > 0.5
    assert (first != one(editor, wanted, seed=4, prompt="a street in fog")).any()
    (made,) = editor.edit(EditBatch([blank() + 50], [job(wanted, seed=4)]))
    assert np.array_equal(made.image, first)


def test_a_picture_does_not_depend_on_its_batch(editor: Any, model: str) -> None:
    wanted = asked(model, guidance=4.0)
    jobs = [job(wanted, seed=seed, prompt=text, negative="sun") for seed, text in enumerate(("car", "bus", "a dog"))]
    together = editor.edit(EditBatch([blank()] * 3, jobs))
    for made, alone in zip(together, jobs, strict=True):
        (single,) = editor.edit(EditBatch([blank()], [alone]))
        assert np.abs(made.image.astype(int) - single.image).max() <= 1


def test_each_text_is_read_once_and_the_steps_are_those_asked_for(
    editor: Any, model: str, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, wanted = editor._pipe, asked(model, steps=3, guidance=4.0)
    texts = Calls(monkeypatch, pipe.text_encoder, "forward")
    steps = Calls(monkeypatch, denoiser(editor), "forward")
    prompts = [f"{model} picture of {thing}" for thing in ("a car", "a bus", "a car", "a car")]
    jobs = [job(wanted, seed=seed, prompt=text, negative="rain") for seed, text in enumerate(prompts)]
    editor.edit(EditBatch([blank()] * 2, jobs[:2]))
    editor.edit(EditBatch([blank()] * 2, jobs[2:]))
    assert len(texts.rows) == (2 if model in ONE_PASS else 3)  # two prompts, and the negative one where it is read
    assert len(steps.rows) == 2 * 3


@pytest.mark.parametrize("model", ["sd", "sdxl", "sd3", "flux"], indirect=True)
def test_the_stock_pipeline_gives_the_same_picture(editor: Any, model: str, request: Any) -> None:
    import diffusers

    wanted = asked(model, steps=3, guidance=4.0)
    ours = one(editor, wanted, seed=4, negative="sun")
    stock = diffusers.DiffusionPipeline.from_pretrained(
        str(request.getfixturevalue(model)), **({"safety_checker": None} if model == "sd" else {})
    )
    if model == "sd":  # its PNDM runs a step more than it is asked for, and is replaced
        stock.scheduler = diffusers.EulerDiscreteScheduler.from_config(stock.scheduler.config)
    plain = stock(
        prompt="snow",
        **({} if model == "flux" else {"negative_prompt": "sun"}),
        **({"max_sequence_length": 16} if model in ("sd3", "flux") else {}),
        height=48,
        width=64,
        generator=torch.Generator().manual_seed(4),
        num_inference_steps=3,
        guidance_scale=4.0,
        output_type="np",
    ).images[0]
    assert np.abs(ours - plain * 255).max() <= 1


def test_another_scheduler_makes_another_picture(load: Any, sd: Path) -> None:
    editor = load(sd, "text2img")
    own, other = one(editor, asked()), one(editor, asked(scheduler="dpm++2m"))
    assert (own != other).any()


def test_watching_changes_nothing(editor: Any, model: str) -> None:
    seen: list[str] = []
    wanted = asked(model)
    (made,) = editor.edit(EditBatch([blank()], [job(wanted)], watch=lambda caption, images: seen.append(caption)))
    assert seen[0].startswith("pure noise")
    assert len(seen) > 1
    assert np.array_equal(made.image, one(editor, wanted))


def test_half_precision_makes_nearly_the_same_picture(editor: Any, model: str, load: Any, request: Any) -> None:
    wanted = asked(model, guidance=4.0)
    half = one(load(request.getfixturevalue(model), "text2img", "bfloat16"), wanted).astype(int)
    assert np.abs(half - one(editor, wanted)).mean() < 8
    assert half.std() > 1


def test_strength_is_always_1() -> None:
    assert effective_strength(asked(strength=0.3)) == 1.0
    assert effective_object_strength(asked()) is None


# --- a run, with a detector of our own


class Witness:
    """A detector that finds a car in every picture, how sure depends on the picture."""

    def __init__(self, names: tuple[str, ...] = ("dog", "Car")) -> None:
        self.names = names

    def __call__(self, images: Any) -> list[list[Detection]]:
        return [
            [
                Detection(1, 0.3 + (int(image.sum()) % 7) / 10, (0.1, 0.2, 0.5, 0.6)),
                Detection(0, 0.99, (0.0, 0.0, 1.0, 1.0)),
            ]
            for image in images
        ]


def recipe(root: Path, model: Path, **fields: Any) -> Path:
    put(root / "witness.pt", "weights")
    given = {
        "text2img": {"classes": ["car"], "images": 4, "width": 72, "height": 64},
        "output": str(root / "out"),
        "model": {"folder": str(model), "steps": 2},
        "detector": "witness.pt",
        "conditions": ["night", "fog"],
        "checks": {"contrast": None, "confidence": 0.5, "review_below": 0.8},
        "batch_size": 3,
        "image": {"format": "png"},
        "device": "cpu",
        **fields,
    }
    return put(root / "recipe.yaml", yaml.safe_dump(given))


@pytest.mark.parametrize("model", ["sd", "flux"])
def test_a_run_makes_a_dataset_and_resumes_to_the_same_bytes(
    tmp_path: Path, model: str, request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detectors, "load_detector", lambda *_, **__: Witness())
    folder = request.getfixturevalue(model)
    whole = run(load_recipe(recipe(tmp_path / "a", folder)))
    assert whole.planned == 8
    assert whole.accepted > 0
    out = tmp_path / "a/out/dataset"
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()[1:]]
    assert [row["label_origin"] for row in rows] == ["detector"] * whole.accepted
    assert sum(row["review"] for row in rows) == whole.to_review
    for row in rows:
        label = (out / row["image"].replace("images/", "labels/")).with_suffix(".txt").read_text()
        assert label == "0 0.300000 0.400000 0.400000 0.400000\n"
        assert row["confidences"][0] >= 0.5
    first = run(load_recipe(recipe(tmp_path / "b", folder)), max_minutes=0)
    assert first.made_now < 8
    assert run(load_recipe(recipe(tmp_path / "b", folder))).made_now == 8 - first.made_now
    one, two = (tree(tmp_path / name / "out") for name in "ab")
    for part in ("images/", "dataset/"):
        assert {k: v for k, v in one.items() if k.startswith(part)} == {
            k: v for k, v in two.items() if k.startswith(part)
        }


def test_ultralytics_takes_the_dataset_as_it_is(tmp_path: Path, sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "load_detector", lambda *_, **__: Witness())
    summary = run(load_recipe(recipe(tmp_path, sd, checks={"contrast": None, "confidence": 0.05})))
    assert summary.accepted == 8
    from diffgen.checks.detectors.ultralytics import process_state_restored

    with process_state_restored():
        from ultralytics.cfg import get_cfg
        from ultralytics.data.build import build_yolo_dataset
        from ultralytics.data.utils import check_det_dataset

        data = check_det_dataset(str(tmp_path / "out/dataset/data.yaml"), autodownload=False)
        for split in ("train", "val"):
            seen = build_yolo_dataset(get_cfg(), data[split], 2, data, mode="val")
            assert len(seen.labels) == 8
            assert all(len(label["cls"]) == 1 for label in seen.labels)


def test_a_detector_that_lacks_a_class_says_what_it_knows(
    tmp_path: Path, sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detectors, "load_detector", lambda *_, **__: Witness(("dog", "cat")))
    with pytest.raises(UsageError, match="has no class 'car', so it cannot label") as caught:
        run(load_recipe(recipe(tmp_path, sd)))
    assert "dog, cat" in str(caught.value.hint)
    assert not (tmp_path / "out/records-0.jsonl").exists()
