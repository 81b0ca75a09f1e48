"""The copy of the recipe in the run folder means the same as the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.models.aliases import aliases
from diffgen.recipe.load import load_recipe
from diffgen.recipe.schema import Recipe
from tests.fakes import put, recipe_fields
from tests.recipe.loading import FORMS, LEAST


def copied(path: Path, folder: Path, *sets: str) -> tuple[Recipe, dict[str, Any], Path]:
    """(the recipe read back from its copy, the copy's text as data, the dataset that it means)."""
    text = load_recipe(path, sets).to_yaml(folder)
    put(folder / "recipe.yaml", text)
    again = load_recipe(folder)
    return again.recipe, yaml.safe_load(text), (again.base / again.recipe.dataset).resolve()


def test_the_copy_means_the_same_dataset_and_output(tmp_path: Path) -> None:
    path = put(tmp_path / "a/b/r.yaml", LEAST.replace("d.yaml", "../data/d.yaml"))
    recipe, data, dataset = copied(path, tmp_path / "runs/x")
    assert dataset == (tmp_path / "a/data/d.yaml").resolve()
    assert data["output"] == "."
    assert load_recipe(tmp_path / "runs/x").output == (tmp_path / "runs/x").resolve()
    before = load_recipe(path).recipe
    assert recipe.model_dump(exclude={"dataset", "output"}) == before.model_dump(exclude={"dataset", "output"})


def test_the_copy_keeps_environment_variables_unexpanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TOKEN", "s3cret")
    monkeypatch.setenv("SEED", "5")
    text = (
        "dataset: ${DATA}/d.yaml\noutput: out\nseed: ${SEED}\nmodel: {hub: 'owner/${TOKEN}', revision: main}\n"
        "editor: instruct\nconditions: [night]\n"
    )
    recipe, data, dataset = copied(put(tmp_path / "r.yaml", text), tmp_path / "out")
    assert data["dataset"] == "${DATA}/d.yaml"
    assert data["seed"] == "${SEED}"
    assert data["model"]["hub"] == "owner/${TOKEN}"
    assert "s3cret" not in (tmp_path / "out/recipe.yaml").read_text()
    assert recipe.seed == 5
    assert dataset == (tmp_path / "data/d.yaml").resolve()


def test_a_relative_path_through_the_environment_is_rebased_and_stays_unexpanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHICH", "street")
    _, data, dataset = copied(
        put(tmp_path / "r.yaml", LEAST.replace("d.yaml", "sets/${WHICH}/d.yaml")), tmp_path / "runs/out"
    )
    assert "${WHICH}" in data["dataset"]
    assert dataset == (tmp_path / "sets/street/d.yaml").resolve()


def test_the_copy_holds_what_was_set(tmp_path: Path) -> None:
    recipe, _, _ = copied(put(tmp_path / "r.yaml", LEAST), tmp_path / "out", "conditions.snow.strength=0.2", "seed=9")
    assert (recipe.conditions[0].strength, recipe.seed) == (0.2, 9)


def test_the_copy_means_the_same_model(tmp_path: Path) -> None:
    (tmp_path / "models/mine").mkdir(parents=True)
    for model, key in (("models/mine", None), ({"folder": "models/mine"}, "folder"), ("sd-turbo", None)):
        text = LEAST + yaml.safe_dump({"model": model})
        recipe, _, _ = copied(put(tmp_path / "r.yaml", text), tmp_path / "runs/out")
        place = recipe.model[key] if key else recipe.model  # type: ignore[index]
        if model == "sd-turbo":
            assert place == "sd-turbo"
        else:
            assert (tmp_path / "runs/out" / place).resolve() == (tmp_path / "models/mine").resolve()


def test_a_copy_of_the_copy_is_the_copy(tmp_path: Path) -> None:
    path = put(tmp_path / "r.yaml", FORMS)
    first = load_recipe(path).to_yaml(tmp_path / "out")
    put(tmp_path / "out/recipe.yaml", first)
    assert load_recipe(tmp_path / "out").to_yaml(tmp_path / "out") == first


def test_a_folder_that_is_called_like_a_model_does_not_become_it(tmp_path: Path) -> None:
    (tmp_path / "pocket").mkdir()
    fields = recipe_fields(tmp_path / "d/data.yaml", tmp_path / "out", model="pocket", editor=None)
    loaded = load_recipe(put(tmp_path / "r.yaml", yaml.safe_dump(fields)))
    assert yaml.safe_load(loaded.to_yaml(tmp_path / "out", aliases()))["model"] == "pocket"
    home = load_recipe(put(tmp_path / "h.yaml", yaml.safe_dump({**fields, "model": {"folder": "~/pk"}})))
    assert yaml.safe_load(home.to_yaml(tmp_path / "out"))["model"] == {"folder": "~/pk"}


def test_every_path_is_seen_from_the_copy_and_no_hub_id_is(tmp_path: Path) -> None:
    for folder in ("nets/canny", "owner/depth"):
        (tmp_path / "job" / folder).mkdir(parents=True)
    split = {"images": "im", "annotations": "/abs/a.json"}
    controls = [
        {"kind": "canny", "model": "nets/canny"},
        {"kind": "depth", "model": "owner/union", "estimator": "owner/depth"},
        {"kind": "own", "model": "~/net", "folder": "maps"},
    ]
    fields = {
        "dataset": {"format": "coco", "train": split},
        "output": "out",
        "model": {"file": "m.safetensors", "config": "nets/canny"},
        "loras": [{"file": "l.safetensors"}, {"hub": "owner/lora"}],
        "detector": "d.pt",
        "clip": "owner/clip",
        "controls": controls,
        "conditions": ["snow", {"night": {"controls": controls[2:]}}],
    }
    loaded = load_recipe(put(tmp_path / "job/r.yaml", yaml.safe_dump(fields)))
    data = yaml.safe_load(loaded.to_yaml(tmp_path / "out"))
    assert (data["dataset"]["train"]["images"], data["dataset"]["train"]["annotations"]) == ("../job/im", "/abs/a.json")
    assert data["model"] == {"file": "../job/m.safetensors", "config": "../job/nets/canny"}
    assert [(lora["file"], lora["hub"]) for lora in data["loras"]] == [
        ("../job/l.safetensors", None),
        (None, "owner/lora"),
    ]
    assert (data["detector"], data["clip"]) == ("../job/d.pt", "owner/clip")
    assert [(c["model"], c["estimator"], c["folder"]) for c in data["controls"]] == [
        ("../job/nets/canny", None, None),
        ("owner/union", "../job/owner/depth", None),
        ("~/net", None, "../job/maps"),
    ]
    assert data["conditions"][1]["controls"] == data["controls"][2:]
