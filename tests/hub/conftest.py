"""The stand-in, served, and this process's huggingface_hub asking it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffgen.models.aliases import aliases
from tests.hub.layouts import LAYOUTS, write_layout, write_lora_layout
from tests.hub.standin import StandIn


@pytest.fixture
def hub_server() -> Iterator[StandIn]:
    with StandIn().serving() as hub:
        yield hub


@pytest.fixture
def online(hub_server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in; huggingface_hub, which read the environment when it was imported, asks it in the place of the hub."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub_server.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub_server.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return hub_server


@pytest.fixture(scope="session")
def publish(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[StandIn, str], str]:
    """Put an alias's repositories on a hub; gives the commit of the model. Each is written once a session."""
    written: dict[str, list[tuple[str, Path]]] = {}

    def put(hub: StandIn, alias: str) -> str:
        entry, layout = aliases()[alias], LAYOUTS[alias]
        if alias not in written:
            tiny: Any = request.getfixturevalue(layout.tiny)
            folder = tmp_path_factory.mktemp("repository")
            written[alias] = [(entry["hub"], write_layout(tiny, layout, folder / "model"))]
            for lora in entry.get("loras", ()):
                written[alias].append((lora["hub"], write_lora_layout(alias, tiny, folder / "lora")))
        commits = [hub.publish(hub_id, folder) for hub_id, folder in written[alias]]
        return commits[0]

    return put
