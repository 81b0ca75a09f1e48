"""examples/first-run.ipynb, executed as a newcomer would; and as it is committed: without outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_output_is_committed(path: Path) -> None:
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_runs(path: Path, tmp_path: Path, world: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name, value in {**world, "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})  # fmt: skip
    client.execute()  # raises when a cell does
    printed = {cell["id"]: "".join(out.get("text", "") for out in cell.get("outputs", ())) for cell in notebook.cells}
    assert "exit code 0" in printed["run"]
    assert "again: 0 made; with snow: 2 made" in printed["more"]
    assert printed["labels"].splitlines() == [
        f"{name}__{condition}-0.txt is {name}.txt" for name in ("bus", "zidane") for condition in ("fog", "night")
    ]
    (sheet,) = [cell for cell in notebook.cells if cell["id"] == "sheet"]
    assert "image/png" in sheet["outputs"][0]["data"]
