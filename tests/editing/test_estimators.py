"""Depth and segmentation maps by transformers' own classes, built tiny."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffgen.dataset.file_cache import FileCache
from diffgen.editing.control_maps import PALETTE, Maps, load_estimator
from diffgen.errors import DiffgenError
from diffgen.models.networks import Network, resolve_network
from diffgen.types import ControlInput
from tests.editing.tiny_nets import write_estimator
from tests.fakes import photo

pytestmark = pytest.mark.editors


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("estimators")
    return {kind: write_estimator(root / kind, kind) for kind in ("dpt", "glpn", "segformer", "cityscapes")}


def weights(folder: Path, role: str) -> Network:
    return Network(folder.name, role, folder.name, str(folder))


def shown(folder: Path, role: str, image: Any) -> np.ndarray:
    maps = Maps({"e": load_estimator(weights(folder, role), "cpu")})
    return maps(ControlInput(role, "net", 1.0, estimator="e"), image)


@pytest.mark.parametrize(("kind", "turned"), [("dpt", False), ("glpn", True)])
def test_depth_is_bright_where_it_is_near(folders: dict[str, Path], kind: str, turned: bool) -> None:
    """DPT estimates nearness, GLPN metres."""
    import transformers

    image = photo(0, (96, 64))
    found = shown(folders[kind], "depth", image)
    assert (found.shape, found.dtype) == (image.shape, np.uint8)
    assert (found.min(), found.max()) == (0, 255)
    stock = transformers.pipeline("depth-estimation", model=str(folders[kind]))(Image.fromarray(image))["depth"]
    wanted = np.asarray(stock).astype(int)
    assert np.abs(found[..., 0].astype(int) - (255 - wanted if turned else wanted)).max() <= 1


def test_segments_have_the_colours_of_ade20k(folders: dict[str, Path]) -> None:
    import transformers

    image = photo(0, (96, 64))
    found = shown(folders["segformer"], "segmentation", image)
    assert found.shape == image.shape
    stock = transformers.pipeline("image-segmentation", model=str(folders["segformer"]))(Image.fromarray(image))
    for segment in stock:
        colour = PALETTE[int(segment["label"].removeprefix("LABEL_"))]
        assert (found[np.asarray(segment["mask"]) > 0] == colour).all()
    assert sum((np.asarray(segment["mask"]) > 0).sum() for segment in stock) == 64 * 96


def test_maps_are_the_same_each_time(folders: dict[str, Path]) -> None:
    image = photo(0)
    for kind, role in [("dpt", "depth"), ("segformer", "segmentation")]:
        assert np.array_equal(shown(folders[kind], role, image), shown(folders[kind], role, image.copy()))


def test_a_plain_depth_is_no_trouble(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, recwarn: Any) -> None:
    """Where all is equally far there is no range to stretch."""
    import torch
    import transformers

    monkeypatch.setattr(
        transformers.DPTImageProcessor,
        "post_process_depth_estimation",
        lambda *_: [{"predicted_depth": torch.ones(48, 64)}],
    )
    assert np.unique(shown(folders["dpt"], "depth", photo(0))).size == 1
    assert not list(recwarn)


def test_classes_that_are_not_ade20ks_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(DiffgenError, match="has 19 classes") as caught:
        load_estimator(weights(folders["cityscapes"], "segmentation"), "cpu")
    assert "ADE20K" in str(caught.value.hint)


@pytest.mark.parametrize(("kind", "role"), [("segformer", "depth"), ("dpt", "segmentation")])
def test_a_model_for_something_else_is_refused(folders: dict[str, Path], kind: str, role: str) -> None:
    with pytest.raises(DiffgenError, match=f"{role} estimator '{kind}'") as caught:
        load_estimator(weights(folders[kind], role), "cpu")
    assert role in str(caught.value.hint)


def test_broken_files_are_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    for file in folders["dpt"].iterdir():
        (tmp_path / "e" / file.name).write_bytes(file.read_bytes()[:-100] if file.suffix == ".json" else b"")
    with pytest.raises(DiffgenError, match="cannot be loaded"):
        load_estimator(weights(tmp_path / "e", "depth"), "cpu")


def test_a_model_with_code_of_its_own_is_neither_run_nor_asked_about(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(folders["dpt"], tmp_path / "e")
    classes = {"AutoConfig": "mine.Config", "AutoModelForDepthEstimation": "mine.Model", "AutoImageProcessor": "mine.P"}
    for file in ("config.json", "preprocessor_config.json"):
        own = json.loads((folder / file).read_text())
        own.pop("image_processor_type", None)
        (folder / file).write_text(json.dumps({**own, "model_type": "mine", "auto_map": classes}))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text="": asked.append(text) or "y")
    with pytest.raises(DiffgenError, match="cannot be loaded"):
        load_estimator(weights(folder, "depth"), "cpu")
    assert not asked
    assert not (tmp_path / "ran").exists()


def test_half_precision_files_make_a_float32_estimator(folders: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    for name in ("model.safetensors", "model.fp16.safetensors"):
        folder = shutil.copytree(folders["dpt"], tmp_path / name)
        half = {key: tensor.to(torch.float16) for key, tensor in load_file(folder / "model.safetensors").items()}
        (folder / "model.safetensors").unlink()
        save_file(half, folder / name, metadata={"format": "pt"})
        assert shown(folder, "depth", photo(0)).max() == 255


def test_weights_that_never_run_may_lack_and_others_not(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    image = photo(0)
    for lacking, fine in [("neck.fusion_stage.layers.0.residual_layer1.", True), ("head.head.0.", False)]:
        folder = shutil.copytree(folders["dpt"], tmp_path / lacking)
        file = folder / "model.safetensors"
        tensors = load_file(file)
        kept = {key: tensor for key, tensor in tensors.items() if not key.startswith(lacking)}
        assert len(kept) < len(tensors)
        save_file(kept, file, metadata={"format": "pt"})
        if fine:
            assert np.array_equal(shown(folder, "depth", image), shown(folders["dpt"], "depth", image))
        else:
            with pytest.raises(DiffgenError, match=r"its files do not contain head\.head\.0\.bias"):
                load_estimator(weights(folder, "depth"), "cpu")


def test_a_saved_estimator_resolves(folders: dict[str, Path], tmp_path: Path) -> None:
    with FileCache(tmp_path / "cache") as cache:
        found = resolve_network("glpn", "depth", folders["glpn"].parent, cache)
    assert found.folder == str(folders["glpn"])
