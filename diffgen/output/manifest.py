"""One row of manifest.jsonl for each exported image."""

from __future__ import annotations

from typing import Any

from diffgen.checks.auto_labels import is_text2img
from diffgen.output.entries import ExportedImage
from diffgen.output.outcome import Judged


def manifest_row(entry: ExportedImage) -> dict[str, Any]:
    row: dict[str, Any] = {
        "image": f"images/{entry.split}/{entry.name}{entry.suffix}",
        "source": entry.source.key,
        "source_digest": entry.source.digest,
    }
    if entry.judged is None:
        return row if entry.source.problem is None else {**row, "not_edited": entry.source.problem}
    job, record = entry.judged.item.job, entry.judged.record
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
        "facts": record.facts,
        **({"dropped_rows": list(entry.judged.dropped)} if entry.judged.dropped else {}),
        **({"added_rows": list(entry.judged.added)} if entry.judged.added else {}),
        **(_label_origin(entry.judged) if is_text2img(record.facts) else {}),
    }


def _label_origin(judged: Judged) -> dict[str, Any]:
    """Whose word the labels are: `confidences` are of the label rows, in their order."""
    return {
        "label_origin": "detector",
        "label_detector": judged.item.job.settings.annotator,
        "confidences": list(judged.sure),
        "review": judged.weak,
    }
