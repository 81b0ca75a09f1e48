"""Writes report.html: one file that opens from disk, needs no network and shows the run folder's own images.

Derived: safe to delete, and rewritten when its contents would change. Its text comes from untrusted files, so Jinja2
escapes HTML, data is JSON without '<', and the page may run only its own script.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from diffgen.checks.detections import COCO_SIZES
from diffgen.files import write_atomically
from diffgen.output.outcome import Outcome
from diffgen.output.report.gallery import folder_href, gallery
from diffgen.output.report.statistics import SCORES, by_class, by_condition, label_counts, scores_of
from diffgen.plan.remarks import plan_remark_lines
from diffgen.types import canonical, digest_of
from diffgen.version import __version__

NAME = "report.html"
_SCRIPTS = ("image.js", "gallery.js", "dialog.js")  # joined to the page's one script


def write_report(outcome: Outcome, totals: Mapping[str, Any], environments: Mapping[str, Any]) -> str:
    """Write report.html in the run folder unless it is up to date. Returns the digest of its contents.

    `totals` is the run's summary as in `status --json`; `environments` is that of run.json. Reads the run folder's
    recipe.yaml and the label files, decodes no image. Raises DiffgenError when the page cannot be written.
    """
    folder = outcome.folder
    recipe = (folder / "recipe.yaml").read_text("utf-8")
    digest = _digest(outcome, recipe, environments, totals["dataset"])
    if _written(folder / NAME) == digest:
        return digest
    scores = [scores_of(entry) for entry in outcome.entries]
    conditions = by_condition(outcome, scores)
    style, script = Markup(_asset("report.css")), Markup("".join(map(_asset, _SCRIPTS)))
    data = gallery(outcome, scores)
    page = _template().render(
        digest=digest,
        style=style,
        script=script,
        policy=_policy(style, script),
        version=__version__,
        run=folder.name,
        model=data["model"],
        totals=totals,
        remarks=list(plan_remark_lines(totals["dataset"])),
        conditions=conditions,
        scores=[score for score in SCORES if any(score.name in row.histograms for row in conditions)],
        classes=by_class(outcome),
        names=[condition.name for condition in outcome.recipe.conditions],
        attempts=outcome.recipe.attempts,
        sizes=list(COCO_SIZES),
        labels=label_counts(outcome),
        data=Markup(_script_json(data)),
        recipe=recipe,
        environments={key: yaml.safe_dump(details, sort_keys=True) for key, details in environments.items()},
    )
    # A path in the page may hold bytes that are not UTF-8.
    write_atomically(folder / NAME, page.encode("utf-8", "backslashreplace").decode("utf-8"))
    return digest


def _script_json(data: Any) -> str:
    """JSON that cannot close its script element. ASCII only, as some parsers end a line at U+2028."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")


def _policy(style: str, script: str) -> str:
    """The Content-Security-Policy: this page's own style and script, images next to the page, and nothing else."""
    styles, scripts = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    return (
        f"default-src 'none'; img-src 'self' file:; style-src 'sha256-{styles}'; script-src 'sha256-{scripts}'; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _asset(name: str) -> str:
    return (files("diffgen.output.report") / name).read_text("utf-8")


@cache
def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("report.html.j2"))


def _digest(outcome: Outcome, recipe: str, environments: Mapping[str, Any], remarks: Mapping[str, Any]) -> str:
    """Changes when the page would: it shows outcome, run name, versions, machines, decisions, remarks and source paths."""
    head = canonical([__version__, outcome.folder.name, dict(outcome.review), environments, recipe, remarks])
    assets = [_asset(name) for name in ("report.html.j2", "report.css", *_SCRIPTS)]
    folders = sorted({source.path.rpartition(os.sep)[0] for source in outcome.plan.sources})
    links = [folder_href(folder, outcome.folder) for folder in folders]
    parts = (head, outcome.fingerprint(exported=False), *assets, *links)
    return digest_of(*(part.encode("utf-8", "backslashreplace") for part in parts))


def _written(path: Path) -> str | None:
    """The digest in the second line of the report. A half-written report cannot exist: it is written atomically."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            file.readline()
            return file.readline().removeprefix("<!-- diffgen ").removesuffix(" -->\n")
    except OSError:
        return None
