"""Every short name: its recipe plans without the model, and its class is one that the tests of editors really run."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from diffgen.commands.plan_summary import plan_facts
from diffgen.dataset.file_cache import FileCache
from diffgen.editing.pipelines.schedulers import FLOW_SCHEDULERS, OPTIONS, SCHEDULERS, Schedulers, chosen_scheduler
from diffgen.errors import UsageError
from diffgen.models.aliases import aliases
from diffgen.models.find import resolve_model
from diffgen.models.pipelines import SPECS
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from diffgen.run.session import Session
from tests.fakes import make_dataset, write_recipe

pytestmark = pytest.mark.editors

# The folders in which tests write tiny models, and so the classes that they run: see test_shared and test_instruct.
TINY = (
    "sd", "sdxl", "lcm", "sd3", "flux", "zimage", "ip2p", "xl_ip2p", "kontext", "klein", "qwen_edit", "qwen_plus", "longcat",
)  # fmt: skip
HUB = [name for name, entry in aliases().items() if "hub" in entry]


@pytest.mark.parametrize("name", aliases())
def test_the_shortest_recipe_with_it_plans(name: str, tmp_path: Path) -> None:
    task = {"task": "background"} if aliases()[name]["editor"] == "inpaint" else {}
    recipe = write_recipe(
        tmp_path / "r.yaml", make_dataset(tmp_path / "data"), tmp_path / "out", model=name, editor=None,
        conditions=[{"night": task}],
    )  # fmt: skip
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
        resolution={},
        conditions=[{"snow": {**condition, **({"task": "background"} if "inpaint" in name else {})}}],
    )
    return Session.open(load_recipe(recipe)).plan.items[0].job.settings


@pytest.mark.parametrize("name", HUB)
def test_its_recipe_plans_with_its_own_defaults(name: str, tmp_path: Path) -> None:
    entry, settings = aliases()[name], planned(name, tmp_path)
    assert (settings.editor, settings.steps, settings.guidance) == (entry["editor"], entry["steps"], entry["guidance"])
    assert (settings.native, settings.long_side) == (entry["native"], None), "the area of native × native"
    wanted = entry.get("scheduler")
    assert settings.scheduler == (wanted["name"] if isinstance(wanted, dict) else wanted)
    if isinstance(wanted, dict):
        assert dict(settings.scheduler_options or ()) == {key: value for key, value in wanted.items() if key != "name"}
    assert entry["steps"] <= 8 or not any(word in name for word in ("turbo", "schnell", "lcm", "klein", "lightning"))


def test_every_class_that_edits_is_run_by_the_tests(request: Any) -> None:
    run = {json.loads((request.getfixturevalue(t) / "model_index.json").read_text())["_class_name"] for t in TINY}
    for name in HUB:
        family, named = aliases()[name]["editor"], aliases()[name]["pipeline"]
        assert SPECS[named].loads[family] in {SPECS[tiny].loads.get(family) for tiny in run}


@pytest.mark.parametrize("name", HUB)
def test_a_scheduler_of_the_other_kind_is_one_error_before_any_work(name: str, tmp_path: Path) -> None:
    flow = SPECS[aliases()[name]["pipeline"]].flow
    wrong, right = ("euler", "flow_euler") if flow else ("flow_euler", "euler")
    with pytest.raises(UsageError, match=f"'{wrong}' does not suit a {aliases()[name]['pipeline']}") as caught:
        planned(name, tmp_path, scheduler=wrong)
    assert right in (caught.value.hint or "")
    assert planned(name, tmp_path, scheduler=right).scheduler == right


@pytest.mark.parametrize("model", TINY)
def test_the_kind_is_what_the_model_s_own_scheduler_is(model: str, request: Any, tmp_path: Path) -> None:
    folder = request.getfixturevalue(model)
    own = json.loads((folder / "scheduler/scheduler_config.json").read_text())["_class_name"]
    with FileCache(tmp_path / "cache") as cache:
        found = resolve_model(str(folder), None, folder, cache)
    assert chosen_scheduler(own, found.pipeline) == (own, None)
    for other in SCHEDULERS if own in FLOW_SCHEDULERS.values() else FLOW_SCHEDULERS:
        with pytest.raises(UsageError):
            chosen_scheduler(other, found.pipeline)


@pytest.mark.parametrize("cls", OPTIONS)
def test_diffusers_has_the_settings_that_a_recipe_can_set(cls: str) -> None:
    import diffusers

    assert set(OPTIONS[cls]) <= set(inspect.signature(getattr(diffusers, cls).__init__).parameters)
    assert {*SCHEDULERS.values(), *FLOW_SCHEDULERS.values()} == set(OPTIONS)


def test_the_settings_of_a_scheduler_are_in_the_job_and_in_use(sdxl: Path, load: Any, tmp_path: Path) -> None:
    options = {"name": "euler", "timestep_spacing": "trailing", "steps_offset": 1}
    wanted = planned("sdxl", tmp_path, scheduler=options)
    assert wanted.scheduler_options == (("steps_offset", 1), ("timestep_spacing", "trailing"))
    assert wanted.digest != planned("sdxl", tmp_path, scheduler="euler").digest
    assert planned("sdxl", tmp_path, scheduler={"name": "euler"}) == planned("sdxl", tmp_path, scheduler="euler")
    schedulers = Schedulers(load(sdxl)._pipe.scheduler)
    made = schedulers.get(wanted)
    assert (type(made).__name__, made.config.timestep_spacing) == ("EulerDiscreteScheduler", "trailing")
    assert schedulers.get(wanted) is made
    made.set_timesteps(4)
    assert made.timesteps.tolist() == [999, 749, 499, 249]  # the levels that SDXL-Lightning was distilled at


def test_numbers_of_a_scheduler_s_settings_are_of_one_kind() -> None:
    fine = chosen_scheduler(
        {"shift": 3, "base_image_seq_len": 256, "shift_terminal": None}, "QwenImageEditPlusPipeline"
    )
    assert fine == ("flow_euler", (("base_image_seq_len", 256), ("shift", 3.0), ("shift_terminal", None)))
    assert chosen_scheduler({"shift": 3.0}, "FluxPipeline") == chosen_scheduler({"shift": 3}, "FluxPipeline")
    for wrong in ({"shift": float("nan")}, {"shift": 0}, {"base_image_seq_len": 4096, "max_image_seq_len": 4096}):
        with pytest.raises(UsageError, match="must be"):
            chosen_scheduler(wrong, "FluxPipeline")


def test_the_lightning_lora_of_qwen_has_its_schedule(qwen_plus: Path, load: Any, tmp_path: Path) -> None:
    """A shift of 3 whatever the size, down to nought: t = 3 s / (1 + 2 s) of even steps s."""
    made = Schedulers(load(qwen_plus)._pipe.scheduler).get(planned("qwen-image-edit-lightning", tmp_path))
    made.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=1.0986122886681098)
    assert made.sigmas.tolist() == pytest.approx([1.0, 0.9, 0.75, 0.5, 0.0])


@pytest.mark.parametrize(
    ("value", "words", "hint"),
    [
        ({"timestep_spacing": "trailing"}, "its settings need a `name`", "euler"),
        (
            {"name": "euler", "timestep_spacin": "x"},
            "has no setting 'timestep_spacin'",
            "did you mean 'timestep_spacing'",
        ),
        ({"name": "euler", "xyz": 1}, "has no setting 'xyz'", "its settings: timestep_spacing"),
        ({"name": "eulr"}, "'eulr' is not known", "euler"),
        (
            {"name": "euler", "timestep_spacing": "even"},
            "must be leading or trailing or linspace, got 'even'",
            "correct",
        ),
        ({"name": "euler", "use_karras_sigmas": 1}, "use_karras_sigmas must be true or false, got 1", "correct"),
        ({"name": "euler", "steps_offset": 100}, "steps_offset must be a whole number from 0 to 1, got 100", "correct"),
        ({"name": "dpm++2m", "solver_order": 0}, "solver_order must be a whole number from 1 to 3", "correct"),
        ({"name": "euler", "use_karras_sigmas": True, "use_beta_sigmas": True}, "exclude each other", "set one"),
    ],
)
def test_settings_that_a_scheduler_does_not_have(value: Any, words: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        planned("sd15", tmp_path, scheduler=value)
    assert "conditions: snow: scheduler" in caught.value.message
    assert hint in str(caught.value.hint)


def test_klein_before_distillation_has_more_steps_and_guidance(klein: Path, klein_base: Path, tmp_path: Path) -> None:
    with FileCache(tmp_path / "cache") as cache:
        found = [resolve_model(str(folder), None, tmp_path, cache) for folder in (klein, klein_base)]
    assert [(model.steps, model.guidance) for model in found] == [(4, 1.0), (28, 4.0)]


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
