"""The results of an evaluation as text for a terminal, and as a page in the report's style."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffgen.files import shown, write_atomically
from diffgen.output.report.plain import plain_page, three

WORDS = {
    "shown": "shown: the synthetic images help",
    "harm shown": "harm shown: the synthetic images harm",
    "not shown": "not shown: no effect beyond chance was found",
    None: "no verdict yet: not every arm has trained all seeds",
}


def results_text(facts: Mapping[str, Any]) -> str:
    """The results for a terminal."""
    folder, left = shown(facts["folder"]), f"{facts['left']} trainings left"
    lines = [f"eval      {folder}: {facts['seeds_done']} of {facts['seeds']} seeds, {left}"]
    for name, test in facts["tests"].items():
        lines += ["", *_test_lines(name, test)]
    lines += ["", f"verdict   {WORDS[facts['verdict']]}"]
    lines += [f"warning   {line}" for line in facts["warnings"]]
    return "\n".join([*lines, f"page      {folder}/report.html"])


def _test_lines(name: str, test: Mapping[str, Any]) -> Iterator[str]:
    yield f"{name}: {test['pictures']} pictures, {test['objects']} objects of {', '.join(test['classes'].values())}"
    longest = max(10, *map(len, test["arms"]))
    yield f"  {'arm':<{longest}} seeds    AP50      ±  AP50-95  small  medium  large  FP/image"
    for arm, row in test["arms"].items():
        widths = (("small", 5), ("medium", 6), ("large", 5))
        sizes = "  ".join(f"{three(row['sizes'][size]):>{width}}" for size, width in widths)
        spread, wrong = three(row["ap50_sd"]), row["wrong_a_picture"]
        yield (
            f"  {arm:<{longest}} {row['seeds']:>5}  {three(row['ap50']):>6}  {spread:>5}  {three(row['ap']):>7}  "
            f"{sizes}  {'–' if wrong is None else f'{wrong:.2f}':>8}"
        )
    for row in test["contrasts"]:
        low, high = row["interval"]
        yield (
            f"  {row['first']} − {row['second']}: {row['difference']:+.3f} [{low:+.3f}, {high:+.3f}], "
            f"p {row['p_corrected']:.3f}: {row['verdict']}"
        )
    gap = test.get("gap_closed")
    if gap is not None:
        low, high = gap["interval"]
        yield f"  {gap['share']:.0%} of the gap to real pictures of the condition is closed [{low:.0%}, {high:.0%}]"


def write_page(path: Path, facts: Mapping[str, Any]) -> None:
    """Write the page. It loads nothing."""
    write_atomically(path, plain_page("diffgen.commands.eval", "eval.html.j2", facts=facts, words=WORDS))
