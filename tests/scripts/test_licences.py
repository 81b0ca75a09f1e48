"""docs/licences.md: a row for everything that is installed and for every short name, as installed metadata and models.yaml state it."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest

from diffgen.models.aliases import aliases
from scripts.docs import licences
from scripts.docs.licences import PAGE, declared, licence_of, written


def test_every_package_has_a_row() -> None:
    page = PAGE.read_text("utf-8")
    assert written(page).keys() == declared().keys()
    assert {"torch", "ultralytics", "ray"} <= declared().keys()
    assert "pytest" not in declared()


@pytest.mark.parametrize("package", sorted(written(PAGE.read_text("utf-8"))))
def test_the_row_is_what_the_package_states(package: str) -> None:
    """After a package has changed its licence, which is worth knowing: python -m scripts.docs.licences --write."""
    stated = licence_of(package)
    if stated is None:
        pytest.skip(f"{package} is not installed, or its metadata say nothing")
    assert written(PAGE.read_text("utf-8"))[package].removesuffix(" and others") == stated.removesuffix(" and others")


def test_every_short_name_has_a_row_with_its_licence() -> None:
    rows = dict(
        re.findall(r"^\| `([^`]+)` \| [^|]* \| ([^|]*?) \| (?:yes)? *\|$", PAGE.read_text("utf-8"), re.MULTILINE)
    )
    assert {name: rows.get(name) for name in aliases()} == {name: spec["licence"] for name, spec in aliases().items()}


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("License-Expression: MIT", "MIT"),
        ("License-Expression: BSD-3-Clause AND 0BSD", "BSD-3-Clause and others"),
        ("License: Apache", "Apache-2.0"),
        ("License: Something Own", "Something Own"),
        ("License: a whole text, which is longer than any name of a licence", None),
        ("Classifier: License :: OSI Approved :: BSD License", "BSD-3-Clause"),
        (
            "License: Copyright, a long text of many words and no name\nClassifier: License :: OSI Approved :: MIT License",
            "MIT",
        ),
        ("Classifier: Programming Language :: Python", None),
    ],
)
def test_what_metadata_may_say(text: str, licence: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        info = Path(folder, "odd_package-1.0.dist-info")
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: odd-package\nVersion: 1.0\n{text}\n")
        monkeypatch.syspath_prepend(folder)
        assert licence_of("odd-package") == licence


def test_a_package_that_nobody_knows_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(licences, "declared", lambda: {"no-such-package": ""})
    with pytest.raises(SystemExit, match="no-such-package"):
        licences.packages_table(PAGE.read_text("utf-8"), anew=True)
