"""The controlnet family on diffusers' own classes: what img2img promises, and what the maps do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffgen.checks.registration import registration
from diffgen.checks.structure import luminance
from diffgen.commands.sweeps import PreviewRequest
from diffgen.commands.trajectory import preview_trajectory
from diffgen.dataset.file_cache import FileCache
from diffgen.editing.control_maps import canny, soft_edges
from diffgen.editing.editor import EditBatch
from diffgen.editing.families import effective_object_strength, effective_strength, load_editor
from diffgen.errors import DiffgenError, UsageError
from diffgen.models.memory import RESIDENT, Layout
from diffgen.models.resolve import resolve_recipe_model
from diffgen.recipe.load import load_recipe
from diffgen.recipe.schema import Recipe
from diffgen.run.loop import run
from diffgen.types import ControlInput, Settings
from tests.editing.tiny_models import Calls, job, settings, stock_edit
from tests.editing.tiny_nets import write_estimator, write_net
from tests.fakes import make_dataset, photo, write_recipe

pytestmark = pytest.mark.editors

BASES = ("sd", "sdxl", "union")


@pytest.fixture(scope="session")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Two ControlNets for each base."""
    root = tmp_path_factory.mktemp("nets")
    return {base: [write_net(root / f"{base}{i}", base, i) for i in range(2)] for base in BASES}


Get = Callable[..., Any]


@pytest.fixture(scope="session")
def guided(
    tmp_path_factory: pytest.TempPathFactory, nets: dict[str, list[Path]], sd: Path, sdxl: Path
) -> Iterator[Get]:
    """An editor with both ControlNets of a base, loaded as a run does; once a session."""
    loaded: dict[str, Any] = {}
    with FileCache(tmp_path_factory.mktemp("cache")) as cache:

        def get(base: str, fresh: bool = False) -> Any:
            if base in loaded and not fresh:
                return loaded[base]
            editor = load(sd if base == "sd" else sdxl, nets[base], cache)
            if not fresh:
                loaded[base] = editor
            return editor

        yield get


def load(model: Path, nets: list[Path], cache: FileCache, dtype: str = "float32", layout: Layout = RESIDENT) -> Any:
    controls = [{"kind": "canny", "model": str(net)} for net in nets]
    recipe = Recipe.model_validate(
        {"dataset": "d", "output": "o", "conditions": ["fog"], "model": str(model), "controls": controls}
    )
    return load_editor(replace(resolve_recipe_model(recipe, model.parent, cache), layout=layout), "cpu", dtype)


@pytest.fixture(params=BASES)
def base(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def editor(base: str, guided: Get) -> Any:
    return guided(base)


def asked(editor: Any, *weights: float, kinds: tuple[str, ...] = ("softedge", "canny"), **changes: Any) -> Settings:
    """Settings with a control for each weight, of the editor's first net, second net …"""
    guides = tuple(ControlInput(k, net, w) for k, net, w in zip(kinds, editor._nets, weights or (1.0,), strict=False))
    return settings("controlnet", controls=guides, **changes)


def maps_of(image: np.ndarray, count: int = 1) -> list[np.ndarray]:
    return [np.repeat(edges(image)[..., None], 3, axis=2) for edges in (soft_edges, canny)[:count]]


def edit(editor: Any, images: list[Any], jobs: list[Any], masks: Any = None, maps: Any = None) -> list[np.ndarray]:
    count = len(jobs[0].settings.controls or ())
    controls = maps or ([maps_of(image, count) for image in images] if count else None)
    return [made.image for made in editor.edit(EditBatch(images, jobs, masks, controls=controls))]


def one(editor: Any, wanted: Settings, image: Any, maps: Any = None, **changes: Any) -> np.ndarray:
    return edit(editor, [image], [job(wanted, **changes)], maps=maps and [maps])[0]


# --- what img2img promises too


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (8, 128), (72, 40)])
def test_size_out_is_size_in(editor: Any, height: int, width: int) -> None:
    image = photo(0, (width, height))
    assert one(editor, asked(editor, guidance=3.0), image).shape == image.shape


