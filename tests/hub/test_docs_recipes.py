"""Every whole recipe of docs/models.md from end to end: pulled from a hub, then run where there is no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest

from diffgen.commands.pull import pull
from diffgen.models.aliases import aliases
from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from tests.editing.tiny_models import write_lora
from tests.editing.tiny_nets import write_estimator, write_net
from tests.hub.docs_recipes import recipes, write_world
from tests.hub.layouts import ANY
from tests.hub.standin import StandIn

pytestmark = [pytest.mark.editors, pytest.mark.slow]

Publish = Callable[[StandIn, str], str]


def publish_beside(hub: StandIn, recipe: dict[str, Any], root: Path, denoiser: Path) -> None:
    """The networks and LoRAs of a recipe, made for tiny models."""
    for control in recipe.get("controls", ()):
        name = control["model"].replace("/", "-")
        hub.publish(control["model"], write_net(root / name, "sd", 1))
        if "estimator" in control:
            hub.publish(control["estimator"], write_estimator(root / "estimator", "dpt"))
    for lora in recipe.get("loras", ()):
        cls = diffusers.UNet2DConditionModel if denoiser.name == "unet" else diffusers.QwenImageTransformer2DModel
        folder = root / "lora"
        folder.mkdir(exist_ok=True)
        file = folder / lora.get("weight_name", "pytorch_lora_weights.safetensors")
        write_lora(file, denoiser.name, cls.from_pretrained(denoiser))
        if "hub" in lora:
            hub.publish(lora["hub"], folder)
        else:
            (root / "recipes" / lora["file"]).write_bytes(file.read_bytes())


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_of_the_docs_runs_offline_once_it_is_pulled(
    name: str, online: StandIn, publish: Publish, request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipes()[name]
    size = {**wanted.get("resolution", {}), "long_side": 64}
    path = write_world(name, tmp_path, resolution=size, checks=ANY, device="cpu")
    model = wanted["model"]
    if model == "pocket":
        pytest.skip("nothing to pull: tests/pocket and tests/e2e run it")
    alias = model if isinstance(model, str) else "qwen-image-edit-plus"
    assert aliases()[alias]["hub"] in (aliases()[model]["hub"] if isinstance(model, str) else model["hub"])
    publish(online, alias)
    part = Path(request.getfixturevalue("sd" if alias == "sd15" else "qwen_plus"))
    publish_beside(online, wanted, tmp_path, part / ("unet" if alias == "sd15" else "transformer"))

    pull(str(path))
    asked = len(online.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = load_recipe(path, ["device=cpu"])
    summary = run(loaded, limit=1)
    assert summary.made_now == len(wanted["conditions"])
    assert len(online.asked) == asked
