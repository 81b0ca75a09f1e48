"""Layouts on real pipelines: with parts that come and go, an edit is the edit.

On a CPU the hooks of accelerate are the same as on a GPU, only that both sides are one memory; moved by layers, weights that
are not in use are nowhere ("meta"), so whatever reached for them by hand would fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from diffgen.dataset.dataset import Dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.editing.editor import EditBatch, Editor
from diffgen.editing.families import load_editor
from diffgen.editing.pipelines.loading import load_pipeline
from diffgen.editing.pipelines.offload import not_quantisable, pick_layout, quantising
from diffgen.errors import DiffgenError
from diffgen.models.find import resolve_model
from diffgen.models.loras import Lora
from diffgen.models.memory import RESIDENT, Layout
from diffgen.models.model import Model
from diffgen.recipe.load import load_recipe
from diffgen.run.session import Session
from diffgen.run.worker_setup import Device, load_worker
from tests.editing.tiny_models import job, picture, settings
from tests.fakes import make_dataset, write_recipe

pytestmark = pytest.mark.editors

MODELS = ["sd", "sd3", "flux", "zimage", "xl_ip2p", "kontext", "klein", "qwen_plus", "longcat"]


@pytest.fixture
def model(request: Any, tmp_path: Path) -> Model:
    return resolved(request.getfixturevalue(request.param), tmp_path)


def resolved(folder: Path, tmp_path: Path) -> Model:
    with FileCache(tmp_path / "cache") as cache:
        return resolve_model(str(folder), None, folder.parent, cache)


def laid_out(model: Model, layout: Layout, dtype: str = "float32") -> Editor:
    return load_editor(replace(model, layout=layout), "cpu", dtype)


def edits(editor: Editor, family: str) -> list[np.ndarray]:
    """With a held object, and again, when what is remembered of prompts and sources is used."""
    one = job(settings(family, strength=0.8, object_strength=0.3, guidance=3.0, steps=2))
    mask = np.zeros((48, 64), np.float32)
    mask[8:32, 8:40] = 1
    return [editor.edit(EditBatch([picture(0)], [one], [mask]))[0].image for _ in range(2)]


@pytest.mark.parametrize(
    ("model", "offload"),
    [("sdxl", "parts"), ("flux", "parts"), *((name, "streamed") for name in MODELS)],
    indirect=["model"],
)
def test_an_edit_does_not_see_where_the_parts_lie(model: Model, offload: Any, load: Callable[..., Editor]) -> None:
    moved = edits(laid_out(model, Layout(offload)), model.editor)
    plain = edits(load(Path(model.place)), model.editor)
    for a, b in zip(moved, plain, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1


@pytest.mark.parametrize("model", ["sd", "flux", "qwen_plus"], indirect=True)
def test_all_but_the_autoencoder_is_streamed(model: Model) -> None:
    """The denoiser in blocks, text encoders in layers: the blocks of these lie too deep to be found."""

    def hooks(part: Any) -> int:
        return sum(hasattr(module, "_diffusers_hook") for module in part.modules())

    pipe = cast("Any", laid_out(model, Layout("streamed", True)))._pipe
    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    assert 1 < hooks(denoiser) < sum(1 for _ in denoiser.modules()) / 4
    assert hooks(pipe.text_encoder) > 8
    assert hooks(pipe.vae) == 0


@pytest.mark.parametrize("model", ["sdxl"], indirect=True)
def test_one_part_at_a_time_frees_the_one_before(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    import accelerate.hooks

    order: list[str] = []
    own = accelerate.hooks.CpuOffload.pre_forward

    def seen(self: Any, module: Any, *args: Any, **kwargs: Any) -> Any:
        before = getattr(self.prev_module_hook, "model", None)
        order.append(f"{type(module).__name__} after {type(before).__name__}")
        return own(self, module, *args, **kwargs)

    monkeypatch.setattr(accelerate.hooks.CpuOffload, "pre_forward", seen)
    editor: Any = laid_out(model, Layout("parts"))
    editor.edit(EditBatch([picture(0)], [job(settings("img2img", steps=1, guidance=1.0))]))
    assert order == [
        "CLIPTextModel after NoneType",
        "CLIPTextModelWithProjection after CLIPTextModel",
        "UNet2DConditionModel after CLIPTextModelWithProjection",
    ]


@pytest.mark.parametrize("model", ["sd", "pocket_like", "klein", "qwen_plus"], indirect=True)
def test_every_autoencoder_can_work_in_parts(model: Model) -> None:
    editor: Any = laid_out(model, Layout(vae_in_parts=True))
    vae = editor._pipe.vae
    assert (vae.use_slicing, vae.use_tiling) == (True, type(vae).__name__ != "AutoencoderTiny")
    for a, b in zip(edits(editor, model.editor), edits(laid_out(model, RESIDENT), model.editor), strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1, "pictures within one tile differ in their last bits only"


@pytest.mark.parametrize("model", ["sd"], indirect=True)
def test_a_watched_edit_moves_too(model: Model) -> None:
    seen: list[str] = []
    jobs = [job(settings("img2img", strength=0.6, steps=3))]
    laid_out(model, Layout("streamed")).edit(
        EditBatch([picture(0)], jobs, watch=lambda caption, _: seen.append(caption))
    )
    assert [caption.split()[0] for caption in seen] == ["noise"] * 3 + ["after"] * 3


@pytest.mark.parametrize("model", ["sd"], indirect=True)
def test_a_card_without_room_is_one_error_with_the_way_out(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("diffusers.StableDiffusionImg2ImgPipeline.to", full)
    with pytest.raises(DiffgenError, match="does not fit on cpu") as caught:
        laid_out(model, RESIDENT)
    assert "memory: 8gb" in (caught.value.hint or "")


# --- four bits: the arguments only; bitsandbytes runs on GPUs


def test_what_is_loaded_in_four_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers

    made: dict[str, Any] = {}
    monkeypatch.setattr(diffusers, "PipelineQuantizationConfig", lambda **fields: made.update(fields) or "config")
    assert quantising(RESIDENT, "bfloat16") == {}
    found = quantising(Layout("parts", True, ("transformer", "text_encoder_2")), "bfloat16")
    assert found == {"quantization_config": "config"}
    assert made["components_to_quantize"] == ["transformer", "text_encoder_2"]
    assert made["quant_kwargs"]["bnb_4bit_compute_dtype"] == torch.bfloat16


@pytest.mark.parametrize("model", ["sd"], indirect=True)
def test_why_not_in_four_bits(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffgen.editing.pipelines.offload.find_spec", lambda _: None)
    assert "diffgen[memory]" in not_quantisable(model)
    monkeypatch.setattr("diffgen.editing.pipelines.offload.find_spec", lambda _: "here")
    assert not_quantisable(model) == ""
    assert "LoRA" in not_quantisable(replace(model, loras=(Lora("x", 1.0, "0"),)))
    assert "single file" in not_quantisable(replace(model, kind="file"))


# --- in a run


class _Card:
    name, total_memory = "Test card", 8 * 2**30


@pytest.mark.parametrize(
    ("memory", "words"), [("auto", "auto: it needs about 2.0 of 6 GiB"), ("resident", "asked for")]
)
def test_a_run_says_the_layout_and_why(
    memory: str, words: str, sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: _Card())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (6 * 2**30, 8 * 2**30))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    session = Session.open(load_recipe(_recipe(sd, tmp_path, memory=memory))).on_device()
    assert session.device is not None
    assert (session.device.name, session.device.dtype, session.model.layout) == ("cuda", "float16", RESIDENT)
    assert session.device.reason.endswith(f"memory resident ({words})")
    assert "float16 (auto: as U-Nets are trained)" in session.device.reason


def test_on_a_cpu_it_means_nothing_which_is_said_once(sd: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    recipe = _recipe(sd, tmp_path, memory="8gb", device="cpu", conditions=[{"fog": {"steps": 1}}])
    answer = cli("run", str(recipe))
    assert "1/1 images" in answer.err  # random weights: whether it is accepted is chance
    assert answer.err.count("8gb: has no effect on cpu") == 1
    assert answer.err.count("float32 (auto: cpu)") == 1
    assert "memory    resident (8gb: has no effect on cpu)" in cli("doctor", str(recipe)).out


def test_the_layout_is_recorded_with_the_machine(sd: Path, tmp_path: Path) -> None:
    model = resolved(sd, tmp_path)
    dataset, device = Dataset(tmp_path, ("car",), {}, ()), Device("cpu", "float32", 1)
    assert "memory" not in load_worker(model, device, dataset).environment
    moved = replace(model, layout=Layout("streamed", True))
    assert load_worker(moved, device, dataset).environment["memory"] == str(moved.layout)


def _recipe(model: Path, tmp_path: Path, **fields: Any) -> Path:
    data = make_dataset(tmp_path / "data", counts=(1, 1))
    return write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", model=str(model), editor=None, **fields)


# --- with a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("layout", [Layout("parts", True, max_gib=8), Layout("streamed", True)], ids=str)
@pytest.mark.parametrize("model", MODELS, indirect=True)
def test_on_a_gpu(model: Model, layout: Layout, load: Callable[..., Editor]) -> None:
    moved = edits(load_editor(replace(model, layout=layout), "cuda", "float32"), model.editor)
    resident = edits(load_editor(model, "cuda", "float32"), model.editor)
    for a, b in zip(moved, resident, strict=True):
        assert np.abs(a.astype(int) - b).mean() < 0.5
    assert pick_layout("auto", "cuda", "bfloat16", model)[0] == RESIDENT


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["flux"], indirect=True)
def test_four_bits_on_a_gpu(model: Model) -> None:
    pytest.importorskip("bitsandbytes")
    layout = Layout("parts", True, ("transformer", "text_encoder_2"))
    pipe = load_pipeline("FluxImg2ImgPipeline", replace(model, layout=layout), "cuda", "bfloat16")
    assert pipe.transformer.is_quantized
    edits(load_editor(replace(model, layout=layout), "cuda", "bfloat16"), model.editor)
