"""A person's decisions about images: a YAML file of job ids, each with `reject` or `keep`."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Literal

import yaml

from diffgen.errors import UsageError
from diffgen.recipe.yaml_reader import compose

REVIEW_FILE = "review.yaml"  # the run folder's own copy

Decision = Literal["reject", "keep"]
Review = Mapping[str, Decision]


def read_review(path: Path, known: Container[str] | None = None) -> dict[str, Decision]:
    """Read decisions by job id; an empty file has none. With `known`, a job id outside it is an error.

    Raises UsageError with the line.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{path}: cannot be read: {reason}", "give a review.yaml saved by the report") from None
    root = compose(text, path)
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{path}:{root.start_mark.line + 1}: not a review", "write one 'JOB_ID: reject' on each line")
    review: dict[str, Decision] = {}
    for key, value in root.value:
        where = f"{path}:{key.start_mark.line + 1}"
        # The text as written, not its YAML value: an id that has only digits must not become a number.
        word = value.value if isinstance(value, yaml.ScalarNode) else None
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"{where}: a job id must be text", "write 'JOB_ID: reject'")
        if known is not None and key.value not in known:
            raise UsageError(
                f"{where}: this run folder has no job '{key.value}'", "remove the line, or give a review of this run"
            )
        if word not in ("reject", "keep"):
            shown = f"'{word}'" if word is not None else "this"
            raise UsageError(f"{where}: {shown} is not a decision", "write 'reject' or 'keep'")
        review[key.value] = word
    return review
