"""The tables of docs/licences.md: of the packages that diffgen installs, and of the models that have a short name.

    python -m scripts.docs.licences --write

A package's licence is what its installed metadata say; the row of one that is not installed stays as it is.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path

from diffgen.models.aliases import aliases
from scripts.docs.tables import BEGIN, END, with_table

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/licences.md"
SCRIPT = "scripts.docs.licences"
# What packages call their licences, and SPDX's word for it.
SPDX = {
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "BSD License": "BSD-3-Clause",
    "FreeBSD": "BSD-2-Clause",
    "HPND": "MIT-CMU",
    "Historical Permission Notice and Disclaimer (HPND)": "MIT-CMU",
    "PSFL": "PSF-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def declared() -> dict[str, str]:
    """Package -> the extra that brings it, or "". Without `dev` and `docs`, which no user installs."""
    found = {}
    for line in requires("diffgen") or ():
        extra = re.search(r"extra == [\"'](\w+)", line)
        name = extra[1] if extra else ""
        if name not in ("dev", "docs"):
            found[re.split(r"[^\w.-]", line)[0]] = name
    return found


def licence_of(package: str) -> str | None:
    """The main licence of an installed package, "and others" where files of it have more; None if it is not installed."""
    try:
        found = metadata(package)
    except PackageNotFoundError:
        return None
    (expression, stated) = ("".join(found.get_all(key) or ()) for key in ("License-Expression", "License"))
    if expression:
        first, *others = expression.split(" AND ")
        return f"{first} and others" if others else first
    classified = [
        line.rpartition(" :: ")[2] for line in found.get_all("Classifier") or () if line.startswith("License ::")
    ]
    short = stated if 0 < len(stated) < 40 and "\n" not in stated else ""
    for word in (short, *classified):
        if word:
            return SPDX.get(word, word)
    return None


def written(page: str) -> dict[str, str]:
    """Package -> licence, as the page has it."""
    rows = page.partition(BEGIN.format(script=SCRIPT, name="packages"))[2].partition(END.format(name="packages"))[0]
    return dict(re.findall(r"^\| `([^`]+)` \| [^|]* \| ([^|]*?) \|$", rows, re.MULTILINE))


def packages_table(page: str, *, anew: bool) -> str:
    """A row for each declared package. With `anew` from its metadata, else as the page has it."""
    there = written(page)
    rows = []
    for package, extra in declared().items():
        licence = (licence_of(package) if anew else None) or there.get(package) or licence_of(package)
        if licence is None:
            raise SystemExit(f"the licence of {package} is not known here: install it, then run this again")
        rows.append(f"| `{package}` | {f'`diffgen[{extra}]`' if extra else 'always'} | {licence} |")
    return "\n".join(["| package | installed with | licence |", "|---|---|---|", *rows])


def models_table() -> str:
    """A row for each short name."""
    rows = []
    for name, spec in aliases().items():
        files = [
            f"`{spec['hub']}`" if "hub" in spec else "in the package",
            *(f"LoRA `{x['hub']}`" for x in spec.get("loras", ())),
        ]
        rows.append(f"| `{name}` | {', '.join(files)} | {spec['licence']} | {'yes' if spec.get('gated') else ''} |")
    return "\n".join(["| name | files | licence | to be accepted first |", "|---|---|---|---|", *rows])


def licences_page(page: str, *, anew: bool = False) -> str:
    page = with_table(page, "packages", packages_table(page, anew=anew) + "\n", SCRIPT)
    return with_table(page, "models", models_table() + "\n", SCRIPT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="the tables into docs/licences.md")
    page = licences_page(PAGE.read_text("utf-8"), anew=True)
    if parser.parse_args().write:
        PAGE.write_text(page, "utf-8")
    sys.stdout.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
