"""Every short name: its recipe plans without the model, and its class is one that the tests of editors really run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from diffgen.commands.plan_summary import plan_facts
from diffgen.editing.pipelines.schedulers import FLOW_SCHEDULERS, SCHEDULERS, check_scheduler
from diffgen.errors import UsageError
from diffgen.models.aliases import aliases
from diffgen.models.find import resolve_model
from diffgen.models.pipelines import SPECS
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from diffgen.run.session import Session
from scripts.docs.models_page import recipe_for
from tests.fakes import make_dataset, write_recipe

pytestmark = pytest.mark.editors

# The folders in which tests write tiny models, and so the classes that they run: see test_shared and test_instruct.
TINY = (
    "sd", "sdxl", "lcm", "sd3", "flux", "zimage", "ip2p", "xl_ip2p", "kontext", "klein", "qwen_edit", "qwen_plus", "longcat",
)  # fmt: skip
HUB = [name for name, entry in aliases().items() if "hub" in entry]


@pytest.mark.parametrize("name", aliases())
def test_the_recipe_that_the_docs_give_for_it_plans(name: str, tmp_path: Path) -> None:
    make_dataset(tmp_path / "datasets/street")
    (tmp_path / "recipes").mkdir()
    recipe = tmp_path / "recipes/r.yaml"
    recipe.write_text(recipe_for(name))
    facts = plan_facts(load_recipe(recipe))
    assert facts["model"]["name"] == name
    assert facts["images"] == facts["to_make"] > 0
    assert facts["memory"] or name == "pocket"


def planned(name: str, tmp_path: Path, **condition: Any) -> Any:
    """The settings of the one condition of a recipe with this model."""
    recipe = write_recipe(
        tmp_path / "r.yaml",
        make_dataset(tmp_path / "data"),
        tmp_path / "out",
        model=name,
        editor=None,
        conditions=[{"snow": {**condition, **({"task": "background"} if "inpaint" in name else {})}}],
    )
    return Session.open(load_recipe(recipe)).plan.items[0].job.settings


@pytest.mark.parametrize("name", HUB)
def test_its_recipe_plans_with_its_own_defaults(name: str, tmp_path: Path) -> None:
    entry, settings = aliases()[name], planned(name, tmp_path)
    assert (settings.editor, settings.steps, settings.guidance) == (entry["editor"], entry["steps"], entry["guidance"])
    assert settings.long_side == entry["native"]
    assert settings.scheduler == entry.get("scheduler")
    assert entry["steps"] <= 6 or not any(word in name for word in ("turbo", "schnell", "lcm", "klein"))


def test_every_class_that_edits_is_run_by_the_tests(request: Any) -> None:
    run = {json.loads((request.getfixturevalue(t) / "model_index.json").read_text())["_class_name"] for t in TINY}
    for name in HUB:
        family, named = aliases()[name]["editor"], aliases()[name]["pipeline"]
        assert SPECS[named].loads[family] in {SPECS[tiny].loads.get(family) for tiny in run}


@pytest.mark.parametrize("name", HUB)
def test_a_scheduler_of_the_other_kind_is_one_error_before_any_work(name: str, tmp_path: Path) -> None:
    flow = SPECS[aliases()[name]["pipeline"]].flow
    wrong, right = ("ddim", "flow_euler") if flow else ("flow_euler", "ddim")
    with pytest.raises(UsageError, match=f"'{wrong}' does not suit a {aliases()[name]['pipeline']}") as caught:
        planned(name, tmp_path, scheduler=wrong)
    assert right in (caught.value.hint or "")
    assert planned(name, tmp_path, scheduler=right).scheduler == right


@pytest.mark.parametrize("model", TINY)
def test_the_kind_is_what_the_model_s_own_scheduler_is(model: str, request: Any, tmp_path: Path) -> None:
    from diffgen.dataset.file_cache import FileCache

    folder = request.getfixturevalue(model)
    own = json.loads((folder / "scheduler/scheduler_config.json").read_text())["_class_name"]
    with FileCache(tmp_path / "cache") as cache:
        found = resolve_model(str(folder), None, folder, cache)
    check_scheduler(own, found.pipeline)
    for other in SCHEDULERS if own in FLOW_SCHEDULERS.values() else FLOW_SCHEDULERS:
        with pytest.raises(UsageError):
            check_scheduler(other, found.pipeline)


# --- revisions


@pytest.fixture
def hub_id(sd: Path, tmp_path: Path) -> str:
    """A model in the Hub's cache: main at one commit, the tag v1 at another, and a later one."""
    repo = tmp_path / "hub/models--some--model"
    (repo / "refs").mkdir(parents=True)
    for name, commit in (("main", "a" * 40), ("v1", "b" * 40), ("later", "c" * 40)):
        (repo / "refs" / name).write_text(commit)
        shutil.copytree(sd, repo / "snapshots" / commit)
    return "some/model"


@pytest.mark.parametrize(
    ("where", "revision", "commit"),
    [
        ("recipe", None, "a" * 40),
        ("recipe", "v1", "b" * 40),
        ("recipe", "b" * 40, "b" * 40),
        ("models.yaml", None, "a" * 40),
        ("models.yaml", "v1", "b" * 40),
    ],
)
def test_a_revision_is_resolved_to_its_commit_and_recorded(
    where: str, revision: str | None, commit: str, hub_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "models.yaml":
        entry = {**aliases()["sd-turbo"], "hub": hub_id, **({"revision": revision} if revision else {})}
        monkeypatch.setitem(aliases(), "ours", entry)
    named = {"hub": hub_id} if where == "recipe" else {"alias": "ours"}
    model = {**named, **({"revision": revision} if where == "recipe" and revision else {})}
    data = make_dataset(tmp_path / "data", counts=(1, 1))
    recipe = write_recipe(
        tmp_path / "r.yaml", data, tmp_path / "out", model=model, editor=None, device="cpu",
        conditions=[{"fog": {"steps": 1}}],
    )  # fmt: skip
    run(load_recipe(recipe))
    state = json.loads((tmp_path / "out/run.json").read_text())
    assert state["revisions"] == {hub_id: commit}
    prepared = Session.open(load_recipe(recipe))
    assert prepared.plan.items[0].job.settings.model == f"{hub_id}@{commit}"
    (tmp_path / "hub/models--some--model/refs/main").write_text("c" * 40)
    assert Session.open(load_recipe(recipe)).model.revision == commit, "main moved; the run folder did not"
