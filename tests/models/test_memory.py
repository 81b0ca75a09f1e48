"""How a model is laid out, as a pure choice; and what its parts weigh, read from files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffgen.commands.plan_summary import plan_facts, plan_text
from diffgen.dataset.file_cache import FileCache
from diffgen.models.find import resolve_model
from diffgen.models.memory import GIB, RESIDENT, Layout, Needs, choose_layout, forecast
from diffgen.models.model import needs
from diffgen.models.networks import Network, Observers
from diffgen.recipe.load import load_recipe
from diffgen.run.session import Session
from tests.fakes import MODEL, make_dataset, write_recipe

SDXL = Needs({"text_encoder": 0.2, "text_encoder_2": 1.3, "unet": 4.8, "vae": 0.2})
FLUX = Needs({"text_encoder": 0.2, "text_encoder_2": 8.9, "transformer": 22.2, "vae": 0.2})
QWEN = Needs({"text_encoder": 15.4, "transformer": 38.1, "vae": 0.2})
UNSEEN = Needs({}, 38.0)
NO = "no bitsandbytes"
MIB = 2**20 / GIB  # of which the files below have a few: their content is hashed


@pytest.mark.parametrize(
    ("requested", "gib", "model", "against", "wanted"),
    [
        ("auto", 24, SDXL, "", RESIDENT),
        ("auto", 139, FLUX, "", RESIDENT),
        ("auto", 7.5, SDXL, "", Layout("parts", True)),
        ("auto", 31, FLUX, "", Layout("parts", True)),
        ("auto", 16, FLUX, "", Layout("streamed", True)),
        ("auto", 24, UNSEEN, "", Layout("parts", True)),
        ("auto", 48, UNSEEN, "", RESIDENT),
        ("auto", 8, Needs({}), "", RESIDENT),
        ("resident", 4, QWEN, "", RESIDENT),
        ("16gb", 139, SDXL, "", Layout(vae_in_parts=True, max_gib=16)),
        ("8gb", 139, SDXL, "", Layout("parts", True, max_gib=8)),
        ("8gb", 8, SDXL, NO, Layout("parts", True, max_gib=8)),
        ("16gb", 16, FLUX, "", Layout("parts", True, ("transformer",), 16)),
        ("16gb", 16, FLUX, NO, Layout("streamed", True, max_gib=16)),
        ("24gb", 139, FLUX, "", Layout("parts", True, ("transformer",), 24)),
        ("24gb", 24, FLUX, NO, Layout("streamed", True, max_gib=24)),
        ("8gb", 24, FLUX, "", Layout("streamed", True, max_gib=8)),
        ("16gb", 24, QWEN, "", Layout("parts", True, ("text_encoder", "transformer"), 16)),
        ("8gb", 24, QWEN, "", Layout("streamed", True, max_gib=8)),
        ("16gb", 7.5, SDXL, "", Layout("parts", True, max_gib=16)),
    ],
)
def test_what_fits(requested: str, gib: float, model: Needs, against: str, wanted: Layout) -> None:
    layout, reason = choose_layout(requested, "cuda", gib, model, against)
    assert layout == wanted
    assert reason


@pytest.mark.parametrize("device", ["cpu", "mps"])
@pytest.mark.parametrize("requested", ["auto", "resident", "24gb", "16gb", "8gb"])
def test_devices_that_share_the_machine_s_memory_have_nothing_to_choose(requested: str, device: str) -> None:
    layout, reason = choose_layout(requested, device, 0.0, QWEN)
    assert layout == RESIDENT
    assert reason == ("" if requested == "auto" else f"{requested}: has no effect on {device}")
    assert forecast(requested, device, QWEN) == reason


def test_a_controlnet_has_to_fit_beside_the_unet() -> None:
    with_net = Needs({**SDXL.parts, "controlnet": 2.3})
    assert choose_layout("auto", "cuda", 9.5, with_net)[0] == Layout("parts", True)
    assert choose_layout("auto", "cuda", 9, with_net)[0] == Layout("streamed", True)


def test_the_reason_says_both_numbers_and_what_is_missing() -> None:
    _, reason = choose_layout("16gb", "cuda", 24, FLUX, "it would need a package")
    assert (
        reason
        == "16gb: it needs about 33.5 of 16 GiB, and its transformer alone would not fit; it would need a package"
    )
    assert "four bits" not in choose_layout("auto", "cuda", 16, FLUX, NO)[1], "auto would not have used them"


def test_a_layout_in_words() -> None:
    assert str(RESIDENT) == "resident"
    assert str(Layout("parts", True, ("transformer",), 16)) == (
        "one part at a time, autoencoder in parts, transformer in four bits, at most 16 GiB"
    )


def test_a_forecast_for_a_device_that_nobody_has_looked_at() -> None:
    assert forecast("auto", "auto", FLUX) == (
        "auto: on a GPU of 34 GiB or more resident, else one part at a time, under 25 GiB streamed block by block"
    )
    assert forecast("auto", "cuda", UNSEEN) == "auto: on a GPU of 38 GiB or more resident, else one part at a time"
    assert forecast("8gb", "auto", SDXL).startswith(
        "on a GPU one part at a time, autoencoder in parts, at most 8 GiB ("
    )
    assert forecast("auto", "auto", Needs({})) == ""


def write_safetensors(file: Path, shapes: dict[str, list[int]], dtype: str = "F32") -> None:
    """Its header, and a hole in place of the weights: nothing here reads them."""
    size, at, header = {"F32": 4, "F16": 2}[dtype], 0, {"__metadata__": {"format": "pt"}}
    for name, shape in shapes.items():
        count = size
        for side in shape:
            count *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + count]}  # type: ignore[dict-item]
        at += count
    raw = json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(len(raw).to_bytes(8, "little") + raw)
    os.truncate(file, 8 + len(raw) + at)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline whose UNet has 2^20 weights in two shards, beside files that are not loaded."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": ["x", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    root = tmp_path / "model"
    for part, config in {
        "unet": {"sample_size": 64},
        "vae": {"block_out_channels": [1, 1, 1, 1]},
        "scheduler": {},
    }.items():
        (root / part).mkdir(parents=True)
        (root / part / "config.json").write_text(json.dumps(config))
    (root / "model_index.json").write_text(json.dumps(index))
    for i in (1, 2):
        file = root / f"unet/diffusion_pytorch_model-0000{i}-of-00002.safetensors"
        write_safetensors(file, {f"w{i}": [1 << 10, 1 << 9]}, "F16")
    where = {f"w{i}": f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    (root / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    write_safetensors(root / "unet/diffusion_pytorch_model.non_ema.safetensors", {"w": [1 << 10, 1 << 10]})
    write_safetensors(root / "vae/diffusion_pytorch_model.safetensors", {"w": [1 << 9, 1 << 9]})
    write_safetensors(root / "vae/diffusion_pytorch_model.fp16.safetensors", {"w": [1 << 9, 1 << 9]}, "F16")
    return root


def resolved(spec: Any, tmp_path: Path) -> Any:
    with FileCache(tmp_path / "cache") as cache:
        return resolve_model(spec, "img2img", tmp_path, cache)


def test_parts_weigh_what_they_will_once_loaded(folder: Path, tmp_path: Path) -> None:
    model = resolved(str(folder), tmp_path)
    assert needs(model, "float16").parts == {"unet": 2 * MIB, "vae": MIB / 2}
    assert needs(model, "float32").parts == {"unet": 4 * MIB, "vae": MIB}


def test_a_single_file_is_taken_apart_by_its_names(tmp_path: Path) -> None:
    shapes = {
        "model.diffusion_model.input_blocks.0.0.weight": [1 << 5, 4, 1 << 5, 1 << 8],
        "first_stage_model.decoder.conv_in.weight": [1 << 16],
        "cond_stage_model.transformer.weight": [1 << 18],
        "model_ema.decay": [1 << 20],
    }
    write_safetensors(tmp_path / "sd.safetensors", shapes)
    found = needs(resolved("sd.safetensors", tmp_path), "bfloat16")
    assert found.parts == {"unet": 2 * MIB, "vae": MIB / 8, "text_encoder": MIB / 2}


def test_what_looks_at_pictures_counts_as_it_is_loaded_in_float32(folder: Path, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "clip/model.safetensors", {"w": [1 << 10, 1 << 9]}, "F16")
    (tmp_path / "clip/config.json").write_text("{}")
    detector = tmp_path / "yolo.pt"  # Ultralytics saves half-precision numbers
    detector.write_bytes(b"")
    os.truncate(detector, 1 << 20)
    write_safetensors(tmp_path / "net/diffusion_pytorch_model.safetensors", {"w": [1 << 10, 1 << 9]}, "F16")
    (tmp_path / "net/config.json").write_text("{}")
    observers = Observers(
        Network("yolo.pt", "detector", "", str(detector)), Network("clip", "clip", "", str(tmp_path / "clip"))
    )
    net = Network("net", "controlnet", "", str(tmp_path / "net"))
    model = replace(resolved(str(folder), tmp_path), networks=(net,), observers=observers)
    found = needs(model, "float16")
    assert found.parts == {"unet": 2 * MIB, "vae": MIB / 2, "controlnet": MIB, "estimator": 2 * MIB + 2 * MIB}
    assert found.resident > sum(found.parts[name] for name in ("vae", "controlnet", "estimator"))
    absent = replace(resolved("sdxl", tmp_path), observers=observers)
    assert needs(absent, "float16").estimate == pytest.approx(10 + 4 * MIB)


def test_a_model_that_is_not_here_is_judged_by_its_estimate(tmp_path: Path) -> None:
    model = resolved("sdxl", tmp_path)
    assert needs(model, "bfloat16") == Needs({}, 10.0)
    assert needs(model, "float32").estimate == 20.0


def planned(tmp_path: Path, **fields: Any) -> Any:
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "data"), tmp_path / "out", **fields)
    return load_recipe(recipe)


def test_memory_is_in_no_job_id_and_in_the_plan(tmp_path: Path) -> None:
    loaded = planned(tmp_path, model=MODEL, memory="auto")
    ids = [item.job.id for item in Session.open(loaded).plan.items]
    facts = plan_facts(loaded)
    assert f"memory    {facts['memory']}" in plan_text(facts) or not facts["memory"]
    for mode in ("resident", "16gb", "8gb"):
        other = planned(tmp_path, model=MODEL, memory=mode)
        assert [item.job.id for item in Session.open(other).plan.items] == ids
        assert plan_facts(other)["memory"].startswith("on a GPU")


def test_the_plan_says_what_an_alias_would_need(tmp_path: Path) -> None:
    loaded = planned(tmp_path, model="flux1-dev", editor=None)
    assert plan_facts(loaded)["memory"] == "auto: on a GPU of 36 GiB or more resident, else one part at a time"
    loaded = planned(tmp_path, model="flux1-dev", editor=None, memory="8gb", device="cpu")
    assert "memory    8gb: has no effect on cpu" in plan_text(plan_facts(loaded))
