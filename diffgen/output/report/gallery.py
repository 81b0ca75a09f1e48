"""What the script of the report shows: every made or failed image, as columns of equal length to keep the page small."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from diffgen.output.contact_sheet import COLOURS
from diffgen.output.outcome import Entry, Outcome
from diffgen.output.report.statistics import SCORES, Scores, label_text, short_row
from diffgen.types import Source

_SOURCE = ("name", "folder", "file", "width", "height", "label")
_JOB = ("id", "source", "condition", "verdict", "prompt", "settings", "seed", "attempt", *(s.name for s in SCORES))


def gallery(outcome: Outcome, scores: Sequence[Scores]) -> dict[str, Any]:
    """JSON-ready. Each source and each text is held once; `scores` are those of the outcome's entries.

    `jobs` are in plan order; `verdict` is an index into `reasons` (0: accepted). `errors`, `dropped`, `added` and `weak`
    (low confidence) are by index into `jobs`.
    """
    shown = [(entry, row) for entry, row in zip(outcome.entries, scores, strict=True) if entry.verdict is not None]
    texts = _Texts()
    sources = _Sources(outcome.folder, texts)
    jobs = [_job(entry, row, sources.number(entry.item.source), texts) for entry, row in shown]
    entries = list(enumerate(entry for entry, _ in shown))
    model = outcome.recipe.model
    return {
        "names": outcome.dataset.names,
        "colours": COLOURS,
        "keypoints": outcome.dataset.keypoints,
        "format": outcome.recipe.image.format,
        "model": model if isinstance(model, str) else "",
        "scores": [score.name for score in SCORES],
        **texts.lists(),
        "sources": _columns(_SOURCE, sources.rows),
        "jobs": _columns(_JOB, jobs),
        "errors": {i: entry.record.error for i, entry in entries if entry.record and entry.record.error},
        "dropped": {i: list(entry.dropped) for i, entry in entries if entry.dropped},
        "added": {i: [short_row(row.split()) for row in entry.added] for i, entry in entries if entry.added},
        "weak": [i for i, entry in entries if entry.low_confidence],
        "review": dict(outcome.review),
    }


class _Texts:
    """Texts that many images share, by kind, each with its place in the list of its kind."""

    def __init__(self) -> None:
        self._kinds: dict[str, dict[Any, int]] = {
            key: {} for key in ("reasons", "conditions", "prompts", "settings", "folders")
        }
        self.number("reasons", "")  # 0: accepted

    def number(self, kind: str, text: Any) -> int:
        return self._kinds[kind].setdefault(text, len(self._kinds[kind]))

    def lists(self) -> dict[str, list[Any]]:
        return {kind: list(found) for kind, found in self._kinds.items()}


@dataclass(slots=True)
class _Sources:
    """The sources of the images shown, each once."""

    folder: Path
    texts: _Texts
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)

    def number(self, source: Source) -> int:
        if source.key not in self.places:
            self.places[source.key] = len(self.places)
            place, _, file = href(source.path, self.folder).rpartition("/") if source.path else ("", "", "")
            folder = self.texts.number("folders", place)
            self.rows.append((source.key, folder, file, source.width, source.height, label_text(source)))
        return self.places[source.key]


def _job(entry: Entry, scores: Scores, source: int, texts: _Texts) -> tuple[Any, ...]:
    assert entry.verdict is not None
    job, settings = entry.item.job, entry.item.job.settings
    shown = f"strength {settings.strength:g}, steps {settings.steps}, guidance {settings.guidance:g}"
    return (
        job.id,
        source,
        texts.number("conditions", settings.condition),
        texts.number("reasons", entry.verdict.reason or ""),
        texts.number("prompts", job.prompt),
        texts.number("settings", (settings.model, shown)),
        job.seed,
        job.attempt,
        *scores,
    )


def _columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def href(path: str, folder: Path) -> str:
    """A relative URL of a file as seen from the page in `folder`; bytes that are not UTF-8 are quoted as they are."""
    place, _, file = path.rpartition(os.sep)
    return f"{folder_href(place, folder)}{quote(os.fsencode(file))}"


@lru_cache(maxsize=4096)  # many sources share few folders
def folder_href(place: str, folder: Path) -> str:
    relative = os.path.relpath(place or os.sep, folder)
    return "" if relative == "." else f"{quote(os.fsencode(relative))}/"
