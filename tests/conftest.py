"""Every test has its own cache, no network and no settings of this machine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from diffgen import cli as command_line
from diffgen.run import loop
from diffgen.run.loop import run
from tests.fakes import FakeEditor, fake_worker, make_dataset, write_recipe

# The same examples on every machine, however slow it is: a build must fail by what was changed.
settings.register_profile(
    "same", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _own_world(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.getbasetemp() / "home"
    monkeypatch.setenv("DIFFGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    monkeypatch.setenv("YOLO_AUTOINSTALL", "false")
    monkeypatch.setenv("COLUMNS", "80")


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
