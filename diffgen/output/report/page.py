"""A judged plan → report.html: one file that opens from disk, needs no network and shows the run folder's own images.

Derived: safe to delete, written anew when it would say something else. All text in it comes from files that anybody may
have written: HTML is escaped by Jinja2, data is JSON without '<', and the page may run only its own script.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from diffgen import __version__
from diffgen.checks.detections import COCO_SIZES
from diffgen.files import write_atomically
from diffgen.output.contact_sheet import COLOURS
from diffgen.output.outcome import Judged
from diffgen.output.report.statistics import (
    SCORES,
    Labelled,
    Scores,
    by_class,
    by_condition,
    label_counts,
    read_labels,
    scores_of,
    short_row,
)
from diffgen.plan.plan import Plan
from diffgen.recipe.schema import Recipe
from diffgen.types import canonical, digest_of

NAME = "report.html"


def write_report(
    folder: Path,
    plan: Plan,
    recipe: Recipe,
    judged: Sequence[Judged],
    totals: Mapping[str, Any],
    environments: Mapping[str, Any],
) -> str:
    """Write `folder`/report.html when it is not already what the run folder says. Returns the report's digest.

    `totals` is the summary of the run as `status --json` gives it; `environments` is that of run.json. Reads
    recipe.yaml of `folder` and the labels, decodes no image. Raises DiffgenError when the disk does not take the page.
    """
    text = (folder / "recipe.yaml").read_text("utf-8")
    digest = _digest(folder, plan, judged, text, environments)
    if _written(folder / NAME) == digest:
        return digest
    labels = read_labels(plan)
    scores = [scores_of(entry) for entry in judged]
    conditions = by_condition(judged, scores, recipe)
    style, script = (Markup(_asset(f"report.{kind}")) for kind in ("css", "js"))
    page = _template().render(
        digest=digest,
        style=style,
        script=script,
        policy=_policy(style, script),
        version=__version__,
        totals=totals,
        conditions=conditions,
        scores=[score for score in SCORES if any(score.name in row.histograms for row in conditions)],
        classes=by_class(judged, plan.dataset.names, labels, recipe.checks.structure),
        attempts=recipe.attempts,
        sizes=list(COCO_SIZES),
        labels=label_counts(plan, recipe, judged, labels),
        data=Markup(_script_json(gallery(folder, plan, recipe, judged, scores, labels))),
        recipe=text,
        environments={key: yaml.safe_dump(details, sort_keys=True) for key, details in environments.items()},
    )
    # A path in it need be no UTF-8.
    write_atomically(folder / NAME, page.encode("utf-8", "backslashreplace").decode("utf-8"))
    return digest


def gallery(
    folder: Path,
    plan: Plan,
    recipe: Recipe,
    judged: Sequence[Judged],
    scores: Sequence[Scores],
    labels: Mapping[str, Labelled],
) -> dict[str, Any]:
    """What the page's script shows, JSON-ready: columns of equal length, each source and each text once.

    `jobs` are the images that were made or failed, in plan order; `verdict` is an index into `reasons` (0: accepted).
    """
    texts: dict[str, dict[Any, int]] = {key: {} for key in ("conditions", "prompts", "settings", "folders")}

    def number(kind: str, text: Any) -> int:
        return texts[kind].setdefault(text, len(texts[kind]))

    sources: dict[str, list[Any]] = {key: [] for key in ("name", "folder", "file", "width", "height", "label")}
    places: dict[str, int] = {}
    reasons = {"": 0}
    names = [score.name for score in SCORES]
    jobs: dict[str, list[Any]] = {
        key: [] for key in ("id", "source", "condition", "verdict", "prompt", "settings", "seed", "attempt", *names)
    }
    errors: dict[int, str] = {}
    dropped: dict[int, list[int]] = {}
    added: dict[int, list[str]] = {}
    weak: list[int] = []
    for entry, measured in zip(judged, scores, strict=True):
        if entry.record is None or entry.verdict is None:
            continue
        source, job = entry.item.source, entry.item.job
        if source.key not in places:
            places[source.key] = len(places)
            place, _, file = _href(source.path, folder).rpartition("/") if source.path else ("", "", "")
            label = labels[source.key].text if source.key in labels else ""
            facts = source.key, number("folders", place), file, source.width, source.height, label
            for column, value in zip(sources.values(), facts, strict=True):
                column.append(value)
        s = job.settings
        row = (
            job.id,
            places[source.key],
            number("conditions", s.condition),
            reasons.setdefault(entry.verdict.reason or "", len(reasons)),
            number("prompts", job.prompt),
            number("settings", (s.model, f"strength {s.strength:g}, steps {s.steps}, guidance {s.guidance:g}")),
            job.seed,
            job.attempt,
            *measured,
        )
        if entry.record.error:
            errors[len(jobs["id"])] = entry.record.error
        if entry.dropped:
            dropped[len(jobs["id"])] = list(entry.dropped)
        if entry.added:
            added[len(jobs["id"])] = [short_row(row.split()) for row in entry.added]
        if entry.weak:
            weak.append(len(jobs["id"]))
        for column, value in zip(jobs.values(), row, strict=True):
            column.append(value)
    return {
        "names": plan.dataset.names,
        "colours": COLOURS,
        "keypoints": plan.dataset.keypoints,
        "format": recipe.image.format,
        "model": recipe.model if isinstance(recipe.model, str) else "",
        "scores": names,
        "reasons": list(reasons),
        **{kind: list(found) for kind, found in texts.items()},
        "sources": sources,
        "jobs": jobs,
        "errors": errors,
        "dropped": dropped,
        "added": added,
        "weak": weak,
        "review": dict(plan.review),
    }


def _href(path: str, folder: Path) -> str:
    """A relative URL of a file as seen from the page; bytes that are no UTF-8 stay the bytes they are."""
    place, _, file = path.rpartition(os.sep)
    return f"{_folder_href(place, folder)}{quote(os.fsencode(file))}"


@lru_cache(maxsize=4096)  # many sources lie in few folders
def _folder_href(place: str, folder: Path) -> str:
    relative = os.path.relpath(place or os.sep, folder)
    return "" if relative == "." else f"{quote(os.fsencode(relative))}/"


def _script_json(data: Any) -> str:
    """JSON that nothing in it can end the script element of; also for parsers that end a line at U+2028."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")


