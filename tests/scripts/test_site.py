"""The docs site: it builds without a warning, leads everywhere, and fetches nothing from the network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built strictly: a page that is not in the navigation, a dead link or a dead anchor is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_the_docs_is_built(site: Path) -> None:
    built = {path.stem for path in site.glob("*.html")} - {"404"}
    assert built == {path.stem for path in (ROOT / "docs").glob("*.md")}


def test_no_page_loads_anything_from_the_network(site: Path) -> None:
    for page in site.glob("*.html"):
        text = page.read_text("utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?(\S+?)[\"'\s>]", text)
        loaded += re.findall(r"<link[^>]*rel=[\"']?(?:stylesheet|preconnect|icon)[^>]*href=[\"']?(\S+?)[\"'\s>]", text)
        assert loaded
        assert not [url for url in loaded if re.match(r"(?:https?:)?//", url)], page.name
        assert 'class="mermaid"' not in text, "the theme would fetch Mermaid"


def test_code_and_tables_are_rendered(site: Path) -> None:
    """No fence or row of a table is left as text, as Markdown for a site differs from that of code hosts."""
    for page in site.glob("*.html"):
        text = re.sub(r"<(pre|code)\b.*?</\1>", "", page.read_text("utf-8"), flags=re.DOTALL)
        assert "```" not in text, page.name
        assert "|---" not in text, page.name
        assert not re.search(r"<p>[^<]*\n- ", text), f"{page.name}: a list without a blank line before it"
