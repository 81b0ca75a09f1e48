"""The report as a parsed page, for the tests of this folder."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Page(HTMLParser):
    """Elements with their attributes, and the text of scripts, styles, table rows and preformatted parts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "tr": [], "pre": [], "li": []}
        self._open: list[str] = []
        self.feed(path.read_text("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("th", "td"):
            self.texts["tr"][-1] += "\t"
        if tag in self.texts:
            self.texts[tag].append("")
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        for tag in self._open[-1:]:
            self.texts[tag][-1] += data

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.texts["script"][0])
        return found

    def rows(self, name: str) -> list[list[str]]:
        """The cells of the table rows that begin with `name`, its own left out."""
        rows = [[cell.strip() for cell in text.split("\t")[1:]] for text in self.texts["tr"]]
        return [row[1:] for row in rows if row[0] == name]


def report(out: Path) -> Page:
    return Page(out / "report.html")
