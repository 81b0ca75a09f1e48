"""From files to a pipeline: what is refused and how it says so."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from diffgen.dataset.file_cache import FileCache
from diffgen.editing.editor import EditBatch, Editor
from diffgen.editing.families import load_editor
from diffgen.editing.pipelines.device import pick_device, pick_dtype
from diffgen.errors import DiffgenError, UsageError
from diffgen.models.find import resolve_model
from diffgen.models.load_network import out_of_memory, quiet
from tests.editing.tiny_models import as_original, job, picture, settings
from tests.fakes import make_dataset, write_recipe

pytestmark = pytest.mark.editors

MODELS = (
    "sd", "ip2p", "pocket_like", "sdxl", "lcm", "sd3", "flux", "zimage", "cosxl", "kontext", "klein", "qwen_plus", "longcat",
)  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileCache]:
    with FileCache(tmp_path_factory.mktemp("cache")) as opened:
        yield opened


def loaded(spec: Any, cache: FileCache, editor: str | None = None, dtype: str = "float32") -> Editor:
    return load_editor(resolve_model(spec, editor, Path("/"), cache), "cpu", dtype)


def test_device_auto_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == ("cpu", "auto: no GPU that torch can use")
    assert pick_device("cpu") == ("cpu", "asked for")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("gpu", "not known"),
        ("cuda:x", "not known"),
        ("cuda", "0 CUDA devices"),
        ("cuda:7", "0 CUDA"),
        ("mps", "no Apple"),
    ],
)
def test_devices_that_are_not_here(device: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match=words) as caught:
        pick_device(device)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("requested", "device", "pipeline", "bf16", "wanted", "why"),
    [
        ("auto", "cpu", "FluxPipeline", True, "float32", "auto: cpu"),
        ("auto", "mps", None, True, "float32", "auto: mps"),
        ("auto", "cuda", "StableDiffusionXLPipeline", True, "float16", "auto: as U-Nets are trained"),
        ("auto", "cuda", "FluxPipeline", True, "bfloat16", "auto: as this model was trained"),
        ("auto", "cuda:1", "ZImagePipeline", False, "bfloat16", "emulates bfloat16, slowly"),
        ("float16", "cuda", "StableDiffusionPipeline", True, "float16", "asked for"),
    ],
)
def test_dtype(
    requested: str, device: str, pipeline: str, bf16: bool, wanted: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    dtype, reason = pick_dtype(requested, device, pipeline)
    assert dtype == wanted
    assert why in reason


@pytest.mark.parametrize("name", ["sd3", "flux", "zimage", "klein", "qwen_plus"])
def test_float16_is_refused_for_what_overflows_in_it(
    name: str, tmp_path: Path, request: Any, cli: Callable[..., Any]
) -> None:
    folder = request.getfixturevalue(name)
    data = make_dataset(tmp_path / "data", counts=(1, 1))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", model=str(folder), editor=None, dtype="float16")
    answer = cli("plan", str(recipe))
    assert answer.code == 2
    assert "overflows in it" in answer.err
    assert "bfloat16" in answer.err


def test_an_unknown_dtype_is_an_error() -> None:
    with pytest.raises(UsageError, match="'int8' is not known"):
        pick_dtype("int8", "cpu")


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (torch.cuda.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory(error: Exception, wanted: bool) -> None:
    assert out_of_memory(error) is wanted


def test_torch_really_says_so_on_a_cpu() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert out_of_memory(caught.value)


def _edit(editor: Editor, family: str) -> np.ndarray:
    return editor.edit(EditBatch([picture(0)], [job(settings(family, strength=1.0), seed=3)]))[0].image


def test_loading_and_editing_are_silent(sd: Path, cache: FileCache, capfd: Any) -> None:
    _edit(loaded(str(sd), cache), "img2img")
    assert capfd.readouterr() == ("", "")


def test_quiet_leaves_things_as_they_were() -> None:
    import diffusers.utils.logging as log
    from transformers import dynamic_module_utils

    def state() -> tuple[Any, ...]:
        return log.get_verbosity(), log.is_progress_bar_enabled(), dynamic_module_utils.TIME_OUT_REMOTE_CODE

    before = state()
    with contextlib.suppress(KeyError), quiet():
        assert log.get_verbosity() == log.ERROR
        raise KeyError
    assert state() == before


def test_code_in_a_model_is_neither_run_nor_asked_about(
    qwen_edit: Path, cache: FileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor is loaded by transformers' Auto classes, which diffusers gives no word on code: they would ask on stdin."""
    folder = shutil.copytree(qwen_edit, tmp_path / "m")
    processor = folder / "processor"
    for file in processor.glob("*processor*.json"):
        file.unlink()
    own = {"image_processor_type": "Mine", "auto_map": {"AutoImageProcessor": "mine.Mine"}}
    (processor / "preprocessor_config.json").write_text(json.dumps(own))
    (processor / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n")
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text="": asked.append(text) or "y")
    with pytest.raises(DiffgenError, match="cannot be loaded as"):
        loaded(str(folder), cache)
    assert not asked
    assert not (tmp_path / "ran").exists()


