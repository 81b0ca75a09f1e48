"""The data of the report's gallery: every made or failed image, in columns of equal length to keep the page small."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from diffgen.checks.detections import COCO_SIZES
from diffgen.output.contact_sheet import COLOURS
from diffgen.output.outcome import Entry, Judging, Outcome
from diffgen.output.report.statistics import SCORES, Scores, label_text, short_row, thresholds_of
from diffgen.recipe.sections import Checks
from diffgen.types import Source

_SOURCE = ("name", "folder", "file", "width", "height", "label")
_JOB = ("id", "source", "condition", "verdict", "prompt", "settings", "seed", "attempt", *(s.name for s in SCORES))


def gallery(outcome: Outcome, scores: Sequence[Scores]) -> dict[str, Any]:
    """The gallery as a JSON-ready dict. Each source and text is stored once; `scores` belong to the outcome's entries.

    `jobs` are in plan order; `verdict` is an index into `reasons` (0: accepted). `errors`, `dropped`, `objects` (words
    about labelled objects), `added` and `weak` (low confidence) refer to jobs by index. `sizes` are names with the least
    square root of a box's area, in pixels; `scores` say whether higher is better, `thresholds` are by condition and score.
    """
    shown = [(entry, row) for entry, row in zip(outcome.entries, scores, strict=True) if entry.verdict is not None]
    texts = _Texts()
    sources = _Sources(outcome.folder, texts)
    jobs = [_job(entry, row, sources.number(entry.item.source), texts) for entry, row in shown]
    entries = list(enumerate(entry for entry, _ in shown))
    recipe, judging = outcome.recipe, Judging(outcome.recipe, outcome.dataset, outcome.review)
    return {
        "names": outcome.dataset.names,
        "colours": COLOURS,
        "keypoints": outcome.dataset.keypoints,
        "format": recipe.image.format,
        "model": model_name(recipe.model),
        "sizes": [(name, least) for name, (least, _) in COCO_SIZES.items()],
        "scores": {score.name: score.higher_is_better for score in SCORES},
        "thresholds": {condition.name: _thresholds(recipe.checks_for(condition)) for condition in recipe.conditions},
        **texts.lists(),
        "sources": _columns(_SOURCE, sources.rows),
        "jobs": _columns(_JOB, jobs),
        "errors": {i: entry.record.error for i, entry in entries if entry.record and entry.record.error},
        "dropped": {i: list(entry.dropped) for i, entry in entries if entry.dropped},
        "objects": {i: words for i, entry in entries if (words := judging.object_words(entry))},
        "added": {i: [short_row(row) for row in entry.added] for i, entry in entries if entry.added},
        "weak": [i for i, entry in entries if entry.low_confidence],
        "review": dict(outcome.review),
    }


def model_name(model: str | Mapping[str, Any]) -> str:
    """What people call a recipe's model: its alias or hub id, or the name of its file or folder."""
    if not isinstance(model, str):
        model = next(str(model[key]) for key in ("alias", "hub", "file", "folder") if key in model)
    return os.path.basename(model) if os.path.isabs(model) else model


def _thresholds(checks: Checks) -> dict[str, float]:
    pairs = zip(SCORES, thresholds_of(checks), strict=True)
    return {score.name: threshold for score, threshold in pairs if threshold is not None}


class _Texts:
    """Texts that many images share: by kind, each text with its index."""

    def __init__(self) -> None:
        self._kinds: dict[str, dict[Any, int]] = {
            key: {} for key in ("reasons", "conditions", "prompts", "settings", "folders")
        }
        self.number("reasons", "")  # 0: accepted

    def number(self, kind: str, text: Any) -> int:
        return self._kinds[kind].setdefault(text, len(self._kinds[kind]))

    def lists(self) -> dict[str, list[Any]]:
        return {kind: list(texts) for kind, texts in self._kinds.items()}


@dataclass(slots=True)
class _Sources:
    """The sources of the images shown, each once."""

    folder: Path
    texts: _Texts
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)

    def number(self, source: Source) -> int:
        if source.key not in self.numbers:
            self.numbers[source.key] = len(self.rows)
            folder, _, file = href(source.path, self.folder).rpartition("/") if source.path else ("", "", "")
            number = self.texts.number("folders", folder)
            self.rows.append((source.key, number, file, source.width, source.height, label_text(source)))
        return self.numbers[source.key]


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
    """The URL of a file relative to the page in `folder`; bytes that are not UTF-8 are percent-encoded unchanged."""
    parent, _, file = path.rpartition(os.sep)
    return f"{folder_href(parent, folder)}{quote(os.fsencode(file))}"


@lru_cache(maxsize=4096)  # many sources share few folders
def folder_href(path: str, folder: Path) -> str:
    """The URL of the folder `path` relative to `folder`, ending in "/" unless they are the same."""
    relative = os.path.relpath(path or os.sep, folder)
    return "" if relative == "." else f"{quote(os.fsencode(relative))}/"
