"""The instruct family: strength in latents or in words, geometry arguments, CosXL's scaling."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffgen.editing.editor import EditBatch
from diffgen.editing.families import effective_strength
from diffgen.editing.families.instruct.instruct import resolved_prompt, severity_and_share
from tests.editing.tiny_models import denoiser, job, picture, settings

pytestmark = pytest.mark.editors

SEVERITY = "{prompt}, severity {percent}"


@pytest.mark.parametrize(
    ("strength", "percent", "share"),
    [
        (0.0, 5, 0.0),  # the source
        (0.02, 5, 0.4),  # below what training saw: interpolated
        (0.05, 5, 1.0),
        (0.11, 10, 1.0),
        (0.13, 15, 1.0),  # in steps of 5
        (0.65, 65, 1.0),
        (1.0, 100, 1.0),
    ],
)
def test_severity_table(strength: float, percent: int, share: float) -> None:
    told, taken = severity_and_share(strength)
    assert told == percent
    assert taken == pytest.approx(share)


def test_severity_never_shrinks() -> None:
    told = [severity_and_share(i / 1000) for i in range(1001)]
    assert all(a <= b for a, b in itertools.pairwise(told))
    strengths = [effective_strength(settings("instruct", strength=i / 1000, severity=SEVERITY)) for i in range(1001)]
    assert all(a <= b for a, b in itertools.pairwise(strengths))
    assert all(abs(s - i / 1000) <= 0.0251 for i, s in enumerate(strengths))


def test_the_prompt_keeps_its_own_braces() -> None:
    wanted = settings("instruct", strength=0.5, severity=SEVERITY)
    assert resolved_prompt("make it {percent} {}", wanted) == "make it {percent} {}, severity 50"
    assert resolved_prompt("snow", settings("instruct")) == "snow"


def test_the_model_reads_the_severity(pocket_like: Any, load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    editor, read = load(pocket_like, fresh=True), []
    inner = editor._pipe._encode_prompt
    monkeypatch.setattr(editor._pipe, "_encode_prompt", lambda text, *a, **k: read.append(text) or inner(text, *a, **k))
    # the folder's own diffgen.json gives steps, guidance and this template
    for strength in (0.04, 0.3, 1.0):
        wanted = settings("instruct", strength=strength, steps=1, severity="{prompt} {percent}")
        made = editor.edit(EditBatch([picture(0)], [job(wanted)]))
        assert made[0].strength == strength
    # (None: the pipeline asks again, with our embeddings)
    assert [text for text in read if text] == ["snow 5", "snow 30", "snow 100"]


def test_small_strengths_of_a_severity_model_are_continuous(pocket_like: Any, load: Any) -> None:
    editor = load(pocket_like)
    levels = [settings("instruct", strength=s / 80, severity="{prompt} {percent}") for s in range(5)]
    made = [editor.edit(EditBatch([picture(0)], [job(level, seed=5)]))[0].image.astype(float) for level in levels]
    change = [np.abs(m - made[0]).mean() for m in made]
    assert change[0] == 0
    assert all(a < b for a, b in itertools.pairwise(change)), change


@pytest.mark.parametrize("model", ["ip2p", "xl_ip2p"])
def test_strength_1_is_the_stock_pipeline(model: str, load: Any, request: Any) -> None:
    """Our batching, caching and decoding change nothing: the plain pipeline gives the same picture."""
    import diffusers
    import torch

    folder, image = request.getfixturevalue(model), picture(0)
    wanted = settings("instruct", strength=1.0, steps=3, guidance=5.0, image_guidance=1.5)
    ours = load(folder).edit(EditBatch([image], [job(wanted, seed=4, negative="sun")]))[0].image
    stock = diffusers.DiffusionPipeline.from_pretrained(str(folder), safety_checker=None)
    generator = torch.Generator().manual_seed(4)
    size = {"height": 48, "width": 64} if model == "xl_ip2p" else {}
    plain = stock(
        prompt="snow",
        negative_prompt="sun",
        image=torch.from_numpy(image).permute(2, 0, 1)[None] / 255,
        latents=torch.randn((1, 4, 6, 8), generator=generator),
        generator=generator,
        num_inference_steps=3,
        guidance_scale=5.0,
        image_guidance_scale=1.5,
        output_type="np",
        **size,
    ).images[0]
    assert np.abs(ours - plain * 255).max() <= 1


def test_cosxl_scales_the_source(xl_ip2p: Any, cosxl: Any, load: Any) -> None:
    editor, wanted = load(xl_ip2p, fresh=True), settings("instruct", strength=1.0)
    plain = editor.edit(EditBatch([picture(0)], [job(wanted)]))[0].image
    editor._pipe.is_cosxl_edit = True
    assert not np.array_equal(plain, editor.edit(EditBatch([picture(0)], [job(wanted)]))[0].image)
    assert load(cosxl)._pipe.is_cosxl_edit, "its schedule tells"


def test_the_stock_kontext_gives_the_same_picture(kontext: Any, load: Any) -> None:
    import diffusers
    import torch

    image = picture(0)
    wanted = settings("instruct", strength=1.0, steps=3, guidance=2.5)
    ours = load(kontext).edit(EditBatch([image], [job(wanted, seed=4)]))[0].image
    stock = diffusers.FluxKontextPipeline.from_pretrained(str(kontext))
    plain = stock(
        image=torch.from_numpy(image).permute(2, 0, 1)[None] / 255,
        prompt="snow",
        height=48,
        width=64,
        max_area=48 * 64,
        _auto_resize=False,
        num_inference_steps=3,
        guidance_scale=2.5,
        generator=torch.Generator().manual_seed(4),
        max_sequence_length=16,
        output_type="np",
    ).images[0]
    assert np.abs(ours - plain * 255).max() <= 1


@pytest.mark.parametrize("model", ["klein", "klein_base"])
def test_the_stock_klein_gives_the_same_picture(model: str, load: Any, request: Any) -> None:
    import diffusers
    import torch
    from PIL import Image

    folder, image = request.getfixturevalue(model), picture(0, 64, 80)  # it refuses smaller ones
    wanted = settings("instruct", strength=1.0, steps=3, guidance=4.0)
    ours = load(folder).edit(EditBatch([image], [job(wanted, seed=4)]))[0].image
    stock = diffusers.Flux2KleinPipeline.from_pretrained(str(folder))
    plain = stock(
        image=Image.fromarray(image),
        prompt="snow",
        num_inference_steps=3,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(4),
        max_sequence_length=16,
        output_type="np",
    ).images[0]
    assert np.abs(ours - plain * 255).max() <= 1


@pytest.mark.parametrize("model", ["qwen_edit", "qwen_plus"])
def test_the_stock_qwen_gives_the_same_picture_without_its_rescaling(
    model: str, load: Any, request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers
    import torch
    from PIL import Image

    folder, image = request.getfixturevalue(model), picture(0, 48, 80)
    wanted = settings("instruct", strength=1.0, steps=2, guidance=4.0)
    editor = load(folder)
    ours = editor.edit(EditBatch([image], [job(wanted, seed=4, negative="sun")]))[0].image
    stock = type(editor._pipe).from_pretrained(str(folder))
    module = getattr(
        diffusers.pipelines.qwenimage,
        f"pipeline_qwenimage_{model.replace('qwen_plus', 'edit_plus').replace('qwen_', '')}",
    )
    rescale = module.calculate_dimensions
    # what the language model looks at stays as it is; the autoencoder gets the source's own size
    own = (80, 48, None)[: len(rescale(1024 * 1024, 1.0))]
    if model == "qwen_plus":
        monkeypatch.setattr(
            module, "calculate_dimensions", lambda area, ratio: own if area == 1024**2 else rescale(area, ratio)
        )
    else:
        monkeypatch.setattr(module, "calculate_dimensions", lambda *_: own)
        monkeypatch.setattr(stock, "_get_qwen_prompt_embeds", _looks_at(stock, image, rescale(1024**2, 80 / 48)))
    plain = stock(
        image=Image.fromarray(image),
        prompt="snow",
        negative_prompt="sun",
        true_cfg_scale=4.0,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(4),
        output_type="np",
    ).images[0]
    assert np.abs(ours - plain * 255).max() <= 1


def _looks_at(stock: Any, image: np.ndarray, size: Any) -> Any:
    """The pipeline's reader, looking at `image` at the (width, height) it would have by itself."""
    from PIL import Image

    inner, seen = stock._get_qwen_prompt_embeds, stock.image_processor.resize(Image.fromarray(image), size[1], size[0])
    return lambda prompt, _, device: inner(prompt, seen, device)