def test_channels_last_and_no_safety_checker(sd: Path, sdxl: Path, load: Any) -> None:
    pipe = load(sd)._pipe
    assert pipe.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert pipe.safety_checker is None
    assert load(sdxl)._pipe.watermark is None


@pytest.mark.parametrize(
    ("name", "dtype", "upcast", "decoder"),
    [
        ("sd", "float16", None, torch.float16),
        ("sd", "float16", True, torch.float32),
        ("sdxl", "float16", None, torch.float32),
        ("sdxl", "float16", False, torch.float16),  # as the repaired VAE says
        ("sdxl", "bfloat16", True, torch.bfloat16),
        ("flux", "bfloat16", None, torch.bfloat16),
        ("pocket_like", "float16", None, torch.float16),
    ],
)
def test_the_autoencoder_encodes_in_float32_and_decodes_in_what_holds_it(
    name: str, dtype: str, upcast: bool | None, decoder: Any, cache: FileCache, request: Any, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(request.getfixturevalue(name), tmp_path / "model"))
    config = json.loads((folder / "vae/config.json").read_text())
    config.pop("force_upcast", None)
    (folder / "vae/config.json").write_text(
        json.dumps(config if upcast is None else {**config, "force_upcast": upcast})
    )
    pipe: Any = loaded(str(folder), cache, dtype=dtype)._pipe
    assert {p.dtype for p in pipe.vae.encoder.parameters()} == {torch.float32}
    assert {p.dtype for p in pipe.vae.decoder.parameters()} == {decoder}
    assert pipe.text_encoder.dtype == getattr(torch, dtype)


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_runs(name: str, cache: FileCache, request: Any) -> None:
    folder = request.getfixturevalue(name)
    family = resolve_model(str(folder), None, Path("/"), cache).editor
    exact, rough = (_edit(loaded(str(folder), cache, dtype=dtype), family) for dtype in ("float32", "bfloat16"))
    assert np.abs(exact.astype(int) - rough).mean() < 4


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_the_chosen_numbers_on_a_gpu(name: str, cache: FileCache, request: Any) -> None:
    model = resolve_model(str(request.getfixturevalue(name)), None, Path("/"), cache)
    dtype, _ = pick_dtype("auto", "cuda", model.pipeline)
    exact, chosen = (_edit(load_editor(model, d, t), model.editor) for d, t in (("cpu", "float32"), ("cuda", dtype)))
    assert np.abs(exact.astype(int) - chosen).mean() < 4


@pytest.fixture
def copy(sd: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sd, tmp_path / "model"))


