"""Pictures of a user's own target: unlabelled, to bring edits towards."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path

from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.images import SUFFIXES
from diffgen.errors import UsageError, why
from diffgen.files import file_sha256, stamp


@dataclass(frozen=True, slots=True)
class Target:
    """A picture by its content. `digest` is the first 32 hex digits of its sha256, as `Source.image_digest` is."""

    digest: str
    path: str


def read_targets(pattern: Path, cache: FileCache, key: str = "match.folder") -> tuple[Target, ...]:
    """The pictures of a folder (and those below it), or that a pattern such as night/*.jpg names; each once, by digest.
    Raises UsageError if there is none, or one cannot be read; `key` is what the user wrote the pattern for."""
    if pattern.is_dir():
        found = [path for path in pattern.rglob("*") if path.is_file()]
    else:
        found = [Path(name) for name in glob.glob(str(pattern), recursive=True) if os.path.isfile(name)]
    pictures = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
    if not pictures:
        raise UsageError(
            f"{key}: there is no picture in {pattern} or no such folder",
            "give a folder of pictures, or a pattern: night/*.jpg",
        )
    targets: dict[str, Target] = {}
    for path in pictures:
        try:
            digest = cache.known("target", path, stamp([path]), lambda path=path: file_sha256(path))[:32]  # type: ignore[misc]
        except OSError as error:
            raise UsageError(
                f"{key}: {path}: cannot read it: {why(error)}", "remove it, or check its permissions"
            ) from None
        targets.setdefault(digest, Target(digest, os.path.abspath(path)))
    return tuple(targets[digest] for digest in sorted(targets))
