"""What `from diffgen import …` gives: all of it named, typed and documented, and nothing loaded before it is asked for."""

from __future__ import annotations

import ast
import functools
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import diffgen
from diffgen.run import loop
from tests.fakes import FakeEditor, fake_worker, make
from tests.fakes_attempts import Melting


def test_every_public_name_is_there_and_documented() -> None:
    for name in set(diffgen.__all__) - {"__version__"}:
        thing = getattr(diffgen, name)
        assert callable(thing)
        assert thing.__doc__, f"{name} has no docstring"


def test_type_checkers_see_the_same_names() -> None:
    """They read the imports under TYPE_CHECKING, where Python asks `__getattr__`."""
    (block,) = [node for node in ast.parse(Path(diffgen.__file__).read_text("utf-8")).body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert sorted({"__version__", *seen}) == sorted(diffgen.__all__)
    for name, module in seen.items():
        assert getattr(importlib.import_module(str(module)), name) is getattr(diffgen, name)


def test_no_other_name_is_made_up() -> None:
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        diffgen.runs  # noqa: B018 the access is what is tested


def test_a_run_from_python(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = diffgen.load_recipe(str(recipe))
    assert isinstance(loaded, diffgen.LoadedRecipe)
    assert diffgen.plan_recipe(loaded)["to_make"] == 8
    monkeypatch.setattr(loop, "run", functools.partial(loop.run, make_worker=lambda: fake_worker(FakeEditor())))
    told: list[tuple[int, int, int]] = []
    summary = diffgen.run_recipe(loaded, on_progress=lambda *numbers: told.append(numbers))
    assert isinstance(summary, diffgen.Summary)
    assert told[-1] == (8, 8, summary.accepted)
    run = diffgen.open_run(str(tmp_path / "out"))
    assert run.folder == tmp_path / "out"
    assert run.data == tmp_path / "out/dataset/data.yaml"
    assert run.summary.accepted == summary.accepted
    images = list(run.images)
    assert len(images) == 8
    assert {image.condition for image in images} == {"night", "fog"}
    for image in images:
        assert image.accepted
        assert image.path is not None
        assert image.path.is_file()
        assert image.source.is_file()
        assert image.facts["contrast"] > 0
        assert (
            image.label.encode()
            == image.source.parents[2].joinpath(f"labels/train/{image.source.stem}.txt").read_bytes()
        )
        assert [run.names[shape.class_id] for shape in image.objects] == [
            run.names[int(row.split()[0])] for row in image.label.splitlines()
        ]
    assert run.sheet(max_sources=2).width > 400
    strict = diffgen.export_run(run.folder, sets=["checks.contrast=0.99"])
    assert strict.accepted == 0
    assert {image.verdict for image in diffgen.open_run(run.folder).images} == {"degenerate"}
    assert diffgen.export_run(run.folder, sets=["checks.contrast=0.02"], ratio=0.5).exported == 2


def test_images_that_are_not_made_and_failed_ones(recipe: Path, tmp_path: Path) -> None:
    source = min((tmp_path / "data").rglob("images/train/*"))
    source.write_bytes(source.read_bytes()[:-200])
    make(recipe, Melting())
    verdicts = {image.source: image.verdict for image in diffgen.open_run(tmp_path / "out").images}
    assert verdicts[source] == "failed"
    with pytest.raises(diffgen.DiffgenError):
        diffgen.open_run(tmp_path / "nowhere")


def test_an_unknown_option_of_an_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(diffgen.UsageError, match="no option 'oracles'"):
        diffgen.evaluate_run(tmp_path, "w.pt", {"night": "data.yaml"}, oracles=1)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import diffgen, sys; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "pydantic", "torch", "PIL", "yaml", "typer"} & set(done.stdout.split())
