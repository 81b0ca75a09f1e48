"""Pages without scripts in the report's style, for other commands."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup


def three(value: float | None) -> str:
    """A figure to three places; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def plain_page(package: str, name: str, **values: Any) -> str:
    """The HTML of a template in a package, with `style`, `values`, and the filter `three`."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["three"] = three
    style = Markup((files(__package__) / "report.css").read_text("utf-8"))
    return environment.from_string((files(package) / name).read_text("utf-8")).render(style=style, **values)
