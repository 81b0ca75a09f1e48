"""The first night of each family, on the command line: pulled, looked at, planned and run where there is no network any more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.models.aliases import aliases
from tests.editing.tiny_nets import write_estimator, write_net, write_open_detector
from tests.fakes import make_dataset, put, tree
from tests.hub.layouts import ANY
from tests.hub.standin import TOKEN, StandIn

pytestmark = [pytest.mark.editors, pytest.mark.slow]

Publish = Callable[[StandIn, str], str]
DEPTH = {"kind": "depth", "model": "someone/net", "estimator": "someone/depth"}
NIGHTS: dict[str, tuple[str, dict[str, Any]]] = {
    "img2img": ("sd15", {}),
    "instruct": ("instruct-pix2pix", {}),
    "controlnet": ("sd15", {"controls": [DEPTH]}),
    "inpaint": ("sd15-inpaint", {"conditions": [{"night": {"task": "background", "steps": 2}}]}),
    "text2img": ("sd-turbo", {"text2img": {"classes": ["car"], "images": 2}, "detector": "someone/owl"}),
}


class Machine:
    """A machine with a cache of its own and the command line, which asks the stand-in while `online`."""

    def __init__(self, root: Path, hub: StandIn) -> None:
        self.root, self.hub = root, hub
        self.online = True

    def __call__(self, *arguments: object, code: int = 0, token: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))},
            "HF_HUB_CACHE": str(self.root / "cache"),
            "HF_ENDPOINT": self.hub.address,
            "HF_TOKEN_PATH": str(self.root / "token"),
            **({} if self.online else {"HF_HUB_OFFLINE": "1"}),
            **({"HF_TOKEN": token} if token else {}),
        }
        asked = len(self.hub.asked)
        command = [sys.executable, "-m", "diffgen", *map(str, arguments)]
        done = subprocess.run(
            command, env=environment, cwd=self.root, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == code, f"{' '.join(command[2:])}\n{done.stderr}"
        assert self.online or len(self.hub.asked) == asked
        return done

    def json(self, *arguments: object, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code).stdout)


@pytest.fixture
def machine(tmp_path: Path, hub_server: StandIn) -> Machine:
    return Machine(tmp_path, hub_server)


def recipe(root: Path, family: str) -> Path:
    alias, fields = NIGHTS[family]
    given = {
        "dataset": str(make_dataset(root / "data", counts=(2, 1))), "output": "out", "model": alias, "device": "cpu",
        "conditions": [{"night": {"steps": 2}}], "resolution": {"long_side": 64}, "checks": ANY, **fields,
    }  # fmt: skip
    if family == "text2img":
        given |= {"text2img": {**given["text2img"], "width": 64, "height": 64}, "checks": {**ANY, "confidence": 0.05}}
        del given["dataset"], given["resolution"]
    return put(root / "recipe.yaml", yaml.safe_dump(given))


def publish_networks(hub: StandIn, family: str, root: Path) -> None:
    if family == "controlnet":
        hub.publish("someone/net", write_net(root / "net", "sd", 1))
        hub.publish("someone/depth", write_estimator(root / "depth", "dpt"))
    if family == "text2img":
        hub.publish("someone/owl", write_open_detector(root / "owl", "owlv2"))


@pytest.mark.parametrize("family", NIGHTS)
def test_the_first_night(family: str, machine: Machine, publish: Publish, tmp_path: Path) -> None:
    alias = NIGHTS[family][0]
    hub_id, hub = aliases()[alias]["hub"], machine.hub
    first = publish(hub, alias)
    publish_networks(hub, family, tmp_path)
    path = recipe(tmp_path, family)

    # Before anything is here: a plan, and an error that says how to get it.
    machine.online = False
    assert machine.json("plan", path)["model"]["name"] == alias
    assert f"diffgen models pull {alias}" in machine("run", path, code=1).stderr
    assert not (tmp_path / "out/records-0.jsonl").exists()

    # A pull that breaks off, and is continued.
    machine.online = True
    hub.broken = {"unet/diffusion_pytorch_model.fp16.safetensors": [1000] * 7}
    assert f"diffgen models pull {alias}" in machine("models", "pull", alias, code=1).stderr
    assert not next(row for row in machine.json("models") if row["name"] == alias)["on_disk"]
    hub.broken = {}
    assert machine.json("models", "pull", alias)["revision"] == first
    assert machine.json("models", "pull", path)["revisions"][hub_id] == first

    # Offline from here on: everything knows it, and a run needs nothing more.
    machine.online = False
    assert next(row for row in machine.json("models") if row["name"] == alias)["on_disk"]
    assert machine.json("doctor", path)["problems"] == []
    planned = machine.json("plan", path)["to_make"]
    assert machine.json("run", path)["made_now"] == planned > 0
    assert machine.json("run", path)["made_now"] == 0

    # A second folder makes the same pictures.
    assert machine.json("run", path, "--output", tmp_path / "second")["made_now"] == planned
    assert tree(tmp_path / "second/images") == tree(tmp_path / "out/images")


def test_a_moved_main_costs_nobody_a_night(machine: Machine, publish: Publish, tmp_path: Path) -> None:
    hub, hub_id = machine.hub, aliases()["sd15"]["hub"]
    first = publish(hub, "sd15")
    path = recipe(tmp_path, "img2img")
    made = machine.json("run", path)["made_now"]  # fetches by itself
    newer = Path(shutil.copytree(hub.repos[hub_id].commits[first], tmp_path / "newer"))
    put(newer / "README.md", "a newer one")
    config = json.loads((newer / "scheduler/scheduler_config.json").read_text())
    put(newer / "scheduler/scheduler_config.json", json.dumps({**config, "steps_offset": 0}))
    second = hub.publish(hub_id, newer)
    assert machine.json("run", path)["made_now"] == 0
    asked = len(hub.asked)
    assert machine.json("run", path, "--output", tmp_path / "other")["made_now"] == made
    assert len(hub.asked) == asked  # what is here is taken
    assert machine.json("models", "pull", "sd15")["revision"] == second
    assert machine.json("run", path)["made_now"] == 0  # the folder stays with its commit
    assert machine.json("run", path, "--output", tmp_path / "newest")["made_now"] == made
    commits = [
        next(iter(json.loads((tmp_path / name / "run.json").read_text())["revisions"].values()))
        for name in ("out", "other", "newest")
    ]
    assert commits == [first, first, second]


def test_a_missing_shard_is_said_offline_and_fetched_online(machine: Machine, publish: Publish, tmp_path: Path) -> None:
    publish(machine.hub, "flux2-klein")
    machine("models", "pull", "flux2-klein")
    shard = next((tmp_path / "cache").glob("models--*klein*/snapshots/*/text_encoder/*-00002-of-00002.safetensors"))
    shard.resolve().unlink()
    given = yaml.safe_load(recipe(tmp_path, "instruct").read_text())
    path = put(tmp_path / "klein.yaml", yaml.safe_dump({**given, "model": "flux2-klein"}))
    machine.online = False
    problems = machine.json("doctor", path, code=1)["problems"]
    assert any("diffgen models pull flux2-klein" in line for line in problems)
    assert "diffgen models pull flux2-klein" in machine("run", path, code=1).stderr
    machine.online, machine.hub.sent = True, []
    assert machine.json("run", path)["made_now"] == 2
    assert machine.hub.sent == ["model-00002-of-00002.safetensors"]


def test_a_gated_model_says_what_to_accept_and_how_to_log_in(
    machine: Machine, publish: Publish, tmp_path: Path
) -> None:
    publish(machine.hub, "flux1-kontext-dev")
    hub_id = aliases()["flux1-kontext-dev"]["hub"]
    machine.hub.repos[hub_id].gated = True
    error = machine("models", "pull", "flux1-kontext-dev", code=1).stderr
    assert f"accept it on https://huggingface.co/{hub_id}, then `hf auth login`, then: diffgen models pull" in error
    assert "Traceback" not in error
    machine("models", "pull", "flux1-kontext-dev", token=TOKEN)
