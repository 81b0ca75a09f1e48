"""What a run reads once, and what it does not read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffgen.commands.export import export
from diffgen.dataset import labels
from diffgen.recipe.load import load_recipe
from diffgen.run.store import images
from tests.fakes import make, make_dataset, write_recipe
from tests.fakes_attempts import run_it


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    """The first argument of each call of a function, from now on."""
    calls: list[Any] = []
    original = getattr(module, name)

    def call(first: Any, *rest: Any) -> Any:
        calls.append(first)
        return original(first, *rest)

    monkeypatch.setattr(module, name, call)
    return calls


def test_a_run_lists_its_images_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = counted(monkeypatch, images, "_subfolders")
    summary, _, _ = run_it(tmp_path, "out", attempts=3)
    assert summary.saved, "there were rounds of attempts"
    assert listed == [tmp_path / "out"]


def test_export_and_report_parse_no_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_dataset(tmp_path / "data")
    make(write_recipe(tmp_path / "r.yaml", data, tmp_path / "out"))
    (tmp_path / "out/report.html").unlink()
    parsed = counted(monkeypatch, labels, "parse_labels")
    summary = export(load_recipe(tmp_path / "out"))
    assert (tmp_path / "out/report.html").is_file()
    assert summary.accepted
    assert not [raw for raw in parsed if raw], "what it needs of the labels is known from reading the dataset"
