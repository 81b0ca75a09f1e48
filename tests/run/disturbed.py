"""Runs that are disturbed, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffgen.recipe.load import load_recipe
from diffgen.run.loop import run
from diffgen.run.summary import Summary
from diffgen.run.worker import Worker
from tests.fakes import FakeEditor, fake_worker


def changing(recipe: Path, change: Callable[[], Any]) -> tuple[Summary, FakeEditor]:
    """A run during which the dataset changes after planning, before the first picture is opened."""
    editor = FakeEditor()

    def make_worker() -> Worker:
        change()
        return fake_worker(editor)

    return run(load_recipe(recipe), make_worker=make_worker), editor


def no_worker() -> Worker:
    raise AssertionError("nothing is left to make, so no worker is needed")