def _policy(style: str, script: str) -> str:
    """The Content-Security-Policy: this page's own style and script, images of where the page lies, and nothing else."""
    own, run = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    return (
        f"default-src 'none'; img-src 'self' file:; style-src 'sha256-{own}'; script-src 'sha256-{run}'; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _asset(name: str) -> str:
    return (files("diffgen.output.report") / name).read_text("utf-8")


@cache
def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("report.html.j2"))


def _digest(folder: Path, plan: Plan, judged: Sequence[Judged], recipe: str, environments: Mapping[str, Any]) -> str:
    """Of everything that the page says: it changes when the page would."""

    def rows() -> Iterator[str]:
        for source in plan.sources:
            yield f"{source.key} {source.digest} {_href(source.path, folder)}"
        for entry in judged:
            record = entry.record
            made = record and f"{record.sha256} {record.environment} {record.error}"
            labels = f"{entry.dropped} {entry.added} {entry.weak}"
            yield f"{entry.item.job.id} {entry.item.source.key} {made} {entry.verdict} {labels}"

    head = canonical([__version__, plan.dataset.names, dict(plan.review), environments, recipe])
    assets = [_asset(f"report.{kind}") for kind in ("html.j2", "css", "js")]
    return digest_of(*(part.encode("utf-8", "backslashreplace") for part in (head, *assets, *rows())))


def _written(path: Path) -> str | None:
    """The digest in the second line of a whole report; it is written atomically, so that a half one cannot be."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            file.readline()
            return file.readline().removeprefix("<!-- diffgen ").removesuffix(" -->\n")
    except OSError:
        return None
