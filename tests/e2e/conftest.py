"""Real photographs (of installed packages), the shipped model, real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.demo import write_dataset

ROOT = Path(__file__).resolve().parents[2]
Finished = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a child process: its own cache and settings, no network, one torch thread pool."""
    home = tmp_path_factory.mktemp("home")
    return {
        **os.environ,
        "DIFFGEN_CACHE": str(home / "cache"),
        "YOLO_CONFIG_DIR": str(home / "yolo"),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "HF_HUB_OFFLINE": "1",
    }


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.yaml of the demo's dataset: two street photographs to edit, one portrait to validate on."""
    return write_dataset(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="session")
def diffgen(world: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Finished]:
    """The command line in a process of its own, from a folder that is neither the project's nor the dataset's."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def call(*arguments: object, timeout: float = 280) -> Finished:
        command = [sys.executable, "-m", "diffgen", *map(str, arguments)]
        return subprocess.run(
            command, env=world, cwd=elsewhere, capture_output=True, text=True, timeout=timeout, check=False
        )

    return call


@pytest.fixture(scope="session")
def finished(diffgen: Callable[..., Finished], photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the quickstart recipe on the photographs: the run folder."""
    out = tmp_path_factory.mktemp("run") / "out"
    done = diffgen("run", ROOT / "configs/quickstart.yaml", "--set", f"dataset={photographs}", "--output", out)
    assert done.returncode == 0, done.stderr
    return out
