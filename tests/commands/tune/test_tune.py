"""`diffgen tune` with an editor that darkens: it comes nearer to a night, writes a recipe that runs, and goes on."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from diffgen.commands.tune.bench import Made
from diffgen.commands.tune.page import tune_text
from diffgen.commands.tune.search import Tried
from diffgen.commands.tune.tune import Final, TuneRequest, finalists, tune
from diffgen.errors import UsageError
from diffgen.recipe.load import load_recipe
from diffgen.run.session import Session
from tests.fakes import FakeEditor, fake_worker, ids_of, make, make_dataset, photo, save, write_recipe

pytest.importorskip("optuna")

LOOSE = {"structure": None, "registration": None, "change": None, "effect": None, "contrast": None}


def folder(root: Path, conditions: Sequence[Any] = ("night",), **keys: Any) -> Path:
    make_dataset(root / "data", counts=(8, 2))
    for i in range(12):
        save(root / f"nights/{i}.jpg", (photo(50 + i) * 0.35).astype(np.uint8))
    return write_recipe(
        root / "r.yaml", root / "data/data.yaml", root / "run", conditions=list(conditions), checks=LOOSE, **keys
    )


def tuned(recipe: Path, root: Path, **options: Any) -> dict[str, Any]:
    said: list[str] = options.pop("said", [])
    request = TuneRequest(load_recipe(recipe), root / "nights", **{"budget": 20, "sources": 6, "size": 64} | options)
    targets = {hashlib.sha256(path.read_bytes()).hexdigest()[:32]: str(path) for path in (root / "nights").iterdir()}
    return tune(request, make_worker=lambda: fake_worker(FakeEditor(), targets=targets), notify=said.append)


def test_it_comes_nearer_and_the_recipe_runs(tmp_path: Path) -> None:
    recipe = folder(tmp_path)
    facts = tuned(recipe, tmp_path)
    assert facts["exit_code"] == 0
    assert facts["tuned"]["ratio"] < 0.8
    written = Path(facts["recipe"])
    assert written == tmp_path / "r-tuned.yaml"
    plan = Session.open(load_recipe(written)).plan
    planned = {item.job.id for item in plan.items}
    assert len(ids_of(tmp_path / "run-tuned") & planned) == 8, "full-size images of the chosen one are jobs of the run"
    summary, _ = make(written, targets=Session.open(load_recipe(written)).dataset.target_paths)
    assert (summary.made_now, summary.accepted) == (0, 8)
    text = tune_text(facts)
    assert str(written) in text
    assert (tmp_path / "run-tune/report.html").is_file()
    assert (tmp_path / "run-tune/sheet.png").is_file()
    assert "# without: " in written.read_text() or "# as before: " in written.read_text()


def test_it_goes_on_and_a_larger_budget_only_adds(tmp_path: Path) -> None:
    recipe = folder(tmp_path)
    whole = tuned(recipe, tmp_path, budget=22)
    shutil.rmtree(tmp_path / "run-tune")
    shutil.rmtree(tmp_path / "run-tuned")
    tuned(recipe, tmp_path, budget=18)
    said: list[str] = []
    parts = tuned(recipe, tmp_path, budget=22, said=said)
    assert parts["trials"] == whole["trials"]
    assert parts["tuned"] == whole["tuned"]
    assert sum(line.startswith("trial") for line in said) == 4


def test_another_limit_keeps_the_trials(tmp_path: Path) -> None:
    recipe = folder(tmp_path)
    first = tuned(recipe, tmp_path, budget=18)
    said: list[str] = []
    again = tuned(recipe, tmp_path, budget=18, recall=0.7, said=said)
    assert again["trials"] == first["trials"]
    assert not any(line.startswith("trial") for line in said)
    more = tuned(recipe, tmp_path, budget=20, recall=0.5)
    assert more["trials"][:18] == first["trials"]
    assert len(more["trials"]) == 20


def test_settings_that_cost_objects_at_full_size_are_taken_off_there() -> None:
    cost = {"lights": 0.1, "noise": 0.04, "match": 0.05}
    gain = {"lights": 0.1, "noise": 0.1, "match": 0.4}

    def at_full_size(one: Tried) -> Final:
        truth = 1.0 - sum(cost[name] for name in one.point)
        ratio = 1.0 - sum(gain[name] for name in one.point)
        return Final(one, Made(None, (), None, truth, 1.0), ratio)  # type: ignore[arg-type]

    def fewer(one: Tried) -> Iterator[Tried]:
        for name in one.point:
            yield replace(one, point={key: value for key, value in one.point.items() if key != name})

    def kept(recall: float) -> list[set[str]]:
        everything = Tried("night", dict.fromkeys(cost, 1.0), 0.4, 0.9, 1.0)
        return [{*final.tried.point} for final in finalists([everything], at_full_size, fewer, recall)]

    everything = {"lights", "noise", "match"}
    assert kept(0.8) == [everything]
    assert kept(0.9) == [everything, {"noise", "match"}, {"lights", "match"}, {"lights", "noise"}]
    assert kept(0.95)[4:] == [{"match"}, {"noise"}], "on from the one without lights"
    assert kept(0.99)[6:] == [set()]
    assert finalists([], at_full_size, fewer, 0.9) == []
    assert not at_full_size(Tried("night", {}, 1.0, 1.0, 1.0)).allowed(0.5), "no nearer than the recipe"


def test_what_the_user_wrote_is_kept(tmp_path: Path) -> None:
    conditions = [{"night": {"strength": 0.5, "skip_if": [], "sensor": {"noise": 0.01}}}, {"dusk": {"share": 0.5}}]
    recipe = folder(tmp_path, conditions, detail=0.2, seed=3, variants=2)
    recipe.write_text(recipe.read_text().replace(str(tmp_path) + "/", ""))
    facts = tuned(recipe, tmp_path, budget=14, output=tmp_path / "elsewhere/mine.yaml")
    raw = yaml.safe_load((tmp_path / "elsewhere/mine.yaml").read_text())
    assert (raw["seed"], raw["variants"], raw["dataset"]) == (3, 2, "../data/data.yaml")
    assert "detail" not in raw
    assert raw["output"] == "../run-tuned"
    names = {next(iter(c)) for c in raw["conditions"]}
    assert names == {part["condition"] for part in facts["chosen"]}
    if len(names) > 1:
        assert raw["assign"] == "one"
    load_recipe(tmp_path / "elsewhere/mine.yaml")


def test_where_labels_do_not_stay_true_nothing_is_written(tmp_path: Path) -> None:
    recipe = folder(tmp_path)
    for path in sorted((tmp_path / "data").rglob("images/train/*"))[:2]:  # pictures that no setting makes acceptable
        save(path, np.full_like(photo(0), 128))
    raw = yaml.safe_load(recipe.read_text())
    raw["checks"]["contrast"] = 0.06
    recipe.write_text(yaml.safe_dump(raw))
    facts = tuned(recipe, tmp_path, sources=8, recall=1.0, budget=3)
    assert (facts["exit_code"], facts["tuned"]) == (3, None)
    assert not (tmp_path / "r-tuned.yaml").exists()
    assert "nothing" in tune_text(facts)
    assert (tmp_path / "run-tune/report.html").is_file()


def test_target_pictures_of_the_test_split_are_named(tmp_path: Path) -> None:
    recipe = folder(tmp_path)
    val = next((tmp_path / "data").rglob("images/val/*"))
    shutil.copy(val, tmp_path / "nights/copied.jpg")
    said: list[str] = []
    facts = tuned(recipe, tmp_path, budget=1, said=said)
    assert any("copied.jpg is val/" in line for line in facts["warnings"])
    assert any("copied.jpg is val/" in line for line in said)


def test_tasks_cannot_be_tuned(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="edit whole pictures"):
        tuned(folder(tmp_path, [{"name": "no-car", "prompt": "a road", "task": "background"}]), tmp_path)


def test_a_target_needs_pictures_and_the_recipe_is_not_overwritten(tmp_path: Path) -> None:
    recipe = folder(tmp_path)
    with pytest.raises(UsageError, match="recipe itself"):
        tuned(recipe, tmp_path, output=recipe)
    shutil.rmtree(tmp_path / "nights")
    (tmp_path / "nights").mkdir()
    with pytest.raises(UsageError, match="--target: there is no picture"):
        tuned(recipe, tmp_path)
