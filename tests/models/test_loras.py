"""`loras:` in a recipe: what it names, what is refused, and that its contents decide the images' identity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from diffgen.dataset.file_cache import FileCache
from diffgen.errors import DiffgenError, UsageError
from diffgen.models.loras import kept_loras, lora_at, require_lora, resolve_loras
from diffgen.recipe.load import load_recipe
from diffgen.run.session import Session
from tests.fakes import make, make_dataset, put, write_recipe


def write_lora(file: Path, key: str = "unet.to_q.lora_A.weight", weight: float = 1.0) -> Path:
    save_file({key: np.float32([weight])}, file)
    return file


def entry(**fields: Any) -> dict[str, Any]:
    return {"file": None, "hub": None, "weight_name": "w.safetensors", "revision": None, "weight": 1.0, **fields}


def test_the_identity_is_the_content(tmp_path: Path, cache: FileCache) -> None:
    write_lora(tmp_path / "a.safetensors")
    write_lora(tmp_path / "b.safetensors")
    write_lora(tmp_path / "c.safetensors", weight=2.0)
    a, b, c = resolve_loras([entry(file=f"{name}.safetensors") for name in "abc"], tmp_path, cache)
    assert a.identity == b.identity != c.identity
    assert a.path == str(tmp_path / "a.safetensors")
    assert resolve_loras([entry(file="a.safetensors", weight=0.5)], tmp_path, cache)[0].weight == 0.5


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.safetensors", None, "does not exist"),
        ("a.bin", b"x", "not a .safetensors file"),
        ("a.safetensors", b"garbage, and not the format", "broken safetensors file"),
    ],
)
def test_what_is_refused(name: str, content: Any, words: str, tmp_path: Path, cache: FileCache) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DiffgenError, match=words) as caught:
        resolve_loras([entry(file=name)], tmp_path, cache)
    assert caught.value.hint


def test_a_whole_model_is_no_lora(tmp_path: Path, cache: FileCache) -> None:
    write_lora(tmp_path / "a.safetensors", key="unet.conv_in.weight")
    with pytest.raises(UsageError, match="contains no LoRA"):
        resolve_loras([entry(file="a.safetensors")], tmp_path, cache)


def test_a_hub_file_is_planned_with_before_it_is_here(
    tmp_path: Path, cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    wanted = [entry(hub="some/lora")]
    (absent,) = resolve_loras(wanted, tmp_path, cache)
    assert (absent.path, absent.identity) == (None, "some/lora/w.safetensors@unpinned")
    with pytest.raises(DiffgenError, match="not on this machine") as caught:
        require_lora(absent, cache)
    assert "hf download some/lora w.safetensors" in str(caught.value.hint)
    repo = tmp_path / "hub/models--some--lora"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text("a" * 40)
    files = [
        write_lora(put_folder(repo / "snapshots" / (c * 40)) / "w.safetensors", weight=i) for i, c in enumerate("ab")
    ]
    (here,) = resolve_loras(wanted, tmp_path, cache)
    assert (here.path, here.revision) == (str(files[0]), "a" * 40)
    assert require_lora(absent, cache) == here
    # A run folder stays with the commit that it began with; a recipe that pins one stays with that.
    kept = kept_loras([here])["some/lora/w.safetensors"]
    (repo / "refs/main").write_text("b" * 40)
    (newer,) = resolve_loras(wanted, tmp_path, cache)
    assert newer.identity != here.identity
    assert lora_at(newer, kept, cache) == here
    (pinned,) = resolve_loras([entry(hub="some/lora", revision="b" * 40)], tmp_path, cache)
    assert lora_at(pinned, kept, cache) == pinned
    # Without its file the jobs of a run folder are still known.
    files[0].unlink()
    gone = lora_at(resolve_loras(wanted, tmp_path, cache)[0], kept, cache)
    assert (gone.path, gone.identity, gone.unknown) == (None, here.identity, False)
    assert absent.unknown


def test_a_finished_folder_is_shown_without_the_files_and_the_package_of_its_loras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repo = tmp_path / "hub/models--some--lora"
    put(repo / "refs/main", "a" * 40)
    file = write_lora(put_folder(repo / "snapshots" / ("a" * 40)) / "w.safetensors")
    lora = {"hub": "some/lora", "weight_name": "w.safetensors"}
    recipe = write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "data"), tmp_path / "out", loras=[lora])
    make(recipe)
    state = json.loads((tmp_path / "out/run.json").read_text())
    kept = kept_loras(Session.open(load_recipe(recipe)).model.loras)
    put(tmp_path / "out/run.json", json.dumps({**state, "loras": kept}))
    file.unlink()
    monkeypatch.setattr("diffgen.models.loras.find_spec", lambda _: None)
    assert json.loads(cli("status", tmp_path / "out", "--json").out)["accepted"] == 8
    assert json.loads(cli("clean", tmp_path / "out", "--json").out)["images"] == 0
    assert cli("export", tmp_path / "out").code == 0
    # One that keeps nothing of it cannot be told what its jobs are: nothing is deleted.
    put(tmp_path / "out/run.json", json.dumps(state))
    answer = cli("clean", tmp_path / "out", "--yes")
    assert answer.code == 1
    assert "hf download some/lora w.safetensors" in answer.err
    # To make images, the package is needed, which is said before anything else is done.
    assert "pip install 'diffgen[lora]'" in cli("plan", recipe, "--set", f"output={tmp_path / 'other'}").err


def put_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(("key", "kind"), [("lora_unet_x.hada_w1_a", "LoHa"), ("x.lokr_w1", "LoKr")])
def test_a_relative_of_lora_is_called_by_its_name(key: str, kind: str, tmp_path: Path, cache: FileCache) -> None:
    write_lora(tmp_path / "a.safetensors", key=key)
    with pytest.raises(UsageError, match=f"is a {kind}, which cannot be added") as caught:
        resolve_loras([entry(file="a.safetensors")], tmp_path, cache)
    assert "plain LoRA" in str(caught.value.hint)


def test_weight_and_content_decide_the_jobs(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    write_lora(tmp_path / "snow.safetensors")

    def ids(name: str, *loras: dict[str, Any]) -> set[str]:
        fields = {"loras": list(loras)} if loras else {}
        recipe = write_recipe(tmp_path / f"{name}.yaml", data, tmp_path / "out", model="pocket", **fields)
        return {item.job.id for item in Session.open(load_recipe(recipe)).plan.items}

    plain, with_it = ids("plain"), ids("with", {"file": "snow.safetensors"})
    assert plain.isdisjoint(with_it)
    assert with_it == ids("spelt", {"file": str(tmp_path / "snow.safetensors"), "weight": 1})
    assert with_it.isdisjoint(ids("half", {"file": "snow.safetensors", "weight": 0.5}))
    write_lora(tmp_path / "snow.safetensors", weight=2.0)
    assert with_it.isdisjoint(ids("after", {"file": "snow.safetensors"}))


def test_the_recipe_of_a_run_folder_finds_them_again(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path / "r.yaml", make_dataset(tmp_path / "d"), tmp_path / "out", loras=[{"file": "loras/snow.safetensors"}]
    )
    assert "file: ../loras/snow.safetensors" in load_recipe(recipe).to_yaml(tmp_path / "out")


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ({"file": "a.safetensors", "hub": "a/b"}, "either file or hub"),
        ({"weight": 1}, "either file or hub"),
        ({"hub": "snow"}, "write OWNER/NAME"),
        ({"file": "a.safetensors", "wieght": 1}, "Did you mean 'weight'"),
        ({"file": "a.safetensors", "weight": 9}, "must be 4.0 or less"),
    ],
)
def test_what_a_recipe_cannot_say(lora: Any, words: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", tmp_path / "d.yaml", tmp_path / "out", loras=[lora])
    with pytest.raises(UsageError, match=words):
        load_recipe(recipe)
