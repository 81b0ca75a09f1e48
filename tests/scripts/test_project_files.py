"""The files around the code: workflows, templates, citation, classifiers and the release say the same as the project does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from diffgen import __version__
from scripts.release import release_notes
from tests.fakes import put

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
SCHEMAS = {
    "vendor.github-workflows": sorted((GITHUB / "workflows").glob("*.yml")),
    "vendor.github-issue-forms": [GITHUB / "ISSUE_TEMPLATE/bug.yml", GITHUB / "ISSUE_TEMPLATE/idea.yml"],
    "vendor.github-issue-config": [GITHUB / "ISSUE_TEMPLATE/config.yml"],
    "vendor.dependabot": [GITHUB / "dependabot.yml"],
    "vendor.citation-file-format": [ROOT / "CITATION.cff"],
}
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_they_are_what_their_readers_take(schema: str) -> None:
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, SCHEMAS[schema])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_python_that_is_promised_is_tested() -> None:
    jobs = yaml.safe_load((GITHUB / "workflows/ci.yml").read_text("utf-8"))["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == PYTHONS
    assert {"check", "docs", "lowest", "wheel", "macos", "slow"} <= jobs.keys()
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project) == PYTHONS
    assert 'requires-python = ">=3.10"' in project
    assert "(3, 10) <= sys.version_info < (3, 14)" in (ROOT / "Makefile").read_text("utf-8")


def test_workflows_call_targets_that_make_has() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for path in SCHEMAS["vendor.github-workflows"]:
        assert set(re.findall(r"run: make ([a-z-]+)", path.read_text("utf-8"))) <= targets


def test_only_the_jobs_that_publish_may_write() -> None:
    for path in SCHEMAS["vendor.github-workflows"]:
        workflow = yaml.safe_load(path.read_text("utf-8"))
        assert workflow["permissions"] == {"contents": "read"}
        for name, job in workflow["jobs"].items():
            assert "timeout-minutes" in job
            assert ("permissions" in job) == (path.name == "release.yml" and name in ("pypi", "github"))


def test_before_a_commit_the_tools_of_make_check_run() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    names = {hook["entry"].removeprefix(".venv/bin/").split()[0] for hook in repository["hooks"]}
    assert {"ruff", "mypy", "lint-imports", "check-jsonschema"} <= names


def test_no_file_names_an_address_of_ours() -> None:
    """There is none yet: whoever publishes the project adds it in one place."""
    text = (ROOT / "SECURITY.md").read_text("utf-8") + (ROOT / "CITATION.cff").read_text("utf-8")
    assert not re.search(r"https?://|[\w.]+@[\w.]+\.\w+", text)


def test_the_citation_is_of_this_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == __version__


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_the_dockerfile_is_clean() -> None:
    done = subprocess.run(["hadolint", str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_copies_what_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert {name for names in copied for name in names.split()} == kept
    assert all((ROOT / name).exists() for name in kept)


def project(root: Path, *, version: str = "0.2.0", cited: str = "0.2.0", changelog: str = "") -> Path:
    put(root / "diffgen/version.py", f'__version__ = "{version}"\n')
    put(root / "CITATION.cff", f"cff-version: 1.2.0\nversion: {cited}\n")
    put(
        root / "CHANGELOG.md",
        changelog or "# Changelog\n\n## Unreleased\n\n## 0.2.0\n\n- New.\n\n## 0.1.0\n\n- First.\n",
    )
    return root


def test_a_release_has_the_notes_of_its_version(tmp_path: Path) -> None:
    assert release_notes("v0.2.0", project(tmp_path)) == "- New.\n"


@pytest.mark.parametrize(
    ("tag", "fields", "message"),
    [
        ("0.2.0", {}, "is tagged"),
        ("v0.2", {}, "is tagged"),
        ("v0.3.0", {}, "version.py says 0.2.0"),
        ("v0.2.0", {"cited": "0.1.0"}, "CITATION.cff says 0.1.0"),
        ("v0.2.0", {"changelog": "## Unreleased\n\n- Later.\n\n## 0.2.0\n\n- New.\n"}, "Unreleased"),
        ("v0.2.0", {"changelog": "## Unreleased\n\n## 0.1.0\n\n- First.\n"}, "no entry for 0.2.0"),
    ],
)
def test_a_release_that_does_not_agree_with_its_tag_is_refused(
    tag: str, fields: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        release_notes(tag, project(tmp_path, **fields))


def test_the_release_script_needs_nothing_installed(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", str(ROOT / "scripts/release.py"), "v99.0.0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"error: diffgen/version.py says {__version__}, the tag 99.0.0\n")
