"""`controls` of a recipe: what they mean and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.commands.plan_summary import plan_facts
from diffgen.dataset.file_cache import FileCache
from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from diffgen.recipe.schema import recipe_schema
from diffgen.run.session import Session
from tests.fakes import make_dataset, put
from tests.fakes_controls import EDGES, OWN, guided, guided_recipe, maps_for, network, recipe


def test_night_and_snow_leave_edges_out_where_another_map_is_there() -> None:
    depth = {"kind": "depth", "model": "net", "estimator": "depth"}
    soft = {"kind": "softedge", "model": "net"}
    own = [{"night": {"controls": [EDGES]}}, {"snow": {"edges": True}}, "heavy-snow", "fog"]
    both = recipe(EDGES, depth, soft, conditions=own)
    kinds = [[control.kind for control in both.controls_for(condition)] for condition in both.conditions]
    assert kinds == [["canny"], ["canny", "depth", "softedge"], ["depth"], ["canny", "depth", "softedge"]]
    (night,) = recipe(EDGES, soft, conditions=["night"]).conditions
    assert len(recipe(EDGES, soft).controls_for(night)) == 2


def test_controls_choose_the_editor_by_themselves(tmp_path: Path, cache: FileCache) -> None:
    model = guided(recipe(EDGES, editor=None, model="sd15"), tmp_path, cache)
    assert model.editor == "controlnet"
    assert [(n.name, n.role) for n in model.networks] == [("net", "controlnet")]
    assert model.networks[0].identity.startswith("sha256:")
    assert guided(recipe(EDGES, editor="controlnet", model="sd15"), tmp_path, cache).editor == "controlnet"
    assert guided(recipe(editor=None, model="sd15"), tmp_path, cache).editor == "img2img"


REFUSED = [
    ({"kind": "cany", "model": "n"}, r"controls\[0\].kind"),
    ({"kind": "canny"}, r"controls\[0\].model: this key is missing"),
    ({"kind": "canny", "model": "n", "wieght": 1}, "wieght: unknown key. Did you mean 'weight'"),
    ({"kind": "canny", "model": "n", "weight": 2.5}, r"controls\[0\].weight"),
    ({"kind": "depth", "model": "n"}, "'depth' needs an estimator"),
    ({"kind": "segmentation", "model": "n"}, "'segmentation' needs an estimator"),
    ({"kind": "canny", "model": "n", "estimator": "e"}, "'canny' takes no estimator"),
    ({"kind": "own", "model": "n"}, "'own' needs `folder`"),
    ({"kind": "depth", "model": "n", "estimator": "e", "folder": "f"}, "not both"),
]


@pytest.mark.parametrize(("control", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_wrong_control_is_an_error_with_its_line(tmp_path: Path, control: dict[str, Any], words: str) -> None:
    text = "dataset: d.yaml\noutput: out\nconditions: [fog]\ncontrols:\n  - " + yaml.safe_dump(
        control, default_flow_style=True
    )
    with pytest.raises(UsageError, match=words) as caught:
        load_recipe(put(tmp_path / "r.yaml", text))
    assert "r.yaml:5" in caught.value.message
    assert caught.value.hint


def test_the_editor_without_controls_is_an_error(tmp_path: Path, cache: FileCache) -> None:
    with pytest.raises(UsageError, match="editor 'controlnet' needs controls"):
        guided(recipe(editor="controlnet", model="sd15"), tmp_path, cache)


@pytest.mark.parametrize("name", ["pocket", "instruct-pix2pix"])
def test_controls_of_a_model_that_none_guides_are_an_error(name: str, tmp_path: Path, cache: FileCache) -> None:
    with pytest.raises(UsageError, match=f"model '{name}' is edited with 'instruct'") as caught:
        guided(recipe(EDGES, editor=None, model=name), tmp_path, cache)
    assert "sd15" in str(caught.value.hint)


def test_the_copy_in_the_run_folder_means_the_same(tmp_path: Path) -> None:
    maps_for(tmp_path)
    network(tmp_path / "depth")
    depth = {"kind": "depth", "model": "net", "estimator": "depth"}
    path = guided_recipe(tmp_path, OWN, conditions=["fog", {"rain": {"controls": [depth]}}, {"dust": {"controls": []}}])
    written = Session.open(load_recipe(path)).plan
    # the estimator's files are empty: only plan with it
    loaded = load_recipe(path)
    (tmp_path / "out").mkdir()
    put(tmp_path / "out/recipe.yaml", loaded.to_yaml(tmp_path / "out"))
    again = Session.open(load_recipe(tmp_path / "out")).plan
    assert [i.job.id for i in again.items] == [i.job.id for i in written.items]


ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/controlnet.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_recipes_of_the_docs_plan(text: str, tmp_path: Path) -> None:
    make_dataset(tmp_path / "datasets/street")
    maps_for(tmp_path, "maps/lidar-depth")
    facts = plan_facts(load_recipe(put(tmp_path / "configs/r.yaml", text)))
    assert facts["images"] > 0
    assert facts["controls"] == []


def test_the_schema_describes_controls() -> None:
    schema = recipe_schema()
    assert set(schema["$defs"]["Control"]["properties"]) == {"kind", "model", "weight", "estimator", "folder"}
