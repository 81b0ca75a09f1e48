"""The stand-in, served, and this process's huggingface_hub asking it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub.layouts import LAYOUTS, write_layout
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
def repository(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The repository of an alias, written once a session."""
    written: dict[str, Path] = {}

    def get(alias: str) -> Path:
        if alias not in written:
            tiny: Any = request.getfixturevalue(LAYOUTS[alias].tiny)
            written[alias] = write_layout(tiny, LAYOUTS[alias], tmp_path_factory.mktemp("repository") / "files")
        return written[alias]

    return get
