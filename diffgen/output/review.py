"""A person's decisions about single images: a YAML file of job ids, each with `reject` or `keep`."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Literal

import yaml

from diffgen.errors import UsageError
from diffgen.recipe.yaml_reader import compose

KEPT_AS = "review.yaml"  # in the run folder: the review that holds there

Decision = Literal["reject", "keep"]
Review = Mapping[str, Decision]


def read_review(path: Path, known: Container[str] | None = None) -> dict[str, Decision]:
    """Job id → decision; an empty file holds none. With `known`, a job id outside it is an error.

    Raises UsageError, which names the line.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{path}: cannot be read: {reason}", "give the review.yaml that the report saved") from None
    root = compose(text, path)
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{path}:{root.start_mark.line + 1}: not a review", "write one 'JOB_ID: reject' on each line")
    review: dict[str, Decision] = {}
    for key, value in root.value:
        where = f"{path}:{key.start_mark.line + 1}"
        # The text as written and not its YAML value: an id of digits alone is no number.
        word = value.value if isinstance(value, yaml.ScalarNode) else None
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"{where}: a job id must be text", "write 'JOB_ID: reject'")
        if known is not None and key.value not in known:
            raise UsageError(
                f"{where}: this run folder has no job '{key.value}'", "take the line out, or give this run's own review"
            )
        if word not in ("reject", "keep"):
            said = f"'{word}'" if word is not None else "this"
            raise UsageError(f"{where}: {said} is not a decision", "write 'reject' or 'keep'")
        review[key.value] = word
    return review
