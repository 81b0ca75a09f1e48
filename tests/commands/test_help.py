"""Help texts: every command has one, with an example that can be typed; golden copies show each change in a diff."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from diffgen.cli import app, main

GOLDEN = Path(__file__).parents[1] / "golden" / "help"
COMMANDS = sorted(
    [info.name or info.callback.__name__ for info in app.registered_commands]  # type: ignore[union-attr]
    + [group.name for group in app.registered_groups]
    + [
        f"{group.name} {info.name}"
        for group in app.registered_groups
        for info in group.typer_instance.registered_commands
    ]
)


def help_text(command: str) -> str:
    """What `diffgen COMMAND --help` prints at 80 columns."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([*command.split(), "--help"]) == 0
    return out.getvalue()


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_the_golden_text(command: str) -> None:
    """After a change on purpose: python -m tests.golden.rewrite."""
    golden = GOLDEN / f"{command.replace(' ', '-') or 'diffgen'}.txt"
    assert golden.is_file(), "python -m tests.golden.rewrite"
    assert help_text(command) == golden.read_text("utf-8")


def test_no_golden_text_is_left_of_a_command_that_went() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == sorted(
        ["diffgen", *(command.replace(" ", "-") for command in COMMANDS)]
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_its_description_with_an_example_that_parses(command: str) -> None:
    text = " ".join(help_text(command).split("Options:")[0].split())
    example = re.search(r"Example: diffgen (.+?)(?: Arguments:.*)?$", text)
    assert example, text
    words = shlex.split(example[1].split(" > ")[0].split(" | ")[0])
    assert words[: len(command.split())] == command.split()
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", help_text(command)))
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str) -> None:
    rows = re.findall(r"^  (-\S.*)$", help_text(command).split("Options:")[1], re.MULTILINE)
    assert rows
    for row in rows:  # a row with no text has one column, unless the text begins on the next line
        assert "  " in row.strip() or len(row) > 24, row


def test_help_is_shown_without_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    printed = capsys.readouterr()
    assert "Commands:" in printed.out + printed.err