def checkerboard(height: int = 64, width: int = 96) -> np.ndarray:
    ys, xs = np.mgrid[:height, :width]
    return np.repeat(np.where((ys // 16 + xs // 16) % 2, 220, 40).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture
def legible(editor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of an autoencoder of random weights: a cell's latents are its mean brightness."""

    def encode(pixels: np.ndarray) -> Any:
        cells = torch.from_numpy(pixels).float().mean(-1)[:, None] / 127.5 - 1
        return 20 * torch.nn.functional.avg_pool2d(cells, 8).repeat(1, 4, 1, 1)

    def decode(latents: Any) -> list[np.ndarray]:
        grey = (latents.mean(1) / 20 + 1) * 127.5
        pixels = grey.clamp(0, 255).round().byte().repeat_interleave(8, 1).repeat_interleave(8, 2)
        return list(pixels[..., None].repeat(1, 1, 1, 3).numpy())

    monkeypatch.setattr(editor._codec, "_encode", encode)
    monkeypatch.setattr(editor._codec, "decode", decode)


@pytest.mark.usefixtures("legible")
def test_nothing_moves(editor: Any) -> None:
    board = checkerboard()
    assert np.array_equal(one(editor, asked(editor, strength=0.0), board), board)
    after = one(editor, asked(editor, strength=0.05), board)
    assert not np.array_equal(board, after)
    shift, peak = registration(luminance(board), luminance(after))
    assert shift < 0.5
    assert peak > 0.5


def test_a_batch_of_different_sources_equals_singles(editor: Any) -> None:
    wanted = asked(editor, guidance=3.0)
    images = [photo(i) for i in range(3)]
    jobs = [job(wanted, i, p, n) for i, p, n in [(1, "snow", "sun"), (2, "fog", None), (3, "", "")]]
    together = edit(editor, images, jobs)
    alone = [edit(editor, [i], [j])[0] for i, j in zip(images, jobs, strict=True)]
    for a, b in zip(together, alone, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1
    assert not np.array_equal(together[0], together[1])


def test_same_seed_same_bytes_other_seed_other_image(editor: Any) -> None:
    wanted, image = asked(editor, strength=1.0), photo(0)
    first = one(editor, wanted, image, seed=1)
    assert np.array_equal(first, one(editor, wanted, image, seed=1))
    assert not np.array_equal(first, one(editor, wanted, image, seed=2))


def test_exactly_the_steps_asked_for_are_run(editor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = Calls(monkeypatch, editor._guided.unet, "forward")
    net = Calls(monkeypatch, next(iter(editor._nets.values())), "forward")
    for steps, strength in [(1, 0.4), (3, 0.7), (4, 1.0)]:
        unet.rows.clear()
        net.rows.clear()
        one(editor, asked(editor, steps=steps, strength=strength), photo(0))
        assert unet.rows == net.rows == [1] * steps


def test_texts_and_sources_are_encoded_once_also_beside_conditions_without_controls(
    base: str, guided: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = guided(base, fresh=True)
    names = ["text_encoder"] + ["text_encoder_2"] * (base != "sd")
    calls = [Calls(monkeypatch, getattr(editor._plain, name), "forward") for name in names]
    vae = Calls(monkeypatch, editor._plain.vae, "encode")
    images = [photo(i) for i in range(3)]
    for wanted in (asked(editor, guidance=3.0), settings("img2img", guidance=3.0), asked(editor, 0.5, guidance=3.0)):
        edit(editor, images, [job(wanted, i, p, "sun") for i, p in enumerate(["snow", "fog", "snow"])])
    for call in calls:
        assert call.rows == [1, 1, 1]  # snow, fog, sun
    assert vae.rows == [1, 1, 1]


@pytest.mark.usefixtures("legible")
def test_objects_are_held(editor: Any) -> None:
    board = checkerboard()
    mask = np.zeros(board.shape[:2], np.float32)
    mask[:, :48] = 1
    wanted = asked(editor, strength=0.8, steps=4, object_strength=0.0, scheduler="euler")
    change = np.abs(edit(editor, [board], [job(wanted)], [mask])[0].astype(int) - board)
    assert change[:, :48].max() <= 1
    assert change[:, 48:].mean() > 20
    # held to a level is edited to that level
    lower = asked(editor, strength=0.8, steps=4, object_strength=0.4, scheduler="euler")
    held = edit(editor, [board], [job(lower)], [np.ones_like(mask)])[0].astype(int)
    plain = one(editor, asked(editor, strength=0.4, steps=2, scheduler="euler"), board)
    assert np.abs(held - plain).max() <= 1


def test_strengths_are_those_of_img2img() -> None:
    for strength in (0.0, 0.3, 0.65, 1.0):
        fields = {"strength": strength, "steps": 4, "object_strength": strength / 2}
        ours, plain = settings("controlnet", **fields), settings("img2img", **fields)
        assert effective_strength(ours) == effective_strength(plain)
        assert effective_object_strength(ours) == effective_object_strength(plain)


@pytest.mark.parametrize("name", ["euler", "euler_a", "dpm++2m", "heun", "lcm"])
def test_schedulers_by_name(guided: Get, name: str) -> None:
    editor = guided("sd")
    wanted = asked(editor, scheduler=name, strength=0.6, steps=3)
    assert not np.array_equal(one(editor, wanted, photo(0)), one(editor, asked(editor, 0.0, scheduler=name), photo(0)))


# --- what the maps do


def test_a_job_without_controls_is_the_img2img_job(base: str, editor: Any, load: Any, request: Any) -> None:
    plain = load(request.getfixturevalue("sd" if base == "sd" else "sdxl"))
    wanted, image = settings("img2img", guidance=3.0), photo(0)
    assert np.array_equal(one(editor, wanted, image), one(plain, wanted, image))


@pytest.mark.parametrize("weights", [(0.0,), (0.0, 0.0)])
def test_weight_0_is_plain_img2img(editor: Any, weights: tuple[float, ...]) -> None:
    image = photo(0)
    plain = one(editor, settings("img2img", guidance=3.0, steps=3), image)
    off = one(editor, asked(editor, *weights, guidance=3.0, steps=3), image)
    assert np.abs(off.astype(int) - plain).max() <= 1


def test_the_map_and_its_weight_change_the_picture(editor: Any) -> None:
    image = photo(0)
    plain = one(editor, asked(editor, 0.0), image).astype(int)
    changes = [np.abs(one(editor, asked(editor, w), image) - plain).mean() for w in (0.25, 1.0)]
    assert 0 < changes[0] < changes[1]
    other = maps_of(photo(1))
    assert not np.array_equal(one(editor, asked(editor), image), one(editor, asked(editor), image, maps=other))


def test_two_controls_at_once(editor: Any) -> None:
    image = photo(0)
    both = one(editor, asked(editor, 1.0, 0.7), image)
    first = one(editor, asked(editor, 1.0, 0.0), image)
    second = one(editor, asked(editor, 0.0, 0.7), image)
    assert not np.array_equal(both, first)
    assert not np.array_equal(both, second)
    # off is as if it were not there
    assert np.abs(first.astype(int) - one(editor, asked(editor, 1.0), image)).max() <= 1


class Seen:
    """The maps that a ControlNet gets, call by call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, net: Any) -> None:
        self.maps: list[Any] = []
        self.types: list[Any] = []
        inner = net.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            self.maps.append(kwargs["controlnet_cond"])
            self.types.append(kwargs.get("control_type_idx"))
            return inner(*args, **kwargs)

        monkeypatch.setattr(net, "forward", forward)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (40, 136)])
def test_the_net_sees_the_whole_map_at_the_working_size(
    base: str, editor: Any, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [photo(i, (width, height)) for i in range(2)]
    maps = [maps_of(image) for image in images]
    seen = Seen(monkeypatch, next(iter(editor._nets.values())))
    edit(editor, images, [job(asked(editor, guidance=3.0), i) for i in range(2)], maps=maps)
    got = seen.maps[0][0] if base == "union" else seen.maps[0]
    wanted = torch.from_numpy(np.stack([m[0] for m in maps])).permute(0, 3, 1, 2) / 255
    assert torch.equal(got, torch.cat([wanted, wanted]))  # once without and once with the prompt


def test_one_union_net_reads_several_maps_in_one_go(guided: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = guided("union")
    (net, other) = editor._nets
    guides = tuple(ControlInput(kind, net, 1.0) for kind in ("depth", "softedge", "canny", "segmentation"))
    image = photo(0)
    maps = [np.full_like(image, 20 * i) for i in range(4)]
    seen, unused = Seen(monkeypatch, editor._nets[net]), Seen(monkeypatch, editor._nets[other])
    one(editor, settings("controlnet", controls=guides, steps=2), image, maps=maps)
    assert len(seen.maps) == 2
    assert seen.types[0] == [1, 2, 3, 5]
    assert [float(m.max()) for m in seen.maps[0]] == pytest.approx([i * 20 / 255 for i in range(4)])
    assert unused.maps == []


def test_conditions_may_use_different_nets(guided: Get) -> None:
    editor = guided("sd")
    first, second = editor._nets
    image = photo(0)
    results = [
        one(editor, settings("controlnet", controls=(ControlInput("canny", net, 1.0),)), image)
        for net in (first, second, first)
    ]
    assert np.array_equal(results[0], results[2])
    assert not np.array_equal(results[0], results[1])


@pytest.mark.parametrize("count", [1, 2])
def test_the_stock_pipeline_gives_the_same_picture(
    base: str, guided: Get, nets: dict[str, list[Path]], sd: Path, sdxl: Path, count: int
) -> None:
    """Our batching, caching and decoding change nothing, but for the VAE's mode in place of a sample."""
    import diffusers

    image, editor = photo(0), guided(base)
    weights = [1.0, 0.5][:count]
    wanted = asked(editor, *weights, strength=0.5, steps=3, guidance=5.0, scheduler="euler")
    ours = one(editor, wanted, image, seed=4, negative="sun")
    xl = "" if base == "sd" else "XL"
    union = "Union" if base == "union" else ""
    own = [getattr(diffusers, f"ControlNet{union}Model").from_pretrained(str(f)) for f in nets[base][:count]]
    cls = getattr(diffusers, f"StableDiffusion{xl}ControlNet{union}Img2ImgPipeline")
    folder = sdxl if xl else sd
    stock = cls.from_pretrained(str(folder), controlnet=own if count > 1 else own[0], safety_checker=None)
    maps = [torch.from_numpy(m).permute(2, 0, 1)[None] / 255 for m in maps_of(image, count)]
    inputs: dict[str, Any] = {
        "control_image": maps if count > 1 else maps[0],
        "controlnet_conditioning_scale": weights if count > 1 else weights[0],
    }
    if union:
        inputs["control_mode"] = [2, 3][:count]
    plain = stock_edit(stock, image, 6, 0.5, **inputs)
    assert np.abs(ours - plain).max() <= 1


@pytest.mark.parametrize("maps", [[], [np.zeros((40, 64, 3), np.uint8)], [np.zeros((48, 64, 3), np.float32)]])
def test_maps_that_break_the_contract_are_an_error(guided: Get, maps: list[Any]) -> None:
    editor = guided("sd")
    with pytest.raises(ValueError, match="expected 1 maps as large as the image"):
        editor.edit(EditBatch([photo(0)], [job(asked(editor))], controls=[maps]))


# --- loading


def test_a_net_for_another_base_is_refused(sd: Path, sdxl: Path, nets: Any, cache: FileCache) -> None:
    for model, base in [(sd, "sdxl"), (sdxl, "sd")]:
        with pytest.raises(DiffgenError, match="made for another base model: its cross_attention_dim is") as caught:
            load(model, nets[base][:1], cache)
        assert "SDXL with sdxl" in str(caught.value.hint)


def test_a_union_net_on_sd_is_refused(sd: Path, nets: Any, cache: FileCache) -> None:
    with pytest.raises(UsageError, match="is a Union ControlNet, which is for SDXL"):
        load(sd, nets["union"][:1], cache)


def test_a_net_that_lacks_weights_is_refused(sd: Path, nets: Any, cache: FileCache, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(nets["sd"][0], tmp_path / "net")
    file = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["controlnet_mid_block.weight"]
    save_file(tensors, file)
    with pytest.raises(DiffgenError, match=r"files do not contain controlnet_mid_block\.weight"):
        load(sd, [folder], cache)


def test_half_precision_is_loaded_where_only_that_is_there(
    sd: Path, nets: Any, cache: FileCache, tmp_path: Path
) -> None:
    folder = shutil.copytree(nets["sd"][0], tmp_path / "net")
    file = folder / "diffusion_pytorch_model.safetensors"
    file.rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    editor = load(sd, [folder], cache)
    assert one(editor, asked(editor), photo(0)).shape == (48, 64, 3)


def test_bfloat16(sdxl: Path, nets: Any, cache: FileCache) -> None:
    editor = load(sdxl, nets["sdxl"], cache, "bfloat16")
    image = photo(0)
    made = one(editor, asked(editor, 1.0, 0.5, guidance=3.0), image)
    assert made.shape == image.shape
    assert made.std() > 0
    assert next(iter(editor._nets.values())).dtype == torch.bfloat16


def test_the_guided_pipeline_shares_the_plain_ones_parts(guided: Get) -> None:
    editor = guided("sdxl")
    for part in ("vae", "unet", "text_encoder", "text_encoder_2"):
        assert getattr(editor._guided, part) is getattr(editor._plain, part)


# --- a whole run


def test_a_recipe_with_controls_from_end_to_end(sd: Path, nets: Any, tmp_path: Path) -> None:
    controls = [
        {"kind": "depth", "model": str(nets["sd"][0]), "estimator": str(write_estimator(tmp_path / "dpt", "dpt"))},
        {"kind": "softedge", "model": str(nets["sd"][1]), "weight": 0.5},
    ]
    path = write_recipe(
        tmp_path / "r.yaml", make_dataset(tmp_path / "data"), tmp_path / "out", model=str(sd), editor=None, device="cpu",
        controls=controls, conditions=[{"fog": {"steps": 1}}, {"rain": {"steps": 1, "controls": []}}],
        objects={"strength": 0.3}, checks={"structure": None, "registration": None, "contrast": None},
    )  # fmt: skip
    summary = run(load_recipe(path))
    assert (summary.accepted, summary.planned, summary.failed) == (8, 8, {})
    assert (tmp_path / "out/dataset/data.yaml").is_file()
    assert run(load_recipe(path)).made_now == 0


def test_parts_that_come_and_go_change_nothing(
    sdxl: Path, nets: dict[str, list[Path]], guided: Get, tmp_path: Path
) -> None:
    """With and without controls in turn: two pipelines share the parts, and one of them moves them off again."""
    with FileCache(tmp_path / "cache") as cache:
        moved = load(sdxl, nets["sdxl"], cache, layout=Layout("model", True))
    for wanted in (asked(moved), asked(moved, 1.0, 0.5), settings("img2img"), asked(moved)):
        assert np.array_equal(one(moved, wanted, photo(0)), one(guided("sdxl"), wanted, photo(0)))
    unet = moved._plain.unet
    assert unet._hf_hook.execution_device == torch.device("cpu:0")
    assert not any(hasattr(net, "_hf_hook") for net in moved._nets.values()), "ControlNets stay on the device"


# --- watched


def test_its_way_can_be_watched(editor: Any) -> None:
    seen: list[tuple[str, np.ndarray]] = []
    image, wanted = photo(0), job(asked(editor, 1.0, strength=0.6, steps=6))

    def watch(caption: str, images: list[np.ndarray]) -> None:
        seen.append((caption, images[0]))

    (made,) = editor.edit(EditBatch([image], [wanted], controls=[maps_of(image)], watch=watch))
    assert [caption.split()[0] for caption, _ in seen] == ["noise"] * 3 + ["after"] * 3
    assert np.abs(seen[-1][1].astype(float) - made.image).mean() <= 1, "the last step is the edit"
    assert np.array_equal(made.image, one(editor, wanted.settings, image)), "watching changes nothing"


def test_a_trajectory_of_a_recipe_with_controls(sd: Path, nets: Any, tmp_path: Path) -> None:
    """Edges that are computed, and a map of the user's own."""
    data = make_dataset(tmp_path / "data", counts=(1, 1))
    image = next((tmp_path / "data").glob("images/train/*"))
    (tmp_path / "maps").mkdir()
    shutil.copy(image, tmp_path / "maps" / image.name)
    controls = [
        {"kind": "canny", "model": str(nets["sd"][0])},
        {"kind": "own", "model": str(nets["sd"][1]), "folder": "maps"},
    ]
    recipe = write_recipe(
        tmp_path / "r.yaml", data, tmp_path / "out", model=str(sd), editor=None, controls=controls,
        device="cpu", conditions=[{"fog": {"steps": 3}}],
    )  # fmt: skip
    assert preview_trajectory(load_recipe(recipe), PreviewRequest(number=1)).is_file()
