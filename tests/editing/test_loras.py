"""LoRAs: added to the weights once, in proportion to their weight, and refused where they do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffgen.dataset.file_cache import FileCache
from diffgen.editing.editor import EditBatch, Editor
from diffgen.editing.families import load_editor
from diffgen.errors import DiffgenError
from diffgen.models.find import resolve_model
from diffgen.models.loras import Lora
from tests.editing.tiny_models import denoiser, job, picture, settings, write_lora

pytestmark = pytest.mark.editors


def loaded(folder: Path, tmp_path: Path, *loras: tuple[Path, float]) -> Editor:
    with FileCache(tmp_path / "cache") as cache:
        model = resolve_model(str(folder), None, folder, cache)
    return load_editor(
        replace(model, loras=tuple(Lora(str(path), weight, "") for path, weight in loras)), "cpu", "float32"
    )


def edit(editor: Editor) -> np.ndarray:
    return editor.edit(EditBatch([picture(0)], [job(settings("img2img", strength=1.0, guidance=0.0), seed=3)]))[0].image


@pytest.mark.parametrize(
    ("model", "part"), [("sd", "unet"), ("sdxl", "unet"), ("sd3", "transformer"), ("flux", "transformer")]
)
def test_weights_change_in_proportion(model: str, part: str, load: Any, request: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = request.getfixturevalue(model)
    plain = load(folder)
    file = write_lora(tmp_path / "snow.safetensors", part, denoiser(plain))
    name = next(n for n, _ in denoiser(plain).named_modules() if n.endswith("to_q"))
    before = denoiser(plain).get_submodule(name).weight
    half, whole = (denoiser(loaded(folder, tmp_path, (file, w))).get_submodule(name).weight for w in (0.5, 1.0))
    assert torch.allclose(whole - before, 2 * (half - before), atol=1e-5)
    assert (whole - before).abs().max() > 0.1
    both = denoiser(loaded(folder, tmp_path, (file, 0.25), (file, 0.25))).get_submodule(name).weight
    assert torch.allclose(both, half, atol=1e-5)
    assert not np.array_equal(edit(loaded(folder, tmp_path, (file, 1.0))), edit(plain))
    assert np.array_equal(edit(loaded(folder, tmp_path, (file, 0.0))), edit(plain))


@pytest.mark.parametrize("wrong", ["part", "size"])
def test_what_does_not_fit_is_one_clear_error(wrong: str, sd: Path, sd3: Path, load: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    part, source = ("transformer", sd3) if wrong == "part" else ("unet", sd)
    file = write_lora(tmp_path / "other.safetensors", part, denoiser(load(source)), wider=4 * (wrong == "size"))
    with pytest.raises(DiffgenError, match="does not fit model") as caught:
        loaded(sd, tmp_path, (file, 1.0))
    assert str(file) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_without_peft_it_says_what_to_install(
    sd: Path, load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_lora(tmp_path / "snow.safetensors", "unet", denoiser(load(sd)))
    monkeypatch.setattr("diffgen.models.loras.find_spec", lambda _: None)
    with pytest.raises(DiffgenError, match="need the package peft") as caught:
        loaded(sd, tmp_path, (file, 1.0))
    assert caught.value.hint == "pip install 'diffgen[lora]'"
