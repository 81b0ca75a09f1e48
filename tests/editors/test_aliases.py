"""Every short name: its recipe plans without the model, and its class is one that the tests of editors really run."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import diffusers
import pytest

from diffgen.editors.schedulers import FLOW_SCHEDULERS, SCHEDULERS, check_scheduler
from diffgen.errors import UsageError
from diffgen.models import aliases, resolve_model
from diffgen.recipe import load_recipe
from diffgen.run import prepare
from tests.fakes import make_dataset, write_recipe

# The folders in which tests write tiny models, and so the classes that they run: see test_shared and test_instruct.
TINY = (
    "sd", "sdxl", "lcm", "sd3", "flux", "zimage", "ip2p", "xl_ip2p", "kontext", "klein", "qwen_edit", "qwen_plus",
)  # fmt: skip
HUB = [name for name, entry in aliases().items() if "hub" in entry]


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
    return prepare(load_recipe(recipe)).plan.items[0].job.settings


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
        entry = aliases()[name]
        classes = importlib.import_module(f"diffgen.editors.{entry['editor']}").CLASSES
        assert hasattr(diffusers, entry["pipeline"])
        assert hasattr(diffusers, classes[entry["pipeline"]])
        assert classes[entry["pipeline"]] in {classes[tiny] for tiny in run if tiny in classes}


@pytest.mark.parametrize("name", HUB)
def test_a_scheduler_of_the_other_kind_is_one_error_before_any_work(name: str, tmp_path: Path) -> None:
    flow = aliases()[name]["pipeline"].startswith(("StableDiffusion3", "Flux", "ZImage", "QwenImage"))
    wrong, right = ("ddim", "flow_euler") if flow else ("flow_euler", "ddim")
    with pytest.raises(UsageError, match=f"'{wrong}' does not suit a {aliases()[name]['pipeline']}") as caught:
        planned(name, tmp_path, scheduler=wrong)
    assert right in (caught.value.hint or "")
    assert planned(name, tmp_path, scheduler=right).scheduler == right


@pytest.mark.parametrize("model", TINY)
def test_the_kind_is_what_the_model_s_own_scheduler_is(model: str, request: Any, tmp_path: Path) -> None:
    from diffgen.cache import FileCache

    folder = request.getfixturevalue(model)
    own = json.loads((folder / "scheduler/scheduler_config.json").read_text())["_class_name"]
    with FileCache(tmp_path / "cache") as cache:
        found = resolve_model(str(folder), None, folder, cache)
    check_scheduler(own, found.pipeline)
    for other in SCHEDULERS if own in FLOW_SCHEDULERS.values() else FLOW_SCHEDULERS:
        with pytest.raises(UsageError):
            check_scheduler(other, found.pipeline)
