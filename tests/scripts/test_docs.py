"""The docs that follow from the code are fresh, and the README names what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from diffgen.recipe.load import load_recipe

ROOT = Path(__file__).resolve().parents[2]


def test_docs_are_fresh() -> None:
    command = [sys.executable, "-m", "scripts.docs.check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_links_in_the_docs_lead_somewhere() -> None:
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "scripts").rglob("*.md"),
    ]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_recipes_in_the_card_of_pocket_are_recipes(tmp_path: Path) -> None:
    found = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/pocket.md").read_text("utf-8"), re.DOTALL)
    assert found
    for text in found:
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        assert load_recipe(path).recipe.loras


def test_recipes_to_start_from_are_recipes() -> None:
    found = sorted((ROOT / "configs").glob("*.yaml"))
    assert len(found) >= 5
    for path in found:
        assert load_recipe(path).recipe.conditions, path.name
