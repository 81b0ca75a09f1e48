"""Previews by a fake editor, and what is read of them. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffgen.commands.preview import Preview, preview
from diffgen.commands.sweeps import PreviewRequest, read_sweep
from diffgen.recipe.load import load_recipe
from tests.fakes import FakeEditor, fake_worker

TILE = 420  # pixels


def look(recipe: Path, *sweeps: str, editor: Any = None, sets: Sequence[str] = (), **options: Any) -> Any:
    """(preview, the editor, which knows what it was asked)."""
    editor = editor or FakeEditor()
    wanted = PreviewRequest(sweeps=tuple(read_sweep(text) for text in sweeps), **options)
    return preview(load_recipe(recipe, sets), wanted, make_worker=lambda: fake_worker(editor)), editor


def verdicts(found: Preview) -> list[tuple[str, str, str]]:
    return [(f["source"], f["condition"], f["verdict"]) for f in (cell.facts() for cell in found.images)]
