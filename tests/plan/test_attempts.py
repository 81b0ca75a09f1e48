"""A rejected image is made again with less strength; what is accepted first is what is exported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path

import pytest

from diffgen.commands.export import export
from diffgen.commands.status import status
from diffgen.editing.editor import EditBatch
from diffgen.plan.attempts import ATTEMPT_FACTOR, next_attempt
from diffgen.recipe.load import load_recipe
from diffgen.types import Item, Job, Settings
from tests.fakes import make, make_dataset, source, tree, write_recipe
from tests.fakes_attempts import Melting, run_it


def test_more_attempts_save_what_was_rejected(tmp_path: Path) -> None:
    one, _, _ = run_it(tmp_path, "one", 1)
    three, editor, recipe = run_it(tmp_path, "three", 3)
    assert one.saved == 0
    assert one.rejected["structure"] > 5
    assert three.accepted > one.accepted
    assert three.saved == three.accepted - one.accepted
    assert three.pending == 0
    made = [json.loads(line) for line in (tmp_path / "three/dataset/manifest.jsonl").read_text().splitlines()[1:]]
    attempts = [row["attempt"] for row in made if "job" in row]
    assert attempts.count(0) == one.accepted
    for row in made:
        if row.get("attempt"):
            assert row["facts"]["strength"] == pytest.approx(
                {"night": 0.7, "fog": 0.6}[row["condition"]] * ATTEMPT_FACTOR ** row["attempt"], abs=1e-3
            )
    again, idle = make(recipe, Melting())
    assert (again.accepted, again.made_now, idle.made) == (three.accepted, 0, [])
    assert len(editor.made) == len(set(editor.made))


def test_a_run_cut_short_ends_the_same(tmp_path: Path) -> None:
    whole, editor, _ = run_it(tmp_path, "whole", 3)
    calls = len(editor.batches)
    for stop in (1, calls // 2, calls - 1):
        name = f"cut{stop}"

        @dataclass
        class Stopping(Melting):
            left: int = stop

            def begin(self, batch: EditBatch) -> None:
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_it(tmp_path, name, 3, Stopping())
        summary, _, _ = run_it(tmp_path, name, 3)
        assert (summary.accepted, summary.saved) == (whole.accepted, whole.saved)
        assert tree(tmp_path / name / "dataset") == tree(tmp_path / "whole/dataset")


def test_a_tighter_threshold_asks_for_more_attempts(tmp_path: Path) -> None:
    first, _, recipe = run_it(tmp_path, "out", 2)
    assert first.pending == 0
    loaded = load_recipe(recipe, ["checks.structure=0.999"])
    judged = export(loaded)
    assert judged.pending > 0, "export makes nothing, and says what a run would make"
    assert status(load_recipe(tmp_path / "out")).pending == judged.pending
    more, editor = make(recipe, Melting(), sets=["checks.structure=0.999"])
    assert len(editor.made) == judged.pending
    assert more.pending == 0
    back = export(load_recipe(recipe))
    assert back.accepted == first.accepted


def test_an_attempt_that_would_be_the_same_is_skipped() -> None:
    base = Settings("img2img", "m", "snow", 0.2, 1, 1.0, 64, 8, "png", None)
    first = Item(source(0), Job("s", base, "p", None, 1))
    second = next_attempt(first, 5)
    assert second is not None
    assert second.job.settings.strength < 0.2
    assert second.job.seed == first.job.seed
    assert second.job.id != first.job.id
    zero = Item(source(0), Job("s", changed(base, strength=0.0), "p", None, 1))
    assert next_attempt(zero, 5) is None


def test_where_nothing_happened_less_strength_is_not_tried(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", counts=(3, 1))
    checks = {"effect": 1.9}
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "out", attempts=3, conditions=["night"], checks=checks)
    summary, editor = make(recipe)
    assert summary.rejected == {"weak-effect": 3}
    assert len(editor.made) == 3
