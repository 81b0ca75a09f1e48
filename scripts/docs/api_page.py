"""The reference in docs/api.md: what `diffgen.__all__` names, from signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import diffgen
from scripts.docs.tables import with_table

SCRIPT = "scripts.docs.check"
FIRST = ("load_recipe", "plan_recipe", "run_recipe", "open_run", "export_run", "evaluate_run")  # as one uses them


def api_page(page: str) -> str:
    """`page`, docs/api.md as it is, with its reference written again."""
    others = [name for name in diffgen.__all__ if name not in FIRST and name != "__version__"]
    return with_table(
        page, "reference", "\n".join(_entry(name, getattr(diffgen, name)) for name in [*FIRST, *others]), SCRIPT
    )


def _entry(name: str, thing: Any) -> str:
    if not inspect.isclass(thing):
        return f"### {name}\n\n`{name}{_signature(thing)}`\n\n{_text(thing)}\n"
    members = "".join(_members(thing))
    return f"### {name}\n\n{_text(thing)}\n" + (f"\n{members}" if members else "")


def _members(cls: Any) -> Iterator[str]:
    """A line for each field, property and method of its own."""
    kind: Any = cls  # mypy takes it for a value after the next line
    if dataclasses.is_dataclass(cls):
        code = inspect.getsource(kind)
        remarks = dict(re.findall(r"^    (\w+): [^#\n]*# (.*)$", code, re.MULTILINE))
        for field in dataclasses.fields(cls):
            if not field.name.startswith("_"):
                yield _line(f"{field.name}: {field.type}", remarks.get(field.name, ""))
    for name, member in vars(cls).items():
        if name.startswith("_"):
            continue
        if isinstance(member, (property, cached_property)):
            get: Any = member.fget if isinstance(member, property) else member.func
            yield _line(f"{name}: {inspect.signature(get).return_annotation}", _text(get))
        elif inspect.isfunction(member):
            yield _line(f"{name}{_signature(member)}", _text(member))


def _line(what: str, text: str) -> str:
    return f"- `{what}`: {text[:1].lower()}{text[1:]}\n" if text else f"- `{what}`\n"


def _signature(function: Any) -> str:
    """Without the quotes that annotations have, and without `self`."""
    signature = inspect.signature(function)
    given = [parameter for parameter in signature.parameters.values() if parameter.name != "self"]
    return str(signature.replace(parameters=given)).replace("'", "")


def _text(documented: Any) -> str:
    return " ".join((inspect.getdoc(documented) or "").split())
