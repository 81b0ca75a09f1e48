"""One line of manifest.jsonl for each exported image. docs/manifest.md describes the keys."""

from __future__ import annotations

from typing import Any

from diffgen.checks.auto_labels import is_text2img
from diffgen.checks.statistics import STATISTICS
from diffgen.output.entries import ExportedImage
from diffgen.output.outcome import Entry
from diffgen.types import Record, reading_facts


def manifest_row(image: ExportedImage) -> dict[str, Any]:
    """The line as a JSON-ready dict. A source's own image has only its origin and, if any, why it was not edited."""
    source, entry = image.source, image.entry
    row: dict[str, Any] = {"image": image.image, "source": source.key, "source_digest": source.digest}
    if entry is None:
        return row if source.problem is None else {**row, "not_edited": source.problem}
    job, record = entry.item.job, entry.record
    assert record is not None
    return {
        **row,
        "job": job.id,
        "condition": job.settings.condition,
        "variant": job.variant,
        "attempt": job.attempt,
        "prompt": job.prompt,
        "seed": job.seed,
        "model": job.settings.model,
        "sha256": record.sha256,
        "facts": named_facts(record),
        **({"dropped_rows": list(entry.dropped)} if entry.dropped else {}),
        **({"added_rows": list(entry.added)} if entry.added else {}),
        **(_label_origin(entry) if is_text2img(record.facts) else {}),
    }


def named_facts(record: Record) -> dict[str, Any]:
    """The facts of a record with a name for every number; records keep some as bare lists to stay small."""
    facts = dict(record.facts)
    with reading_facts(record):
        for key in ("before", "after"):
            if key in facts:
                facts[key] = dict(zip(STATISTICS, facts[key], strict=False))  # an older diffgen recorded fewer
        if "clip" in facts:
            facts["clip"] = dict(zip(("source", "edit"), facts["clip"], strict=True))
        if "detections" in facts:
            facts["detections"] = [{"class": row[0], "score": row[1], "box": row[2:]} for row in facts["detections"]]
    return facts


def _label_origin(entry: Entry) -> dict[str, Any]:
    """What labelled a text-to-image picture. `confidences` belong to the label rows, in order."""
    return {
        "label_origin": "detector",
        "label_detector": entry.item.job.settings.annotator,
        "confidences": list(entry.confidences),
        "review": entry.low_confidence,
    }
