"""The docs that follow from the code are fresh, and the README names what there is."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from diffgen.cli import app
from diffgen.recipe.load import load_recipe
from diffgen.recipe.schema import Recipe
from diffgen.run.summary import STOP_CODES

ROOT = Path(__file__).resolve().parents[2]
AGENTS = [ROOT / "AGENTS.md", ROOT / "skills/diffgen/SKILL.md"]


def test_docs_are_fresh() -> None:
    command = [sys.executable, "-m", "scripts.docs.check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_links_in_the_docs_lead_somewhere() -> None:
    for page in [
        *ROOT.glob("*.md"),
        *AGENTS,
        ROOT / "docs/llms.txt",
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


def blocks() -> list[tuple[str, str]]:
    """(page, text) of each block of YAML in README and docs that is a recipe or a part of one."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = [
        (page.name, text)
        for page in pages
        for text in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    ]
    return [(name, text) for name, text in found if set(yaml.safe_load(text)) & set(Recipe.model_fields)]


@pytest.mark.parametrize(("page", "text"), blocks(), ids=[page for page, _ in blocks()])
def test_recipes_in_the_docs_are_recipes(page: str, text: str) -> None:
    fields = yaml.safe_load(text)
    lacking = {} if "text2img" in fields else {"dataset": "data.yaml"}
    Recipe.model_validate({**lacking, "output": "out", "conditions": ["night"], **fields})


def test_recipes_to_start_from_are_recipes() -> None:
    found = sorted((ROOT / "configs").glob("*.yaml"))
    assert len(found) >= 5
    for path in found:
        assert load_recipe(path).recipe.conditions, path.name


def documented_commands() -> list[list[str]]:
    """The arguments of each diffgen call in a code block of README, docs and what agents read."""
    calls = []
    for page in (ROOT / "README.md", *AGENTS, *sorted((ROOT / "docs").glob("*.md"))):
        for block in re.findall(r"```(?:bash|sh|console)\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if "diffgen" in words[:2]:
                    calls.append(words[words.index("diffgen") + 1 :])
    return calls


def test_every_command_in_the_docs_is_one() -> None:
    calls = documented_commands()
    assert len(calls) > 15
    command = typer.main.get_command(app)
    for words in calls:
        group: Any = command
        rest = list(words)
        while hasattr(group, "commands") and rest and rest[0] in group.commands:
            group = group.commands[rest.pop(0)]
        assert not hasattr(group, "commands") or not rest or rest[0].startswith("-"), words
        ends = [i for i, word in enumerate(rest) if word in ("&&", "||", "|", ">", ">>", ";", "2>")]
        group.make_context("diffgen", rest[: ends[0]] if ends else rest)  # raises for what it does not know


def test_llms_txt_names_every_page() -> None:
    named = set(re.findall(r"\]\(([^)]+)\)", (ROOT / "docs/llms.txt").read_text("utf-8")))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= named


def test_the_skill_is_one_and_knows_every_exit_code() -> None:
    """Its head as agents look for it, and what a run may end with."""
    _, head, body = (ROOT / "skills/diffgen/SKILL.md").read_text("utf-8").split("---\n", 2)
    fields = yaml.safe_load(head)
    assert fields["name"] == "diffgen"
    assert 0 < len(fields["description"]) <= 1024
    table = re.findall(r"^\| ([\d, ]+) \|", body, re.MULTILINE)
    assert {code for row in table for code in row.split(", ")} == {"0", "1", "2", "3", *map(str, STOP_CODES.values())}


def test_agents_are_told_of_targets_that_make_has() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in (ROOT / "AGENTS.md", ROOT / "CONTRIBUTING.md"):
        named = set(re.findall(r"`make ([a-z-]+)`", page.read_text("utf-8")))
        assert named
        assert named <= targets
