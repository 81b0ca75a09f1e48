"""Every test has its own caches, no network and no settings of this machine, and is of one kind.

The kind of a module is the marker in its `pytestmark`, else that of its folder, else `unit`. `slow` and `gpu` are no kinds:
they say where a test is run. `unit`, `property` and `cli` need no torch.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from diffgen import cli as command_line
from diffgen.checks import statistics
from diffgen.dataset.file_cache import FileCache
from diffgen.run import loop
from diffgen.run.loop import run
from tests.fakes import FakeEditor, fake_worker, make_dataset, write_recipe

# The same examples on every machine, however slow it is: a build must fail because of what was changed. `make test-slow`
# tries more of them.
settings.register_profile(
    "same",
    max_examples=20,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile("campaign", parent=settings.get_profile("same"), max_examples=300)
settings.load_profile("same")


pytest_plugins = ["tests.editing.tiny_fixtures", "tests.output.browser.chromium"]

ROOT = Path(__file__).parent
FOLDERS = {
    ROOT / "commands": "cli",
    ROOT / "property": "property",
    ROOT / "pocket": "pocket",
    ROOT / "scripts/pocket": "pocket",
    ROOT / "e2e": "e2e",
    ROOT / "run/crash": "crash",
    ROOT / "output/browser": "browser",
}
KINDS = {"unit", "editors", *FOLDERS.values()}
SLOW_SECONDS = 1200  # may a slow test take; see pyproject.toml for the others
TORCH_FREE = {"unit", "property", "cli"}


def kind_of(path: Path) -> str:
    """The kind of a test module, read without importing it."""
    named = re.search(rf"^pytestmark = .*\bmark\.({'|'.join(sorted(KINDS))})\b", path.read_text("utf-8"), re.MULTILINE)
    return named[1] if named else next((FOLDERS[folder] for folder in path.parents if folder in FOLDERS), "unit")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m "unit or cli"`, modules of other kinds are not even imported: most of them import torch."""
    wanted = set(config.getoption("markexpr").split(" or "))
    is_module = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if is_module and wanted <= KINDS and kind_of(collection_path) not in wanted else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not any(item.get_closest_marker(kind) for kind in KINDS):
            item.add_marker(kind_of(item.path))
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


@pytest.fixture(scope="session", autouse=True)
def _disk_is_not_waited_for() -> Iterator[None]:
    """A killed process loses nothing that it has written, so syncing only costs time here, but for the test that cuts the
    power, which puts it back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        patch.setattr("diffgen.output.export.sync_filesystem", lambda folder: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def _statistics_of_small_pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Pictures of 64 px, enlarged to be measured, would be most of what a run of fakes costs. As it is where that is tested."""
    measured = ROOT / "checks" in request.path.parents or kind_of(request.path) == "pocket"
    with pytest.MonkeyPatch.context() as patch:
        if not measured:
            patch.setattr(statistics, "LONG_SIDE", 96)
        yield


@pytest.fixture(autouse=True)
def _own_world(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.getbasetemp() / "home"
    monkeypatch.setenv("DIFFGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    monkeypatch.setenv("YOLO_AUTOINSTALL", "false")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(autouse=True)
def _torch_of_its_kind(request: pytest.FixtureRequest) -> Iterator[None]:
    """One thread for editors: a run takes all of the machine's. And no torch for the kinds that need none."""
    if request.node.get_closest_marker("editors"):
        import torch

        torch.set_num_threads(1)
    before = "torch" in sys.modules
    yield
    if any(request.node.get_closest_marker(kind) for kind in TORCH_FREE):
        loaded = "torch" in sys.modules and not before
        assert not loaded, "a test of this kind loads no torch"


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[FileCache]:
    with FileCache(tmp_path / "cache") as opened:
        yield opened


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """data.yaml of four train and two val pictures."""
    return make_dataset(tmp_path / "data")


@pytest.fixture
def recipe(tmp_path: Path, dataset: Path) -> Path:
    """Night and fog over `dataset`, into `tmp_path`/out, in batches of three."""
    return write_recipe(tmp_path / "recipe.yaml", dataset, tmp_path / "out")


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """The command line in this process. With `editor`, `run` makes its images by that fake."""

    def call(*argv: Any, editor: FakeEditor | None = None) -> Answer:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            if editor is not None:
                patch.setattr(loop, "run", functools.partial(run, make_worker=lambda: fake_worker(editor)))
            code = command_line.main([str(part) for part in argv])
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return call
