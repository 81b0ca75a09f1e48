"""The docs that follow from the code are fresh, and the README names what there is."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import diffgen
from diffgen import DiffgenError, UsageError
from diffgen.cli import app, main
from diffgen.commands import preview as previews
from diffgen.recipe.load import load_recipe
from diffgen.recipe.schema import Recipe
from diffgen.run import loop
from diffgen.run.interrupts import STOP_CODES
from diffgen.types import Record
from scripts.docs import jobs_page
from scripts.docs.jobs_page import starter
from tests.fakes import FakeEditor, fake_worker, make, make_dataset, write_recipe

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


def fences(*languages: str) -> list[tuple[str, str]]:
    """(page, text) of each code block of README and docs in one of these languages, but for the files that `init` writes:
    those are tested as files, in tests/commands."""
    pages = [ROOT / "README.md", *AGENTS, *sorted((ROOT / "docs").glob("*.md"))]
    found = [
        (page.name, language, textwrap.dedent(text))
        for page in pages
        for _, language, text in re.findall(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", page.read_text("utf-8"), re.MULTILINE)
    ]
    written = starter().values()
    return [(page, text) for page, language, text in found if language in languages and text not in written]


def test_every_block_is_in_a_language_that_is_tested_here() -> None:
    pages = [ROOT / "README.md", *AGENTS, *(ROOT / "docs").glob("*.md")]
    ticks = sum(len(re.findall(r"^ *```", page.read_text("utf-8"), re.MULTILINE)) for page in pages)
    written = [text for name in jobs_page.PAGES for text in parts_of(name)]
    assert 2 * (len(fences("bash", "sh", "yaml", "python", "text")) + len(written)) == ticks


def parts_of(name: str) -> list[str]:
    """The files of `init` that a page shows."""
    return [starter()[f"winter{end}"] for end in jobs_page.PAGES[name]]


def blocks() -> list[tuple[str, str]]:
    """(page, text) of each block of YAML in README and docs: all are recipes or parts of one."""
    return fences("yaml")


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


def commands() -> list[tuple[str, list[str]]]:
    """(page, words) of each command in the shell blocks of README and docs."""
    found = []
    for page, block in fences("bash", "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if word.strip("|&;<>"):
                    words.append(word)
                    continue
                while words and words[0] in {"do", "then", "while", "if", "else"}:
                    words.pop(0)
                if words:
                    found.append((page, words))
                words = []
    return found


# The shell's own, and programs of others that the tests cannot ask: only bash reads these lines.
SHELL = {"true", "done", "[", "break", "exit", "code=0", "code=$?"}
FOREIGN = {"accelerate", "docker", "hf", "jq", "rclone"}


@pytest.mark.parametrize(("page", "text"), fences("bash", "sh"), ids=[page for page, _ in fences("bash", "sh")])
def test_every_block_of_shell_is_one(page: str, text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_in_the_docs_is_one() -> None:
    found = commands()
    assert sum(words[0] == "diffgen" for _, words in found) > 40
    for page, words in found:
        program, *rest = words
        if program in {*CHECKS}:
            CHECKS[program](rest)
        else:
            assert program in SHELL | FOREIGN or program.endswith(".json"), (page, words)  # diffgen schema > FILE.json


def check_diffgen(words: list[str]) -> None:
    group: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(group, "commands") and rest and rest[0] in group.commands:
        group = group.commands[rest.pop(0)]
    assert not hasattr(group, "commands") or not rest or rest[0].startswith("-") or group.name == "models", words
    group.make_context("diffgen", rest)  # raises for what it does not know


def check_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {word for word in words if "=" not in word} <= targets, words


def check_pip(words: list[str]) -> None:
    """An extra that is named is one of ours."""
    assert words[0] == "install"
    declared = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE))
    for word in words[1:]:
        extras = re.fullmatch(r"(?:diffgen|\.)(?:\[(.*)\])?", word)
        assert extras, words
        assert set((extras[1] or "").split(",")) - {""} <= declared


def check_python(words: list[str]) -> None:
    assert (ROOT / words[0]).is_file(), words


def check_yolo(words: list[str]) -> None:
    spec = find_spec("ultralytics")  # without importing it
    assert spec is not None
    assert spec.origin is not None
    known = yaml.safe_load((Path(spec.origin).parent / "cfg/default.yaml").read_text("utf-8"))
    assert words[0] in {"train", "val", "predict"}
    assert {word.partition("=")[0] for word in words[1:]} <= {*known}, words


CHECKS = {
    "diffgen": check_diffgen,
    "make": check_make,
    "pip": check_pip,
    "python": check_python,
    "yolo": check_yolo,
}


def test_every_script_that_the_docs_name_is_there() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"python -m (scripts[\w.]+)", page.read_text("utf-8")):
            assert find_spec(name), f"{page.name}: {name}"


@pytest.fixture
def project(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders of the examples: winter.yaml here and in configs/, a finished run in runs/winter; a fake worker."""
    place = tmp_path / "project"
    write_recipe(place / "configs/winter.yaml", dataset, place / "runs/winter")
    write_recipe(place / "winter.yaml", dataset, tmp_path / "runs/winter")
    make(place / "configs/winter.yaml")
    make(place / "winter.yaml")
    monkeypatch.chdir(place)
    monkeypatch.setattr(loop, "run", partial(loop.run, make_worker=lambda: fake_worker(FakeEditor())))
    return place


