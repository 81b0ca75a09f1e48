"""Models of the Hugging Face hub in its cache: found, whole or not, and what is wanted of a repository."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import DiffgenError
from diffgen.models import weights
from diffgen.models.find import resolve_model
from diffgen.models.model import is_on_disk, local_folder, pipeline_class, require_on_disk
from tests.fakes_hub import COMMIT, SD, write_snapshot


def test_a_cached_hub_model_has_its_commit(cache: FileCache, tmp_path: Path) -> None:
    folder = write_snapshot(tmp_path, "stabilityai/sd-turbo")
    model = resolve_model("sd-turbo", None, tmp_path, cache)
    assert model.identity == f"stabilityai/sd-turbo@{COMMIT}"
    assert is_on_disk(model)
    assert require_on_disk(model) is model
    assert local_folder(model) == folder
    assert pipeline_class(model) == "StableDiffusionPipeline"


def test_a_commit_without_a_ref_is_enough(cache: FileCache, tmp_path: Path) -> None:
    # `hf download --revision COMMIT` writes no ref
    write_snapshot(tmp_path, "stabilityai/sd-turbo", ref=False)
    assert not is_on_disk(resolve_model("sd-turbo", None, tmp_path, cache))
    assert is_on_disk(resolve_model({"alias": "sd-turbo", "revision": COMMIT}, None, tmp_path, cache))


@pytest.mark.parametrize(
    "lost",
    ["unet/diffusion_pytorch_model.safetensors", "unet/config.json", "tokenizer/merges.txt", "vae", "model_index.json"],
)
def test_half_a_download_is_not_on_disk(lost: str, cache: FileCache, tmp_path: Path) -> None:
    folder = write_snapshot(tmp_path, "stabilityai/sd-turbo")
    (folder / lost).rename(folder / "elsewhere")
    model = resolve_model("sd-turbo", None, tmp_path, cache)
    assert not is_on_disk(model)
    with pytest.raises(DiffgenError) as caught:
        require_on_disk(model)
    assert f"pull sd-turbo@{COMMIT}" in (caught.value.hint or "")


def test_any_hub_id_that_is_here(cache: FileCache, tmp_path: Path) -> None:
    write_snapshot(tmp_path, "someone/winter", cls="StableDiffusionXLPipeline", unet={"sample_size": 128})
    model = resolve_model("someone/winter", None, tmp_path, cache)
    assert (model.editor, model.native, model.multiple) == ("img2img", 1024, 8)


def test_a_hub_id_that_has_a_short_name_is_that_model(cache: FileCache, tmp_path: Path) -> None:
    """A turbo asked for by its id has its few steps, and no guidance."""
    short, full = (resolve_model(spec, None, tmp_path, cache) for spec in ("sd-turbo", "stabilityai/sd-turbo"))
    assert full == replace(short, name="stabilityai/sd-turbo")
    assert (full.steps, full.guidance) == (4, 0.0)
    assert resolve_model({"hub": "stabilityai/sd-turbo", "steps": 4}, None, tmp_path, cache).steps == 4


def test_a_hub_id_that_is_not_here_says_so(cache: FileCache, tmp_path: Path) -> None:
    with pytest.raises(DiffgenError, match="'someone/winter' is not on this machine") as caught:
        resolve_model("someone/winter", None, tmp_path, cache)
    assert "diffgen models pull someone/winter" in (caught.value.hint or "")


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_the_hub_cache_is_where_huggingface_hub_has_it(variable: str, tmp_path: Path) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE", "XDG"))}
    program = (
        "from huggingface_hub.constants import HF_HUB_CACHE; from diffgen.models.hub import cache_folder\n"
        "print(HF_HUB_CACHE); print(cache_folder())"
    )
    out = subprocess.run(
        [sys.executable, "-c", program],
        env=clean | {variable: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    theirs, ours = out.stdout.splitlines()
    assert ours == theirs


def test_huggingface_hub_finds_the_files_that_we_find(cache: FileCache, tmp_path: Path) -> None:
    from huggingface_hub import try_to_load_from_cache

    folder = write_snapshot(tmp_path, "stabilityai/sd-turbo")
    found = try_to_load_from_cache(
        "stabilityai/sd-turbo", "unet/diffusion_pytorch_model.safetensors", cache_dir=tmp_path / "hub"
    )
    assert found == str(folder / "unet" / "diffusion_pytorch_model.safetensors")


def test_the_file_that_each_library_takes_where_there_are_two() -> None:
    """Seen in their code: diffusers takes the index, transformers the whole file."""
    shards = ["{}-00001-of-00002.safetensors", "{}-00002-of-00002.safetensors"]
    for stem, shown in (("diffusion_pytorch_model", [0, 1, 2]), ("model", [3])):
        index, whole = f"{stem}.safetensors.index.json", f"{stem}.safetensors"
        every = [index, *(shard.format(stem) for shard in shards), whole]
        assert weights.weight_names(every, stem) == [every[i] for i in shown]


def test_half_precision_that_is_pickled_in_one_part(cache: FileCache, tmp_path: Path) -> None:
    """diffusers would look for the variant in that part too, and find no safetensors."""
    folder = write_snapshot(tmp_path, "stabilityai/sd-turbo")
    for part, stem in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")):
        (folder / part / f"{stem}.fp16.safetensors").write_bytes(b"x")
    assert is_on_disk(resolve_model("sd-turbo", None, tmp_path, cache))
    (folder / "text_encoder" / "pytorch_model.fp16.bin").write_bytes(b"x")
    assert weights.missing_parts(folder) == ["text_encoder/model.fp16.safetensors"]


INDEX = {"_class_name": "StableDiffusionPipeline", **SD}
FILES = [
    "README.md",
    "big.safetensors",
    "model_index.json",
    "safety_checker/model.safetensors",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder/pytorch_model.bin",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/onnx/weights.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model-00001-of-00002.safetensors",
    "vae/diffusion_pytorch_model-00002-of-00002.safetensors",
    "vae/diffusion_pytorch_model.safetensors.index.json",
]


def test_only_what_is_loaded_is_fetched() -> None:
    assert sorted(weights.wanted_files(FILES, INDEX)) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model-00001-of-00002.safetensors",
        "vae/diffusion_pytorch_model-00002-of-00002.safetensors",
        "vae/diffusion_pytorch_model.safetensors.index.json",
    ]
