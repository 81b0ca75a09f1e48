"""Tables of the documentation that a script writes, each between two markers that name the script."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

BEGIN = "<!-- written by `python -m {script} --write`: {name} -->\n"
END = "<!-- end of {name} -->\n"


def with_table(page: str, name: str, table: str, script: str) -> str:
    """`page` with the table between the two markers of that name. Raises ValueError unless it has just one such place."""
    begin, end = BEGIN.format(script=script, name=name), END.format(name=name)
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page needs one place for the table '{name}'")
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{table}\n{end}{after}"


def write_table(path: Path, name: str, table: str, script: str) -> None:
    """Raises ValueError unless the page has just one place for it."""
    path.write_text(with_table(path.read_text(encoding="utf-8"), name, table + "\n", script), encoding="utf-8")


def measured(what: str) -> str:
    """A line that says what was measured, when and on what."""
    return f"*{what}; {datetime.date.today().isoformat()}, {os.cpu_count()} shared CPU cores ({platform.machine()}).*"
