"""The inpaint family on the real classes: a UNet made for it, and plain ones."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from diffgen.checks import second_look
from diffgen.checks.detections import Detection
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.formats.yolo import label_path
from diffgen.dataset.images import decode
from diffgen.editing.editor import EditBatch
from diffgen.editing.families import effective_strength, load_editor
from diffgen.errors import UsageError
from diffgen.models.find import resolve_model
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from tests.editing.tiny_models import Calls, job, picture, settings, stock_edit
from tests.fakes import photo, put, save, write_recipe

pytestmark = pytest.mark.editors

MODELS = ("sd_inpaint", "xl_inpaint", "sd", "sdxl")  # the last two see no mask
MASK = np.zeros((48, 64), np.float32)
MASK[16:40, 8:32] = 1  # whole cells of the latents, so that ours and the stock mask agree
SOFT = MASK * np.linspace(0.1, 1, 64, dtype=np.float32)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def editor(model: str, load: Any, request: pytest.FixtureRequest) -> Any:
    return load(request.getfixturevalue(model), "inpaint")


def asked(**changes: Any) -> Any:
    return settings("inpaint", **{"task": "remove", "strength": 1.0, "feather": 4, **changes})


def one(editor: Any, wanted: Any, image: np.ndarray, mask: np.ndarray = MASK, **changes: Any) -> np.ndarray:
    return editor.edit(EditBatch([image], [job(wanted, **changes)], [mask]))[0].image


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (8, 128), (72, 40)])
def test_size_out_is_size_in(editor: Any, height: int, width: int) -> None:
    image, mask = picture(0, height, width), np.zeros((height, width), np.float32)
    mask[:8] = 1
    made = one(editor, asked(), image, mask)
    assert (made.shape, made.dtype) == (image.shape, np.uint8)


@pytest.mark.parametrize(("strength", "steps"), [(0.3, 4), (0.9, 3), (1.0, 2), (1.0, 1)])
def test_the_unet_runs_exactly_the_steps(
    editor: Any, strength: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet = Calls(monkeypatch, editor._pipe.unet, "forward")
    wanted = asked(strength=strength, steps=steps)
    (made,) = editor.edit(EditBatch([picture(0)], [job(wanted)], [MASK]))
    assert unet.rows == [1] * steps
    assert made.strength == effective_strength(wanted)
    assert made.object_strength is None


@pytest.mark.parametrize("model", ["sd_inpaint", "xl_inpaint"])
def test_strength_1_begins_from_noise_alone(editor: Any, model: str) -> None:
    """What is masked is then seen nowhere: neither in the start nor beside the mask."""
    images = [picture(0), picture(0)]
    images[1][MASK > 0] = 0
    whole = [one(editor, asked(steps=3), image) for image in images]
    assert np.array_equal(*whole)
    half = [one(editor, asked(steps=3, strength=0.5), image) for image in images]
    assert not np.array_equal(*half)


@pytest.mark.parametrize("model", ["sd_inpaint", "xl_inpaint", "sd"])
@pytest.mark.parametrize(("strength", "total"), [(1.0, 3), (0.5, 6)])
def test_the_stock_pipeline_gives_the_same_picture(
    editor: Any, model: str, strength: float, total: int, request: Any
) -> None:
    import diffusers

    image = picture(0)
    wanted = asked(strength=strength, steps=3, guidance=5.0, scheduler="euler")
    ours = one(editor, wanted, image, SOFT, seed=4, negative="sun")
    name = f"StableDiffusion{'XL' if model == 'xl_inpaint' else ''}InpaintPipeline"
    stock = getattr(diffusers, name).from_pretrained(str(request.getfixturevalue(model)), safety_checker=None)
    mask = torch.from_numpy(MASK)[None, None]
    plain = stock_edit(stock, image, total, strength, mask_image=mask, height=48, width=64)
    assert np.abs(ours - plain).max() <= 1


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_batch_of_different_sources_equals_singles(editor: Any, guidance: float) -> None:
    wanted = asked(guidance=guidance, strength=0.8)
    images, masks = [picture(i) for i in range(3)], [MASK, np.roll(MASK, 16, 1), SOFT]
    jobs = [job(wanted, seed=i, prompt=p, negative=n) for i, p, n in [(1, "a", "sun"), (2, "b", None), (3, "", "")]]
    together = [e.image for e in editor.edit(EditBatch(images, jobs, masks))]
    for image, one_job, mask, made in zip(images, jobs, masks, together, strict=True):
        (alone,) = editor.edit(EditBatch([image], [one_job], [mask]))
        assert np.abs(alone.image.astype(int) - made).max() <= 1
    backward = [e.image for e in editor.edit(EditBatch(images[::-1], jobs[::-1], masks[::-1]))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(together, backward, strict=True))


def test_same_seed_same_bytes_other_seed_other_image(editor: Any) -> None:
    image = picture(0)
    first = one(editor, asked(), image, seed=1)
    assert np.array_equal(first, one(editor, asked(), image, seed=1))
    assert not np.array_equal(first, one(editor, asked(), image, seed=2))


def test_watching_changes_nothing(editor: Any) -> None:
    seen: list[str] = []
    watched = editor.edit(
        EditBatch([picture(0)], [job(asked(steps=3))], [MASK], watch=lambda caption, _: seen.append(caption))
    )
    assert [caption.split()[0] for caption in seen] == ["noise"] * 3 + ["after"] * 3
    assert np.array_equal(watched[0].image, one(editor, asked(steps=3), picture(0)))


def test_texts_and_sources_are_encoded_once(
    model: str, load: Any, request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = load(request.getfixturevalue(model), "inpaint", fresh=True)
    texts = Calls(monkeypatch, editor._pipe.text_encoder, "forward")
    vae = Calls(monkeypatch, editor._pipe.vae, "encode")
    images = [picture(0), picture(1)]
    for _ in range(2):
        editor.edit(
            EditBatch(images, [job(asked(guidance=3.0), i, p, "sun") for i, p in enumerate(["a", "b"])], [MASK, MASK])
        )
    assert texts.rows == [1, 1, 1]
    assert vae.rows == [1] * (4 if "inpaint" in model else 2), "a UNet made for it sees the masked sources too"


@pytest.mark.parametrize("model", ["sd", "sdxl"])
@pytest.mark.parametrize("scheduler", ["euler", "euler_a", "dpm++2m", "heun", "lcm"])
def test_a_plain_unet_is_held_to_the_source_outside(
    editor: Any, model: str, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents: list[Any] = []
    decode_latents = editor._codec.decode
    monkeypatch.setattr(editor._codec, "decode", lambda z: latents.append(z) or decode_latents(z))
    one(editor, asked(steps=3, scheduler=scheduler), picture(0))
    source = editor._codec.encode([picture(0)])
    outside = torch.from_numpy(MASK[4::8, 4::8]) == 0
    change = (latents[0] - source).abs().amax((0, 1))
    assert change[outside].max() < 1e-4
    assert change[~outside].min() > 1e-3


@pytest.mark.parametrize("masks", [None, [], [MASK[:8]]])
def test_it_needs_a_mask_for_each_picture(sd_inpaint: Path, load: Any, masks: Any) -> None:
    with pytest.raises(ValueError, match="a mask as large as its image"):
        load(sd_inpaint, "inpaint").edit(EditBatch([picture(0)], [job(asked())], masks))


def test_its_classes_have_this_editor_by_themselves(
    sd_inpaint: Path, xl_inpaint: Path, ip2p: Path, tmp_path: Path
) -> None:
    with FileCache(tmp_path) as cache:
        for folder in (sd_inpaint, xl_inpaint):
            assert resolve_model(str(folder), None, tmp_path, cache).editor == "inpaint"
        with pytest.raises(UsageError, match="which the editor 'inpaint' cannot use"):
            load_editor(resolve_model(str(ip2p), "inpaint", tmp_path, cache), "cpu", "float32")


# --- a whole run on pictures that are drawn


ROWS = "0 0.3 0.4 0.3 0.4\n1 0.75 0.7 0.3 0.4\n"  # a car, a person


def street(root: Path, rows: str) -> Path:
    """Two train pictures of 100 × 76 and one val picture."""
    for i, split in enumerate(("train", "train", "val")):
        save(root / f"images/{split}/{i}.png", photo(i, (100, 76)))
        put(root / f"labels/{split}/{i}.txt", rows)
    return put(
        root / "data.yaml", json.dumps({"names": ["car", "person"], "train": "images/train", "val": "images/val"})
    )


def painted_run(root: Path, model: Path, condition: dict[str, Any], rows: str = ROWS, **fields: Any) -> Any:
    recipe = write_recipe(
        root / "r.yaml", street(root / "data", rows), root / "out", model=str(model), editor="inpaint", batch_size=2,
        conditions=[{"name": "c", "prompt": "{objects}", "steps": 2, **condition}], image={"format": "png"},
        objects={"feather": 3}, resolution={"long_side": 64}, **fields,
    )  # fmt: skip
    return run(load_recipe(recipe))


LEFT_CAR = "0 0.2 0.4 0.3 0.4"  # no newline at the end


@pytest.mark.parametrize("model", ["sd_inpaint", "sd"])
@pytest.mark.parametrize("task", ["remove", "background"])
def test_a_run_leaves_what_is_not_painted_bit_for_bit(tmp_path: Path, model: str, task: str, request: Any) -> None:
    condition = {"task": task, **({"classes": ["person"]} if task == "remove" else {})}
    # Random weights paint nothing that a check could like.
    summary = painted_run(
        tmp_path, request.getfixturevalue(model), condition, checks={"structure": None, "contrast": None}
    )
    assert (summary.planned, summary.accepted) == (2, 2)
    for path in sorted((tmp_path / "out/dataset/images/train").glob("*__c-0.png")):
        name = path.name.split("__")[0]
        source = decode((tmp_path / f"data/images/train/{name}.png").read_bytes())
        made, text = decode(path.read_bytes()), Path(label_path(str(path))).read_text()
        assert made.shape == source.shape
        ys, xs = np.mgrid[:76, :100]
        reach = 3 * 100 / 64 + 1
        person, near = ((xs >= 60 - r) & (xs < 90 + r) & (ys >= 38 - r) & (ys < 68.4 + r) for r in (-1, reach))
        car = (xs >= 16) & (xs < 44) & (ys >= 16) & (ys < 44)
        changed = (made != source).any(-1)
        if task == "remove":
            assert not changed[~near].any()
            assert changed[person & ~car].mean() > 0.9
            assert text == "0 0.3 0.4 0.3 0.4\n"
        else:
            assert not changed[person].any()
            assert not changed[car].any()
            assert changed[:8].mean() > 0.9
            assert text == ROWS


class Clerk:
    """A detector that finds a person wherever a picture differs from the source that it saw before."""

    names = ("dog", "Person")

    def __init__(self) -> None:
        self.sources: list[np.ndarray] = []

    def __call__(self, images: Any) -> list[list[Detection]]:
        if len(images) == 1:
            self.sources += images
            return [[]]
        edits = images[: len(images) // 2]  # the others are the same at the source's brightness
        return [[self._changed(image)] for image in edits] + [[]] * len(edits)

    def _changed(self, image: np.ndarray) -> Detection:
        changes = [(np.abs(image.astype(int) - source) > 12).any(-1) for source in self.sources]
        rows, columns = np.nonzero(min(changes, key=np.count_nonzero))
        height, width = image.shape[:2]
        corners = columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height
        return Detection(1, 0.8, tuple(float(v) for v in corners))


def test_a_run_that_inserts(tmp_path: Path, sd_inpaint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_look, "load_detector", lambda *_, **__: Clerk())
    put(tmp_path / "clerk.pt", "weights")
    summary = painted_run(
        tmp_path, sd_inpaint, {"task": "insert", "classes": ["person"]}, LEFT_CAR, detector="clerk.pt",
        checks={"structure": None, "contrast": None, "new_objects": None},
    )  # fmt: skip
    assert summary.accepted == summary.planned == 2
    for path in (tmp_path / "out/dataset/images/train").glob("*__c-0.png"):
        old, new = Path(label_path(str(path))).read_text().splitlines()
        assert old == LEFT_CAR
        assert new.startswith("1 ")


def test_a_detector_that_does_not_know_the_class_ends_the_run_before_it_begins(
    tmp_path: Path, sd_inpaint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_look, "load_detector", lambda *_, **__: SimpleNamespace(names=("dog", "cat")))
    put(tmp_path / "clerk.pt", "weights")
    with pytest.raises(UsageError, match="has no class 'person'") as caught:
        painted_run(tmp_path, sd_inpaint, {"task": "insert", "classes": ["person"]}, LEFT_CAR, detector="clerk.pt")
    assert "dog, cat" in caught.value.hint
    assert not (tmp_path / "out/records-0.jsonl").exists()
