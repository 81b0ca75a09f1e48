"""CLIP scores, on the real class with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffgen.checks.clip import Clip, load_clip
from diffgen.checks.second_look import SecondLook
from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.labels import LabelSchema
from diffgen.errors import DiffgenError, UsageError
from diffgen.models.networks import Network
from diffgen.models.resolve import require_networks, resolve_recipe_model
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from diffgen.run.session import Session
from diffgen.run.worker import Worker
from tests.editing.tiny_models import write_tokenizer
from tests.fakes import FakeEditor, make_dataset, photo, write_recipe

pytestmark = pytest.mark.editors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPConfig, CLIPModel

    place = tmp_path_factory.mktemp("models") / "clip"
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={
            **shared,
            "vocab_size": 514,
            "max_position_embeddings": 16,
            "bos_token_id": 512,
            "eos_token_id": 513,
        },
        vision_config={**shared, "image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    write_tokenizer(place)
    CLIPModel(config).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    return load_clip(Network("clip", "clip", "", str(folder)), "cpu")


def test_it_scores_as_the_stock_model_does(clip: Clip, folder: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizer

    pixels = photo(1, (32, 32))  # of the model's own size, so that nothing is resized
    mean, deviation = torch.tensor(clip._mean), torch.tensor(clip._deviation)
    planes = ((torch.from_numpy(pixels) / 255 - mean) / deviation).permute(2, 0, 1)[None]
    tokens = CLIPTokenizer.from_pretrained(folder)("a night", return_tensors="pt")
    stock = CLIPModel.from_pretrained(folder)(pixel_values=planes, **tokens)
    expected = float((stock.image_embeds @ stock.text_embeds.T).item())
    assert float(clip.look([clip.prepare(pixels)])[0] @ clip.read("a night")) == pytest.approx(expected, abs=1e-5)


def test_vectors_are_of_length_one_and_texts_are_read_once(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.linalg.norm(clip.look([clip.prepare(photo(2))])[0]) == pytest.approx(1, abs=1e-5)
    first = clip.read("a very long text " * 20)  # longer than the model reads
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    monkeypatch.setattr(clip, "_tokenizer", None)
    assert clip.read("a very long text " * 20) is first


def test_the_whole_picture_is_seen(clip: Clip) -> None:
    """CLIP's own preparation cuts a wide picture's sides off."""
    pixels = photo(3, (200, 20))
    other = pixels.copy()
    other[:, :30] = 0
    assert not np.allclose(clip.look([clip.prepare(pixels)])[0], clip.look([clip.prepare(other)])[0], atol=1e-4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model_type": "bert"}, "model_type is bert"),
        ({}, "model_type is None"),
        ({"model_type": "clip"}, "CLIP model 'x'"),
    ],
)
def test_what_is_no_clip_model_is_one_clear_error(tmp_path: Path, content: Any, words: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(DiffgenError, match=words) as caught:
        load_clip(Network("x", "clip", "", str(tmp_path)), "cpu")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensor: None, r"its files do not contain visual_projection\.weight"),
        (lambda tensor: tensor[:, :8].contiguous(), "cannot be loaded"),
    ],
)
def test_incomplete_weights_are_refused(tmp_path: Path, folder: Path, change: Any, words: str, capfd: Any) -> None:
    """transformers would fill in random numbers, by which images would be judged."""
    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(folder, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["visual_projection.weight"] = change(tensors["visual_projection.weight"])
    save_file({k: t for k, t in tensors.items() if t is not None}, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(DiffgenError, match=words) as caught:
        load_clip(Network("x", "clip", "", str(broken)), "cpu")
    assert "openai/clip" in str(caught.value.hint)
    assert capfd.readouterr() == ("", "")


def test_a_run_records_it_and_judges_by_it(tmp_path: Path, clip: Clip, folder: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(2, 1))
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", clip=str(folder))

    def worker() -> Worker:
        return Worker(FakeEditor(), LabelSchema(("0", "1"), None), {"device": "fake"}, SecondLook(clip=clip))

    def counted(least: str) -> Any:
        return run(load_recipe(recipe, [f"checks.clip={least}"]), make_worker=worker)

    loose, strict = counted("-1"), counted("1")
    assert loose.accepted == loose.planned == 4
    assert strict.accepted == 0
    assert strict.rejected == {"weak-effect": 4}
    lines = [json.loads(line) for line in (tmp_path / "out" / "records-0.jsonl").read_text().splitlines()]
    scores = [line["facts"]["clip"] for line in lines if "facts" in line]
    assert len(scores) == 4
    assert all(-1 <= score <= 1 for pair in scores for score in pair)
    assert scores[0][0] != scores[0][1]


def test_a_model_that_is_not_here_is_said_before_any_work(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(1, 1))
    loaded = load_recipe(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", clip="openai/none"))
    with FileCache() as cache:
        model = resolve_recipe_model(loaded.recipe, loaded.base, cache)
    with pytest.raises(DiffgenError, match="CLIP model 'openai/none' is not on this machine") as caught:
        require_networks(model, loaded.recipe)
    assert "diffgen models pull openai/none" in str(caught.value.hint)
    broken = load_recipe(tmp_path / "r.yaml", [f"clip={data.parent}"])
    with pytest.raises(UsageError, match=r"CLIP model .* has no config.json with .safetensors weights"):
        run(broken)


def test_it_is_known_by_its_content_and_changes_no_job(tmp_path: Path, folder: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(1, 1))
    plain = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out")
    without, judged = (Session.open(load_recipe(plain, sets)) for sets in ([], [f"clip={folder}"]))
    network = judged.model.observers.clip
    assert network is not None
    assert network.identity.startswith("sha256:")
    assert [item.job.id for item in judged.plan.items] == [item.job.id for item in without.plan.items]
