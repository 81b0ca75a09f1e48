"""What a stress test found, as text for a terminal and as a page for a safety case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffgen.files import shown, write_atomically
from diffgen.output.report.plain import plain_page, three


def stress_text(facts: Mapping[str, Any]) -> str:
    if facts["stopped"] is not None:
        return f"stopped   {facts['stopped']}; run the same command again to resume"
    folder, clean = shown(facts["folder"]), three(facts["clean"]["map50"])
    lines = [f"stress    {facts['pictures']} pictures, AP50 {clean} as they are  {folder}"]
    for cell in facts["cells"]:
        share = cell["lost"] / cell["found"] if cell["found"] else 0.0
        lines.append(
            f"  {cell['condition']:<14} {cell['severity']:<4g} AP50 {three(cell['map50'])}   loses {cell['lost']} of "
            f"{cell['found']} ({share:.0%})   {cell['pictures']} pictures"
        )
    lines += [f"finding   {line}" for line in facts["sentences"]]
    lines += [f"under     {line}, under {facts['fail_under']:g}" for line in facts["failed_under"]]
    return "\n".join([*lines, f"page      {folder}/report.html"])


def write_page(path: Path, facts: Mapping[str, Any]) -> None:
    """Write the page. It loads the gallery's pictures beside it, and nothing else."""
    tables = [cell["objects"] for cell in facts["cells"]]
    pairs = [(name, size) for name in facts["classes"].values() for size in ("small", "medium", "large")]
    columns = [(name, size) for name, size in pairs if any(table[name][size][0] for table in tables)]
    write_atomically(path, plain_page("diffgen.commands.stress", "stress.html.j2", facts=facts, columns=columns))