@pytest.mark.parametrize("page", ["README.md", "api.md"])
def test_the_examples_of_the_interface_run(page: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for text in [text for name, text in fences("python") if name == page]:
        exec(compile(text, page, "exec"), names)
    assert isinstance(names["summary"], diffgen.Summary)
    assert names["summary"].accepted == 8


def test_the_first_run_of_a_dataset_of_your_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """first-run.md from `init` on, with its own recipe; the checks are loose, as the fake editor only darkens."""
    monkeypatch.setattr(previews, "preview", partial(previews.preview, make_worker=lambda: fake_worker(FakeEditor())))
    make_dataset(project / "data/street")
    (project / "configs/winter.yaml").unlink()
    shutil.rmtree(project / "runs/winter")
    own = [words[1:] for page, words in commands() if page == "first-run.md" and words[0] == "diffgen"]
    own = own[[words[0] for words in own].index("init") :]
    assert [words[0] for words in own] == ["init", "plan", "preview", "run", "run"]
    (recipe,) = [text for page, text in fences("yaml") if page == "first-run.md"]
    for words in own:
        assert main(words) == 0, words
        if words[0] == "init":
            loose = {"checks": dict.fromkeys(("structure", "registration", "change", "effect"))}
            (project / "configs/winter.yaml").write_text(yaml.safe_dump({**yaml.safe_load(recipe), **loose}))
    assert (project / "runs/winter/dataset/data.yaml").is_file()


@pytest.mark.parametrize(("page", "text"), fences("python"), ids=[page for page, _ in fences("python")])
def test_every_name_in_a_block_of_python_is_known(page: str, text: str) -> None:
    """Names are defined in the page's blocks up to this one, and modules hold what is imported from them."""
    pytest.importorskip("ruff")
    before = [other for name, other in fences("python") if name == page]
    whole = "".join(before[: before.index(text) + 1])
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E9,F63,F7,F82", "-"]
    done = subprocess.run(command, input=whole, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            spec = find_spec(str(node.module))
            assert spec is not None
            assert spec.origin is not None
            source = Path(spec.origin).read_text("utf-8")
            assert all(alias.name in source for alias in node.names), ast.unparse(node)


def test_the_python_page_names_what_there_is() -> None:
    text = (ROOT / "docs/api.md").read_text("utf-8")
    assert {*re.findall(r"^### (\w+)$", text, re.MULTILINE), "__version__"} == {*diffgen.__all__}


def test_the_page_of_the_run_folder_names_what_there_is(project: Path) -> None:
    text = (ROOT / "docs/run-folder.md").read_text("utf-8")
    folder = project / "runs/winter"
    for path in folder.iterdir():
        assert re.search(rf"(├──|└──) {re.escape(path.name)}", text), path.name
    for key in {*json.loads((folder / "run.json").read_text("utf-8")), *Record.__dataclass_fields__}:
        assert f"`{key}`" in text, key


def test_the_page_of_exit_codes_names_all() -> None:
    text = (ROOT / "docs/exit-codes.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d[\d, ]*) \|", text, re.MULTILINE)
    named = {int(code) for row in rows for code in row.split(", ")}
    assert named == {0, DiffgenError.exit_code, UsageError.exit_code, 3, *STOP_CODES.values()}


def test_the_docs_link_to_nothing_outside() -> None:
    """The site has only what lies in docs/."""
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "docs/llms.txt"]:
        assert "](../" not in page.read_text("utf-8"), page.name


def test_the_rooms_are_drawn_in_the_order_in_which_they_import() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    layers = re.findall(r'"diffgen\.(\w+)"', text.partition("layers = [")[2].partition("]")[0])
    (drawing,) = [block for page, block in fences("text") if page == "architecture.md"]
    drawn = [re.sub(r"[/.].*", "", line) for line in drawing.splitlines() if re.match(r"\w+(/|\.py)", line)]
    assert drawn[:-1] == [name for name in layers if name in drawn[:-1]]
    assert {path.name for path in (ROOT / "diffgen").iterdir() if path.is_dir()} - {"__pycache__"} == {*drawn[1:-1]}


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
