"""docs/cli.md: every command with its arguments and options, from the command line's own definitions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from diffgen.cli import app

INTRO = """# Commands

Results go to stdout; with `--json` they are one JSON document. Logs and progress go to stderr: a bar on a terminal,
elsewhere at most one line every half minute, and with `--json` one JSON object a line. What the exit codes mean:
[Exit codes](exit-codes.md).

`diffgen --version` prints the version, `diffgen --install-completion` sets up completion for your shell, and `--help` after
a command prints its options. Where a command takes a RECIPE, it also takes the folder of a run, which keeps its recipe.
"""

_KINDS = {Path: "PATH", int: "N", float: "NUMBER"}  # what stands for a value of that type


def cli_page() -> str:
    return INTRO + "".join(
        _section(f"diffgen {name}", command) for name, command in _commands(typer.main.get_command(app))
    )


def _commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield f"{prefix}{name}", command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")


def _section(name: str, command: Any) -> str:
    meaning, _, example = " ".join(command.help.split()).partition(" Example: ")
    types = get_type_hints(command.callback)
    shown = [param for param in command.params if not getattr(param, "hidden", False)]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    usage = " ".join([name, *map(_argument, arguments), *(["[OPTIONS]"] if len(shown) > len(arguments) else [])])
    rows = [_row(f"`{_argument(param)}`", param) for param in arguments]
    rows += [_row(_flags(param, types[param.name]), param) for param in shown if param not in arguments]
    table = "\n| | default | meaning |\n|---|---|---|\n" + "".join(rows) if rows else ""
    return f"\n## {name}\n\n{meaning}\n\n`{usage}`\n{table}\n```sh\n{example}\n```\n"


def _argument(param: Any) -> str:
    text = (param.metavar or param.name.upper()).strip("[]")
    return text if param.required else f"[{text}]"


def _flags(param: Any, annotation: Any) -> str:
    flags = sorted([*param.opts, *param.secondary_opts], key=lambda flag: flag.startswith("--"))  # -o first
    if not param.is_flag:
        kinds = {_KINDS[kind] for kind in {annotation, *get_args(annotation)} & {*_KINDS}}
        flags[-1] += f" {param.metavar or next(iter(kinds), 'TEXT')}"
    return ", ".join(f"`{flag}`" for flag in flags)


def _row(first: str, param: Any) -> str:
    default = "required" if param.required else _default(param.default)
    low = getattr(param, "min", None) or getattr(getattr(param, "type", None), "min", None)
    least = f" At least {low:g}." if low else ""  # of 0 the name says as much
    return f"| {first} | {default} | {param.help or ''}{least} |\n"


def _default(value: Any) -> str:
    wanted = isinstance(value, (str, int, float, Path)) and not isinstance(value, bool) and value != ""
    return f"`{value}`" if wanted else ""