def test_the_stock_longcat_gives_the_same_picture_without_its_rescaling(
    longcat: Path, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from diffusers.pipelines.longcat_image import pipeline_longcat_image_edit as module
    from PIL import Image

    image = picture(0, 48, 80)
    wanted = settings("instruct", strength=1.0, steps=2, guidance=4.0)
    editor = load(longcat)
    ours = editor.edit(EditBatch([image], [job(wanted, seed=4, negative="sun")]))[0].image
    stock = type(editor._pipe).from_pretrained(str(longcat))
    width, height = module.calculate_dimensions(1024**2, 80 / 48)
    seen = stock.image_processor.resize(Image.fromarray(image), height, width)
    seen = stock.image_processor.resize(seen, height // 2, width // 2)
    inner = stock._encode_prompt
    monkeypatch.setattr(stock, "_encode_prompt", lambda prompt, _: inner(prompt, seen))
    monkeypatch.setattr(module, "calculate_dimensions", lambda *_: (80, 48))
    noise = torch.randn((1, 16, 6, 10), generator=torch.Generator().manual_seed(4))
    plain = stock(
        image=Image.fromarray(image),
        prompt="snow",
        negative_prompt="sun",
        guidance_scale=4.0,
        num_inference_steps=2,
        latents=stock._pack_latents(noise, 1, 16, 6, 10),
        output_type="np",
    ).images[0]
    assert np.abs(ours - plain * 255).max() <= 1


def test_a_prompt_that_longcat_cannot_read_whole_is_cut(longcat: Path, load: Any, caplog: Any) -> None:
    """By itself the pipeline fails on it. What is in quotation marks counts letter by letter."""
    editor = load(longcat)
    wanted = settings("instruct", strength=1.0, steps=1)
    for text in ("snow " * 120 + "lies on the roofs", "a sign that says '" + "STOP " * 110 + "'"):
        made = editor.edit(EditBatch([picture(0)], [job(wanted, prompt=text)]))[0]
        assert made.image.shape == (48, 64, 3)
    assert sum("cut to the model's 512 tokens" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.parametrize("model", ["qwen_edit", "qwen_plus", "longcat"])
def test_one_at_a_time_is_said(model: str, load: Any, request: Any, caplog: Any) -> None:
    load(request.getfixturevalue(model), fresh=True)
    assert "one at a time" in caplog.text


@pytest.mark.parametrize("size", [(64, 80), (80, 64), (48, 144)])
@pytest.mark.parametrize("model", ["kontext", "klein", "qwen_edit", "qwen_plus", "longcat"])
def test_the_model_sees_the_source_at_the_working_size(
    model: str, size: tuple[int, int], load: Any, request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No crop, no megapixel: as many tokens for the source as for the edit."""
    editor, seen = load(request.getfixturevalue(model)), []
    inner = denoiser(editor).forward

    def forward(**kwargs: Any) -> Any:
        seen.append(kwargs["hidden_states"].shape[1])
        return inner(**kwargs)

    monkeypatch.setattr(denoiser(editor), "forward", forward)
    made = editor.edit(EditBatch([picture(0, *size)], [job(settings("instruct", strength=0.5, steps=1))]))
    assert seen == [2 * size[0] * size[1] // 256]
    assert made[0].image.shape == (*size, 3)
