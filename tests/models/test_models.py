"""What `model:` means, without torch and without a network."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import DiffgenError, UsageError
from diffgen.models.aliases import aliases
from diffgen.models.find import model_rows, resolve_model
from diffgen.models.model import is_on_disk, pipeline_class, require_on_disk
from diffgen.models.pipelines import SPECS
from diffgen.recipe.load import load_recipe
from diffgen.run.session import Session
from tests.fakes import make_dataset, write_recipe
from tests.fakes_hub import write_model, write_snapshot


@pytest.mark.parametrize("name", [n for n, e in aliases().items() if "hub" in e])
def test_hub_aliases_resolve_without_model_and_network(name: str, cache: FileCache, tmp_path: Path) -> None:
    model = resolve_model(name, None, tmp_path, cache)
    entry = aliases()[name]
    assert (model.name, model.kind, model.place, model.editor) == (name, "hub", entry["hub"], entry["editor"])
    assert (model.steps, model.guidance, model.native) == (entry["steps"], entry["guidance"], entry["native"])
    assert isinstance(model.guidance, float)
    assert model.revision is None
    assert model.identity == f"{entry['hub']}@unpinned"
    assert not is_on_disk(model)
    with pytest.raises(DiffgenError, match="not on this machine") as caught:
        require_on_disk(model)
    assert f"diffgen models pull {name}" in (caught.value.hint or "")


def test_every_alias_names_a_known_family_and_every_class_too() -> None:
    from diffgen.editing.families import FAMILIES

    assert {entry["editor"] for entry in aliases().values()} <= set(FAMILIES)
    assert {family for spec in SPECS.values() for family in (spec.family, *spec.loads)} <= set(FAMILIES)


@pytest.mark.parametrize(
    ("vae", "unet", "native", "multiple"),
    [
        ({"block_out_channels": [128, 256, 512, 512]}, {"sample_size": 64}, 512, 8),
        ({"block_out_channels": [128, 256, 512, 512]}, {"sample_size": [96, 128]}, 1024, 8),
        ({"num_encoder_blocks": [0, 1, 2], "block_out_channels": [48, 48, 48]}, {"sample_size": 128}, 512, 4),
        ({"num_encoder_blocks": [1, 3, 3, 3]}, {"sample_size": 64}, 512, 8),  # TAESD
    ],
)
def test_sizes_from_the_configs(
    vae: Any, unet: Any, native: int, multiple: int, cache: FileCache, tmp_path: Path
) -> None:
    write_model(tmp_path / "m", vae=vae, unet=unet)
    model = resolve_model("m", None, tmp_path, cache)
    assert (model.native, model.multiple) == (native, multiple)


@pytest.mark.parametrize(
    ("cls", "editor"),
    [
        ("StableDiffusionPipeline", "img2img"),
        ("StableDiffusionXLImg2ImgPipeline", "img2img"),
        ("StableDiffusionInstructPix2PixPipeline", "instruct"),
    ],
)
def test_the_class_gives_the_editor(cls: str, editor: str, cache: FileCache, tmp_path: Path) -> None:
    write_model(tmp_path / "m", cls=cls)
    assert resolve_model("m", None, tmp_path, cache).editor == editor
    assert resolve_model("./m", "other", tmp_path, cache).editor == "other"


def test_facts_nearest_first(cache: FileCache, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", cls="StableDiffusionInstructPix2PixPipeline")
    plain = resolve_model("m", None, tmp_path, cache)
    assert (plain.steps, plain.guidance, plain.image_guidance, plain.severity) == (20, 7.0, 1.5, None)
    (folder / "diffgen.json").write_text(
        json.dumps({"steps": 1, "guidance": 1, "severity": "{prompt} {percent}", "multiple": 32})
    )
    own = resolve_model("m", None, tmp_path, cache)
    assert (own.steps, own.guidance, own.severity, own.multiple) == (1, 1.0, "{prompt} {percent}", 32)
    asked = resolve_model({"folder": "m", "steps": 4, "native": 768}, None, tmp_path, cache)
    assert (asked.steps, asked.guidance, asked.native, asked.multiple) == (4, 1.0, 768, 32)
    assert (resolve_model({"alias": "sd-turbo", "steps": 4}, None, tmp_path, cache)).steps == 4


def test_a_list_of_words_makes_no_image_anew(cache: FileCache, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m")
    (folder / "diffgen.json").write_text('{"vocabulary": "words.json"}')
    (folder / "words.json").write_text('{"snow": ["snow"]}')
    identity = resolve_model("m", None, tmp_path, cache).identity
    (folder / "words.json").write_text('{"snow": ["snow", "snowy"]}')
    assert resolve_model("m", None, tmp_path, cache).identity == identity


def test_identity_follows_the_contents(cache: FileCache, tmp_path: Path) -> None:
    first = write_model(tmp_path / "a")
    copy = write_model(tmp_path / "b" / "elsewhere")
    identity = resolve_model(str(first), None, tmp_path, cache).identity
    assert identity.startswith("sha256:")
    assert len(identity) == len("sha256:") + 64
    assert resolve_model(str(copy), None, tmp_path, cache).identity == identity  # not the place
    assert resolve_model("b/elsewhere", None, tmp_path, cache).identity == identity  # not the spelling
    cache.flush()
    assert resolve_model("a", None, tmp_path, cache).identity == identity  # remembered
    (first / "scheduler" / "scheduler_config.json").write_text('{"x": 1}')
    assert resolve_model("a", None, tmp_path, cache).identity != identity
    (copy / "unet" / "diffusion_pytorch_model.safetensors").rename(
        copy / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    )
    assert resolve_model("b/elsewhere", None, tmp_path, cache).identity != identity


def test_weights_are_hashed_once(cache: FileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_model(tmp_path / "a") / "unet" / "diffusion_pytorch_model.safetensors"
    before = resolve_model("a", None, tmp_path, cache)
    cache.flush()
    stat = file.stat()
    file.write_bytes(b"x" * stat.st_size)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    changed = resolve_model("a", None, tmp_path, cache)
    assert changed != before, "though size and mtime are the same"
    cache.flush()
    monkeypatch.setattr("diffgen.models.networks.file_sha256", None)
    assert resolve_model("a", None, tmp_path, cache) == changed


@pytest.mark.parametrize(
    ("spec", "words", "hint"),
    [
        ("sd-turbp", "'sd-turbp' is not known", "did you mean 'sd-turbo'?"),
        ("zzz", "'zzz' is not known", "use one of: pocket"),
        ("./nowhere", "does not exist", "relative to the recipe"),
        ("~/nowhere-at-all", "does not exist", "relative"),
        ("nowhere.safetensors", "does not exist", "relative"),
        ("old.ckpt", "not a .safetensors file", "pickled"),
        ({"file": "old.bin"}, "not a .safetensors file", "pickled"),
        ({"folder": "nowhere"}, "does not exist", "relative"),
        ({"folder": "empty"}, "no model_index.json", "save_pretrained"),
        ({"hub": "not an id"}, "not a hub id", "OWNER/NAME"),
        ({"alias": "sd-turb"}, "not known", "sd-turbo"),
        ({"hub": "a/b", "file": "c.safetensors"}, "exactly one of", "hub"),
        ({"steps": 2}, "exactly one of", "hub"),
        ({"alias": "sd-turbo", "guidence": 1}, "unknown field 'guidence'", "guidance"),
        ({"alias": "sd-turbo", "steps": 0}, "steps: expected a whole number from 1 to 8192, got 0", ""),
        ({"alias": "sd-turbo", "steps": True}, "steps: expected", ""),
        ({"alias": "sd-turbo", "guidance": "high"}, "guidance: expected a number", ""),
        ({"file": "broken.safetensors"}, "broken safetensors", "again"),
        ({"file": "half.safetensors"}, "broken safetensors", "again"),
        ({"file": "lora.safetensors"}, "not a Stable Diffusion checkpoint", "config"),
        ({"file": "lora.safetensors", "config": "empty"}, "config .* has no model_index.json", "pipeline"),
    ],
)
def test_what_cannot_be_meant(spec: Any, words: str, hint: str, cache: FileCache, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 64)
    write_tensors(tmp_path / "half.safetensors", {"model.diffusion_model.input_blocks.0.0.weight": [320, 4, 3, 3]})
    os.truncate(tmp_path / "half.safetensors", 20_000)
    write_tensors(tmp_path / "lora.safetensors", {"lora.up": [4, 4]})
    with pytest.raises(DiffgenError, match=words) as caught:
        resolve_model(spec, None, tmp_path, cache)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(("suffix", "hint"), [(".bin", "pickled"), (".ckpt", "pickled"), (".txt", "copy or download")])
def test_safetensors_only(suffix: str, hint: str, cache: FileCache, tmp_path: Path) -> None:
    write_model(tmp_path / "m", suffix=suffix)
    with pytest.raises(UsageError, match=r"lacks text_encoder/model\.safetensors, unet") as caught:
        resolve_model("m", None, tmp_path, cache)
    assert hint in (caught.value.hint or "")


def test_a_class_without_editor_says_so(cache: FileCache, tmp_path: Path) -> None:
    write_model(tmp_path / "m", cls="StableVideoDiffusionPipeline")
    with pytest.raises(UsageError, match="no editor for StableVideoDiffusionPipeline"):
        resolve_model("m", None, tmp_path, cache)


def write_tensors(file: Path, shapes: dict[str, list[int]]) -> None:
    save_file({name: np.zeros(shape, np.float16) for name, shape in shapes.items()}, file)


@pytest.mark.parametrize(
    ("channels", "xl", "cls", "editor", "native"),
    [
        (4, False, "StableDiffusionPipeline", "img2img", 512),
        (8, False, "StableDiffusionInstructPix2PixPipeline", "instruct", 512),
        (4, True, "StableDiffusionXLPipeline", "img2img", 1024),
        (8, True, "StableDiffusionXLInstructPix2PixPipeline", "instruct", 1024),
        (9, False, "StableDiffusionInpaintPipeline", "inpaint", 512),
        (9, True, "StableDiffusionXLInpaintPipeline", "inpaint", 1024),
    ],
)
def test_a_single_file_tells_its_class(
    channels: int, xl: bool, cls: str, editor: str, native: int, cache: FileCache, tmp_path: Path
) -> None:
    encoder = "conditioner.embedders.1.model.ln_final.weight" if xl else "cond_stage_model.transformer.weight"
    shapes = {
        "model.diffusion_model.input_blocks.0.0.weight": [320, channels, 3, 3],
        "first_stage_model.decoder.conv_in.weight": [1],
        encoder: [1280],
    }
    write_tensors(tmp_path / "m.safetensors", shapes)
    model = resolve_model("m.safetensors", None, tmp_path, cache)
    assert (model.kind, model.editor, model.native, model.multiple) == ("file", editor, native, 8)
    assert pipeline_class(model) == cls
    assert is_on_disk(model)


def test_a_single_file_with_its_configs(cache: FileCache, tmp_path: Path) -> None:
    write_tensors(tmp_path / "m.safetensors", {"anything": [1]})
    write_model(tmp_path / "configs", unet={"sample_size": 96}, suffix=".txt")
    spec = {"file": "m.safetensors", "config": "configs"}
    model = resolve_model(spec, None, tmp_path, cache)
    assert (model.editor, model.native, model.config) == ("img2img", 768, str(tmp_path / "configs"))
    (tmp_path / "configs" / "scheduler" / "scheduler_config.json").write_text('{"x": 1}')
    assert resolve_model(spec, None, tmp_path, cache).identity != model.identity


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("cond_stage_model", "has no text encoder"),
        ("first_stage_model", "has no vae"),
        ("_stage_model", "has no vae and text encoder"),
    ],
)
@pytest.mark.parametrize("config", [True, False])
def test_a_single_file_that_lacks_a_part_says_which(
    lost: str, words: str, config: bool, cache: FileCache, tmp_path: Path
) -> None:
    shapes = {
        "model.diffusion_model.input_blocks.0.0.weight": [320, 4, 3, 3],
        "first_stage_model.decoder.conv_in.weight": [1],
        "cond_stage_model.transformer.weight": [1],
    }
    write_tensors(tmp_path / "m.safetensors", {name: shape for name, shape in shapes.items() if lost not in name})
    write_model(tmp_path / "configs")
    with pytest.raises(UsageError, match=words) as caught:
        resolve_model({"file": "m.safetensors", **({"config": "configs"} if config else {})}, None, tmp_path, cache)
    assert "all parts" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("content", "words", "hint"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer", "git lfs pull"),
        (pickle.dumps({"state_dict": 1}), "a pickle with the suffix .safetensors", "convert it"),
        (b"PK\x03\x04" + b"0" * 60, "a pickle with the suffix .safetensors", "convert it"),
        (b"<!DOCTYPE html><html>Not found</html>", "a web page", "the file itself"),
        (b"\xff" * 64, "broken safetensors file", "download it again"),
    ],
)
def test_a_file_that_is_not_what_it_is_called(
    content: bytes, words: str, hint: str, cache: FileCache, tmp_path: Path
) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(DiffgenError, match=words) as caught:
        resolve_model("m.safetensors", None, tmp_path, cache)
    assert hint in str(caught.value.hint)


def test_model_rows(cache: FileCache, tmp_path: Path) -> None:
    write_snapshot(tmp_path, "stabilityai/sd-turbo")
    rows = {row["name"]: row for row in model_rows(cache)}
    assert list(rows) == list(aliases())
    assert rows["sd-turbo"]["on_disk"] is True
    assert rows["sdxl"]["on_disk"] is False
    assert rows["sdxl"]["native"] == 1024
    assert all(row["licence"] and row["about"] and row["size_mb"] for row in rows.values())


def test_resolving_imports_nothing_heavy() -> None:
    program = (
        "import sys, pathlib; from diffgen.models.find import resolve_model; from diffgen.dataset.file_cache import FileCache\n"
        "resolve_model('sd-turbo', None, pathlib.Path('.'), FileCache(pathlib.Path('/nonexistent/x')))\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'huggingface_hub', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


@pytest.mark.parametrize(
    ("fields", "words", "hint"),
    [
        (
            {"model": "sd15", "editor": "instruct"},
            "is a StableDiffusionPipeline, which the editor 'instruct'",
            "editor:",
        ),
        (
            {"model": "flux1-kontext-dev", "editor": "img2img"},
            "FluxKontextPipeline, which the editor 'img2img'",
            "editor:",
        ),
        (
            {"model": "flux1-dev", "controls": [{"kind": "canny", "model": "a/net"}]},
            "the editor 'controlnet'",
            "controls:",
        ),
    ],
)
def test_a_model_that_the_editor_cannot_use_is_an_error_of_the_plan(
    fields: dict[str, Any], words: str, hint: str, tmp_path: Path
) -> None:
    """Not after its gigabytes are fetched."""
    recipe = write_recipe(
        tmp_path / "r.yaml", make_dataset(tmp_path / "data"), tmp_path / "out", **{"editor": None, **fields}
    )
    with pytest.raises(UsageError, match=words) as caught:
        Session.open(load_recipe(recipe))
    assert f"remove `{hint}`" in (caught.value.hint or "")
