"""log.txt says what a run said, which images failed, and how it ended; `each` gets a line for every image."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffgen.recipe.load import load_recipe
from diffgen.run.log import LOG, logged
from diffgen.run.loop import run
from tests.fakes import FakeEditor, fake_worker, make, make_dataset, read_records, write_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "r.yaml", make_dataset(tmp_path / "data"), tmp_path / "out")


def log_of(root: Path) -> list[str]:
    return (root / "out" / LOG).read_text("utf-8").splitlines()


def test_every_image_gets_a_line_with_its_verdict(recipe: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    summary = run(load_recipe(recipe), make_worker=lambda: fake_worker(FakeEditor()), each=lines.append)
    assert len(lines) == summary.made_now
    assert {line.split()[0] for line in lines} == set(read_records(tmp_path / "out"))
    assert sum(line.endswith(": accepted") for line in lines) == summary.accepted
    assert any(": rejected, " in line for line in lines) == bool(summary.rejected)


def test_failed_images_are_in_the_log_and_a_finished_run_adds_nothing(recipe: Path, tmp_path: Path) -> None:
    source = next((tmp_path / "data").rglob("images/train/*"))
    raw = source.read_bytes()
    source.write_bytes(raw[: len(raw) // 2])
    summary, _ = make(recipe)
    failed = [line for line in log_of(tmp_path) if ": failed, " in line]
    assert len(failed) == sum(summary.failed.values())
    assert f"{summary.planned} of {summary.planned} images to make" not in log_of(tmp_path)[0]
    assert any("images to make in" in line for line in log_of(tmp_path))
    before = log_of(tmp_path)
    make(recipe)
    assert log_of(tmp_path) == before


def test_a_bug_leaves_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ZeroDivisionError), logged(tmp_path / "out", "w1") as log:
        log("before\x1b[31m")
        _ = 1 // 0
    lines = log_of(tmp_path)
    assert lines[1].endswith(" w1 before\\x1b[31m")
    assert lines[-1].endswith("ZeroDivisionError: integer division or modulo by zero")


def test_a_log_that_cannot_be_written_ends_nothing(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOG).mkdir()
    (tmp_path / "out/run.json").unlink(missing_ok=True)
    with logged(tmp_path / "out", "0") as log:
        log("said")