def test_a_text_encoder_that_transformers_leaves_random_is_noticed(
    copy: Path, cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    def random(cls: Any, folder: str, *_: Any, **__: Any) -> Any:
        return cls(CLIPTextConfig.from_pretrained(folder))

    monkeypatch.setattr(CLIPTextModel, "from_pretrained", classmethod(random))
    with pytest.raises(DiffgenError, match=r"transformers does not load .*text_encoder"):
        loaded(str(copy), cache)


def test_half_precision_files_are_found(copy: Path, sd: Path, cache: FileCache) -> None:
    for part in ("unet", "vae", "text_encoder"):
        for file in (copy / part).glob("*.safetensors"):
            file.rename(file.with_suffix(".fp16.safetensors"))
    assert np.array_equal(_edit(loaded(str(copy), cache), "img2img"), _edit(loaded(str(sd), cache), "img2img"))


def test_half_precision_of_some_parts_only(copy: Path, sd: Path, cache: FileCache) -> None:
    """Stable Diffusion 3.5 comes so."""
    file = next((copy / "text_encoder").glob("*.safetensors"))
    file.rename(file.with_suffix(".fp16.safetensors"))
    assert np.array_equal(_edit(loaded(str(copy), cache), "img2img"), _edit(loaded(str(sd), cache), "img2img"))


def test_weights_that_are_there_in_both_precisions(copy: Path, cache: FileCache) -> None:
    """The variant is the pipeline's: because of the U-Net the text encoder is loaded in half precision."""
    file = next((copy / "unet").glob("*.safetensors"))
    file.rename(file.with_suffix(".fp16.safetensors"))
    file = next((copy / "text_encoder").glob("*.safetensors"))
    half = {key: tensor.half() for key, tensor in load_file(file).items()}
    save_file(half, file.with_suffix(".fp16.safetensors"), {"format": "pt"})
    encoder = loaded(str(copy), cache)._pipe.text_encoder
    assert all(parameter.equal(parameter.half().float()) for parameter in encoder.parameters())


def test_a_hub_snapshot_is_loaded_from_the_cache(
    sd: Path, cache: FileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "a" * 40
    repo = tmp_path / "hub" / "models--some--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    shutil.copytree(sd, repo / "snapshots" / commit)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert np.array_equal(_edit(loaded("some/model", cache), "img2img"), _edit(loaded(str(sd), cache), "img2img"))


def _lose(part: str) -> Any:
    return lambda folder: shutil.rmtree(folder / part)


def _pickle(folder: Path) -> None:
    file = next((folder / "unet").glob("*.safetensors"))
    file.rename(file.with_suffix(".bin"))


def _truncate(folder: Path) -> None:
    file = next((folder / "unet").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-100])


def _garble(folder: Path) -> None:
    next((folder / "vae").glob("*.safetensors")).write_bytes(b"\x00" * 50)


def _pointer(folder: Path) -> None:
    # what `git clone` without LFS leaves
    file = next((folder / "text_encoder").glob("*.safetensors"))
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _forget(part: str) -> Any:
    def damage(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        file = next((folder / part).glob("*.safetensors"))
        tensors = load_file(file)
        tensors.pop(sorted(tensors)[len(tensors) // 2])
        save_file(tensors, file, metadata={"format": "pt"})

    return damage


def _resize(folder: Path) -> None:
    _change(folder / "unet" / "config.json", block_out_channels=[16, 16])


def _change(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _odd_scheduler(folder: Path) -> None:
    _change(folder / "model_index.json", scheduler=["diffusers", "NoSuchScheduler"])


def _no_vocabulary(folder: Path) -> None:
    for file in (folder / "tokenizer").iterdir():
        file.unlink()


def _broken_json(folder: Path) -> None:
    (folder / "unet" / "config.json").write_text("{")


@pytest.mark.parametrize(
    "damage",
    [
        shutil.rmtree, _lose("unet"), _lose("scheduler"), _lose("tokenizer"), _pickle, _truncate, _garble, _pointer, _resize,
        _forget("unet"), _forget("vae"), _forget("text_encoder"),
        _odd_scheduler, _no_vocabulary, _broken_json,
    ],
)  # fmt: skip
def test_broken_models_are_one_clear_error(damage: Any, copy: Path, cache: FileCache) -> None:
    damage(copy)
    with pytest.raises(DiffgenError) as caught:
        loaded(str(copy), cache)
    assert str(copy) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_weights_that_a_second_text_encoder_lacks_are_noticed(flux: Path, cache: FileCache, tmp_path: Path) -> None:
    """T5 among them, whose embeddings stand in its files once and in the model twice."""
    folder = Path(shutil.copytree(flux, tmp_path / "model"))
    loaded(str(folder), cache)
    _forget("text_encoder_2")(folder)
    with pytest.raises(DiffgenError, match="text_encoder_2 lacks"):
        loaded(str(folder), cache)


@pytest.mark.parametrize(("name", "editor"), [("ip2p", "img2img"), ("sd", "instruct"), ("sdxl", "instruct")])
def test_the_wrong_editor_is_refused(name: str, editor: str, cache: FileCache, request: Any) -> None:
    with pytest.raises(UsageError, match=f"which the editor '{editor}' cannot use") as caught:
        loaded(str(request.getfixturevalue(name)), cache, editor=editor)
    assert caught.value.hint


def test_an_unknown_editor_is_refused(sd: Path, cache: FileCache) -> None:
    with pytest.raises(UsageError, match="'paint' is not known"):
        loaded(str(sd), cache, editor="paint")


@pytest.mark.parametrize(("name", "family"), [("sd", "img2img"), ("ip2p", "instruct")])
def test_a_single_file_with_configs_is_the_same_model(
    name: str, family: str, cache: FileCache, request: Any, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(name)
    configs = shutil.copytree(folder, tmp_path / "configs", ignore=shutil.ignore_patterns("*.safetensors"))
    as_original(folder, tmp_path / "model.safetensors")
    editor = loaded({"file": str(tmp_path / "model.safetensors"), "config": str(configs)}, cache)
    assert np.array_equal(_edit(editor, family), _edit(loaded(str(folder), cache), family))


def test_a_single_file_without_configs_asks_for_them(sd: Path, cache: FileCache, tmp_path: Path) -> None:
    as_original(sd, tmp_path / "model.safetensors")
    with pytest.raises(DiffgenError) as caught:
        loaded(str(tmp_path / "model.safetensors"), cache)
    assert "config: FOLDER" in (caught.value.hint or "")
