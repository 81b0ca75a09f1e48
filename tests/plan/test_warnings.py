"""What the plan warns of before any work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffgen.commands.plan_summary import plan_facts, plan_text
from diffgen.recipe.load import load_recipe
from tests.fakes import FakeEditor, make, make_dataset, write_recipe
from tests.fakes_controls import EDGES, GuidedEditor, network


def test_edges_at_night_and_in_snow_are_warned_of(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    network(tmp_path / "net")
    network(tmp_path / "depth")
    depth = {"kind": "depth", "model": "net", "estimator": "depth"}
    conditions = ["night", "fog", "heavy-snow", {"snow": {"controls": [depth]}}, {"name": "mine", "prompt": "at night"}]
    path = write_recipe(
        tmp_path / "r.yaml", data, tmp_path / "out", editor="img2img", conditions=conditions, controls=[EDGES]
    )
    facts = plan_facts(load_recipe(path))
    assert [line.partition(":")[0] for line in facts["controls"]] == ["night", "heavy-snow", "mine"]
    assert "use depth and segmentation" in plan_text(facts)
    assert plan_facts(load_recipe(path, ["controls=[]"]))["controls"] == []
    plain = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", editor="img2img", controls=[EDGES])
    talk: list[str] = []
    make(plain, GuidedEditor(), notify=talk.append)
    assert sum("warning: night: canny maps" in line for line in talk) == 1


def test_words_that_the_model_was_never_taught_are_an_error(tmp_path: Path, cli: Callable[..., Any]) -> None:
    data = make_dataset(tmp_path / "data")
    recipe = tmp_path / "r.yaml"
    conditions = [
        "snow",
        {"name": "zoo", "prompt": "unicorns in {objects}"},
        {"name": "sunny", "prompt": "a clear day"},
    ]
    recipe.write_text(json.dumps({"dataset": str(data), "output": "o", "model": "pocket", "conditions": conditions}))
    for command in (["plan"], ["plan", "--json"], ["run", "--quiet"], ["run", "--json"], ["preview"]):
        said = cli(command[0], recipe, *command[1:], editor=FakeEditor())
        assert said.code == 2
        assert "zoo: the model was not trained on 'unicorns'; sunny: the model makes only " in said.err
        assert "allow_unknown_words" in said.err
        assert not (tmp_path / "o").exists()
    allowed = ["--set", "allow_unknown_words=true"]
    facts = json.loads(cli("plan", recipe, "--json", *allowed).out)
    assert facts["prompts"][0] == "zoo: the model was not trained on 'unicorns'"
    assert "prompt    zoo: the model was not trained on 'unicorns'" in cli("plan", recipe, *allowed).out
    assert "warning: zoo: the model was not trained on" in cli("run", recipe, *allowed, editor=FakeEditor()).err
    assert cli("status", tmp_path / "o").code == 0


def test_plan_and_run_warn_of_guidance_that_was_not_trained(tmp_path: Path, cli: Callable[..., Any]) -> None:
    data = make_dataset(tmp_path / "data")
    recipe = tmp_path / "r.yaml"
    conditions = ["snow", {"night": {"guidance": 3}}, {"fog": {"guidance": 1, "image_guidance": 1.5}}]
    recipe.write_text(json.dumps({"dataset": str(data), "output": "o", "model": "pocket", "conditions": conditions}))
    said = [
        "night: the model was trained for guidance 1 only, but this sets 3",
        "fog: the model was trained for image_guidance 1 only, but this sets 1.5",
    ]
    assert json.loads(cli("plan", recipe, "--json").out)["guidance"] == said
    assert f"guidance  {said[0]}\n" in cli("plan", recipe).out
    assert f"warning: {said[0]}\n" in cli("run", recipe, editor=FakeEditor()).err
