"""What a release says: the changelog's entry of the version that a tag names.

    python -m scripts.release v0.2.0

Fails unless tag, version.py, CITATION.cff and the changelog agree. Needs nothing installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def release_notes(tag: str, root: Path = ROOT) -> str:
    """The text below the version's heading. Raises ValueError where something does not fit the tag."""
    version = tag.removeprefix("v")
    if tag == version or not re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?", version):
        raise ValueError(f"{tag}: a release is tagged v1.2.3")
    stated = {
        "diffgen/version.py": re.search(r'__version__ = "([^"]+)"', (root / "diffgen/version.py").read_text("utf-8")),
        "CITATION.cff": re.search(r"^version: (\S+)$", (root / "CITATION.cff").read_text("utf-8"), re.MULTILINE),
    }
    for name, found in stated.items():
        if found is None or found[1] != version:
            raise ValueError(f"{name} says {found and found[1]}, the tag {version}")
    parts = re.split(r"^## (\S+).*\n", (root / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)
    entries = dict(zip(parts[1::2], parts[2::2], strict=True))
    if entries.get("Unreleased", "").strip():
        raise ValueError(f"CHANGELOG.md: move what stands under Unreleased to {version}")
    if not entries.get(version, "").strip():
        raise ValueError(f"CHANGELOG.md has no entry for {version}")
    return entries[version].strip() + "\n"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} TAG")
    try:
        sys.stdout.write(release_notes(sys.argv[1]))
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
