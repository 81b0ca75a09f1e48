"""Every alias pulled from a hub that has it as the real one does: all that is loaded, nothing else, and known offline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from diffgen.commands.pull import pull
from diffgen.dataset.file_cache import FileCache
from diffgen.editing.families import load_editor
from diffgen.models.aliases import aliases
from diffgen.models.find import resolve_model
from diffgen.models.model import is_on_disk, local_folder
from diffgen.models.weights import UNUSED
from tests.hub.layouts import LAYOUTS
from tests.hub.standin import StandIn

pytestmark = pytest.mark.editors

HUB = [name for name, entry in aliases().items() if "hub" in entry]


def test_every_alias_has_a_layout() -> None:
    assert set(LAYOUTS) == set(HUB)


@pytest.mark.parametrize("alias", HUB)
def test_an_alias_is_pulled_whole_and_without_what_is_not_loaded(
    alias: str, online: StandIn, repository: Callable[[str], Path], cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = aliases()[alias]
    commit = online.publish(entry["hub"], repository(alias))
    assert pull(alias) == {"name": alias, "place": entry["hub"], "revision": commit}
    asked = len(online.asked)

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = resolve_model(alias, None, Path(), cache)
    assert is_on_disk(model)
    assert model.identity == f"{entry['hub']}@{commit}"
    assert len(online.asked) == asked
    folder = local_folder(model)
    assert folder is not None
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert not any(b"not to be fetched" in (folder / file).read_bytes() for file in files)
    assert not any(file.startswith(UNUSED) for file in files)
    for part in LAYOUTS[alias].half:  # one copy of the weights
        assert all(".fp16" in file for file in files if file.startswith(f"{part}/") and file.endswith(".safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("alias", HUB)
def test_a_pulled_alias_loads_offline(
    alias: str, online: StandIn, repository: Callable[[str], Path], cache: FileCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.publish(aliases()[alias]["hub"], repository(alias))
    pull(alias)
    asked = len(online.asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert load_editor(resolve_model(alias, None, Path(), cache), "cpu", "float32")
    assert len(online.asked) == asked
