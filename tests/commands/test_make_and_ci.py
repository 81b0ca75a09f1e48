"""Makefile and CI as they are used: GNU make and bash run what `init` writes, as a runner would.

diffgen is a process of its own with a fake editor. pip, apt-get, yolo and the actions that keep files are stand-ins.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffgen.commands.init import write_starter
from tests.fakes import make_dataset, put, recipe_fields

ROOT = Path(__file__).resolve().parents[2]
IMAGES = 8  # two conditions of four pictures

# MINUTES: how long a batch takes, by the clock of the process. LIMIT: --max-minutes. DIES: the batch that the process does
# not survive, as when a runner's time is over. One batch is in progress at once, so that each that was made is committed.
DIFFGEN = """
import functools, os, signal, sys, time
from tests.fakes import FakeEditor, fake_worker
from diffgen import cli
from diffgen.run import loop
from diffgen.run.executors import local as executor

executor.OVERLAP = 1
clock, batches = time.monotonic, []
time.monotonic = lambda: clock() + 60 * float(os.environ.get("MINUTES", 0)) * len(batches)

class Slow(FakeEditor):
    def begin(self, batch):
        if str(len(batches)) == os.environ.get("DIES"):
            os.kill(os.getpid(), signal.SIGKILL)
        batches.append(batch)
        with open(os.environ["LOG"], "a") as log:
            print("made", len(batch.jobs), file=log)

loop.run = functools.partial(loop.run, make_worker=lambda: fake_worker(Slow()))
limit = ["--max-minutes", os.environ["LIMIT"]] if "LIMIT" in os.environ else []
sys.exit(cli.main(sys.argv[1:] + limit))
"""
YOLO = """#!/bin/bash -e
data=${2#data=}
test -f "$data"
images=("$(dirname "$data")"/images/train/*)
echo "trained ${#images[@]}" >> "$LOG"
"""


@dataclass
class Project:
    """A repository with a dataset, what `init` wrote for it, and the commands on PATH."""

    root: Path
    recipe: Path  # as seen from the root
    tools: Path
    log: Path

    def settings(self, **fields: Any) -> None:
        """Write the recipe anew: two conditions that the fake editor can make, into the folder that `init` chose."""
        path = self.root / self.recipe
        output = yaml.safe_load(path.read_text())["output"]
        dataset = os.path.relpath(self.root / "data/data.yaml", path.parent)
        put(path, yaml.safe_dump(recipe_fields(Path(dataset), output, **fields)))

    def file(self, end: str) -> Path:
        return self.root / self.recipe.with_name(self.recipe.stem + end)

    def bash(self, script: str, folder: Path, **variables: Any) -> int:
        """The exit code of a script, as a runner starts it."""
        path = put(self.log.with_name("step.sh"), script)
        return self.call("bash", "--noprofile", "--norc", "-eo", "pipefail", path, folder=folder, **variables)

    def call(self, *command: Any, folder: Path | None = None, **variables: Any) -> int:
        given = {
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "LOG": str(self.log),
            **variables,
        }
        environment = {**os.environ, **{key: str(value) for key, value in given.items()}}
        return subprocess.run([str(part) for part in command], cwd=folder or self.root, env=environment).returncode

    def make(self, target: str, **variables: Any) -> int:
        return self.call("make", target, **variables)

    def logged(self) -> list[str]:
        """What was made and trained since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines

    def change_a_label(self) -> None:
        put(self.root / "data/labels/train/00.txt", "0 0.4 0.4 0.3 0.4\n")


def made(lines: list[str]) -> int:
    return sum(int(line.split()[1]) for line in lines if line.startswith("made"))


def trained(lines: list[str]) -> list[int]:
    """The number of training images of each training."""
    return [int(line.split()[1]) for line in lines if line.startswith("trained")]


@pytest.fixture
def new_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Project]:
    def new(name: str = "configs/winter.yaml") -> Project:
        root, tools = tmp_path / "repository", tmp_path / "tools"
        make_dataset(root / "data")
        monkeypatch.chdir(root)
        write_starter(Path("data"), Path(name))
        driver = put(tmp_path / "driver.py", DIFFGEN)
        put(tools / "diffgen", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(driver))} "$@"\n')
        put(tools / "yolo", YOLO)
        for tool in ("pip", "apt-get"):
            put(tools / tool, "#!/bin/sh\n")
        for tool in tools.iterdir():
            tool.chmod(0o755)
        project = Project(root, Path(name), tools, tmp_path / "log")
        put(root / "Makefile", f"include {project.file('.mk').relative_to(root)}\n" if " " not in name else "")
        project.settings(require={"accepted": 1})
        return project

    return new


@pytest.fixture
def project(new_project: Callable[..., Project]) -> Project:
    return new_project()


REJECT_ALL = {"contrast": 1}

# A Makefile in which the training is a file that depends on the dataset.
WEIGHTS = """
weights.pt: runs/winter/dataset/data.yaml
	yolo train data=$<
	touch $@
"""


def test_make_trains_when_enough_is_accepted(project: Project) -> None:
    assert project.make("train-winter") == 0
    lines = project.logged()
    assert (made(lines), trained(lines)) == (IMAGES, [4 + IMAGES])
    assert project.make("train-winter") == 0
    assert project.logged() == ["trained 12"]


def test_make_does_not_train_below_require_however_often_it_is_called(project: Project) -> None:
    project.settings(require={"accepted": 1}, checks=REJECT_ALL)
    for images in (IMAGES, 0):
        assert project.make("train-winter") == 2
        lines = project.logged()
        assert (made(lines), trained(lines)) == (images, [])
        assert (project.root / "runs/winter/dataset/data.yaml").exists()  # which is why make must not go by it alone
    project.settings(require={"accepted": 1})
    assert project.make("train-winter") == 0
    assert project.logged() == ["trained 12"]


def test_make_does_not_train_after_a_stop_and_goes_on_when_called_again(project: Project) -> None:
    assert project.make("train-winter", MINUTES=10, LIMIT=15) == 2
    before = project.logged()
    assert 0 < made(before) < IMAGES
    assert project.make("train-winter") == 0
    after = project.logged()
    assert made(before) + made(after) == IMAGES
    assert (trained(before), trained(after)) == ([], [12])


def test_make_sees_a_changed_label_and_trains_on_nothing_else(project: Project) -> None:
    with (project.root / "Makefile").open("a") as makefile:
        makefile.write(WEIGHTS)
    assert project.make("weights.pt") == 0
    assert trained(project.logged()) == [12]
    assert project.make("weights.pt") == 0
    assert project.logged() == []
    project.change_a_label()
    assert project.make("weights.pt") == 0
    lines = project.logged()
    assert (made(lines), trained(lines)) == (2, [12])


@dataclass
class Server:
    """What a CI server keeps from job to job. Each job begins with a new copy of the repository, or with nothing."""

    project: Project
    caches: dict[str, Path] = field(default_factory=dict)  # in the order in which they were saved
    artifacts: dict[str, Path] = field(default_factory=dict)
    jobs: int = 0
    codes: list[int] = field(default_factory=list)  # of the dataset job, attempt by attempt

    def folder(self, checkout: bool) -> Path:
        self.jobs += 1
        folder = self.project.log.with_name(f"job-{self.jobs}")
        if checkout:
            shutil.copytree(self.project.root, folder)
        else:
            folder.mkdir()
        return folder

    def keep(self, kind: dict[str, Path], name: str, folder: Path, paths: list[str]) -> None:
        """Copy what is there of the paths."""
        kept = self.project.log.with_name(f"kept-{len(list(self.project.log.parent.glob('kept-*')))}")
        kept.mkdir()
        for path in paths:
            copy(folder / path, kept / path)
        kind.pop(name, None)
        kind[name] = kept


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


class GitHub(Server):
    attempt = 0

    def pipeline(self, **variables: Any) -> None:
        self.attempt += 1
        self.artifacts.clear()
        self.codes = []
        workflow = yaml.safe_load(self.project.file("-github.yml").read_text())
        jobs = workflow["jobs"]
        assert (list(jobs), jobs["train"]["needs"]) == (["dataset", "train"], "dataset")
        code = self.job(jobs["dataset"]["steps"], variables)
        self.codes.append(code)
        if code == 0:
            assert self.job(jobs["train"]["steps"], variables) == 0

    def job(self, steps: list[dict[str, Any]], variables: dict[str, Any]) -> int:
        """The exit code of its first step that fails."""
        folder = self.folder(checkout=False)
        summary = folder.with_suffix(".md")
        failure = 0
        for step in steps:
            assert step.get("if") in (None, "always()")
            if failure and "if" not in step:
                continue
            if "run" in step:
                code = self.project.bash(step["run"], folder, GITHUB_STEP_SUMMARY=summary, **variables)
                failure = failure or code
            else:
                self.action(step["uses"].partition("@")[0], self.filled(step.get("with", {})), folder)
        assert "diffgen status" not in str(steps) or "images accepted" in summary.read_text()
        return failure

    def filled(self, given: dict[str, Any]) -> dict[str, str]:
        known = {"${{ github.run_id }}": "77", "${{ github.run_attempt }}": str(self.attempt)}
        return {key: re.sub(r"\$\{\{.*?\}\}", lambda found: known[found[0]], str(text)) for key, text in given.items()}

    def action(self, name: str, given: dict[str, str], folder: Path) -> None:
        if name == "actions/checkout":
            shutil.copytree(self.project.root, folder, dirs_exist_ok=True)
        elif name == "actions/cache/restore":
            for key, kept in reversed(self.caches.items()):
                if key == given["key"] or key.startswith(given["restore-keys"]):
                    return copy(kept, folder)
        elif name == "actions/cache/save":
            assert given["key"] not in self.caches  # what is saved under a key is never replaced
            self.keep(self.caches, given["key"], folder, [given["path"]])
        elif name == "actions/upload-artifact":
            if len(paths := given["path"].split()) > 1:
                self.keep(self.artifacts, given["name"], folder, paths)
            else:  # the names in it begin at the folder
                self.keep(self.artifacts, given["name"], folder / paths[0], ["."])
        elif name == "actions/download-artifact":
            copy(self.artifacts[given["name"]], folder / given["path"])
        else:
            assert name == "actions/setup-python"
        return None


class GitLab(Server):
    def pipeline(self, **variables: Any) -> None:
        self.artifacts.clear()
        self.codes = []
        parts = yaml.safe_load(self.project.file("-gitlab.yml").read_text())
        jobs = {name: {**parts[job["extends"]], **job} for name, job in parts.items() if not name.startswith(".")}
        dataset, train = jobs
        assert jobs[train]["needs"] == [dataset]
        retry = jobs[dataset]["retry"]
        for _ in range(1 + retry["max"]):
            self.codes.append(self.job(dataset, jobs[dataset], variables))
            if self.codes[-1] not in retry["exit_codes"]:
                break
        if self.codes[-1] == 0:
            assert self.job(train, jobs[train], variables) == 0

    def job(self, name: str, job: dict[str, Any], variables: dict[str, Any]) -> int:
        folder = self.folder(checkout=True)
        for needed in job.get("needs", []):
            copy(self.artifacts[needed], folder)
        cache, artifacts = job.get("cache"), job.get("artifacts")
        if cache and cache["key"] in self.caches:
            copy(self.caches[cache["key"]], folder)
        code = self.project.bash("\n".join([*job["before_script"], *job["script"]]), folder, **variables)
        if cache and (code == 0 or cache["when"] == "always"):
            self.keep(self.caches, cache["key"], folder, cache["paths"])
        if artifacts and (code == 0 or artifacts["when"] == "always"):
            self.keep(self.artifacts, name, folder, artifacts["paths"])
        return code


@pytest.fixture(params=[GitHub, GitLab])
def server(request: pytest.FixtureRequest, project: Project) -> GitHub | GitLab:
    return request.param(project)  # type: ignore[no-any-return]


def test_a_pipeline_hands_the_dataset_to_the_training(server: GitHub | GitLab) -> None:
    server.pipeline()
    lines = server.project.logged()
    assert (server.codes, made(lines), trained(lines)) == ([0], IMAGES, [12])
    server.project.change_a_label()
    server.pipeline()
    lines = server.project.logged()
    assert (server.codes, made(lines), trained(lines)) == ([0], 2, [12])


def test_a_pipeline_below_require_fails_and_keeps_its_images(server: GitHub | GitLab) -> None:
    server.project.settings(require={"accepted": 1}, checks=REJECT_ALL)
    server.pipeline()
    lines = server.project.logged()
    assert (server.codes, made(lines), trained(lines)) == ([3], IMAGES, [])
    kept = [path for folder in server.artifacts.values() for path in folder.rglob("*") if path.is_file()]
    assert sum(fnmatch.fnmatch(path.as_posix(), "*/images/??/*.jpg") for path in kept) == IMAGES
    assert any(path.name == "report.html" for path in kept)
    server.project.settings(require={"accepted": 1})
    server.pipeline()
    assert (server.codes, server.project.logged()) == ([0], ["trained 12"])


def test_a_pipeline_out_of_time_is_not_green_and_goes_on_when_retried(server: GitHub | GitLab) -> None:
    minutes = {GitHub: 180, GitLab: 25}[type(server)]  # two batches fit in --max-minutes
    server.pipeline(MINUTES=minutes)
    if isinstance(server, GitHub):  # a person starts it again
        lines = server.project.logged()
        assert (server.codes, trained(lines)) == ([4], [])
        assert 0 < made(lines) < IMAGES
        server.pipeline(MINUTES=minutes)
        assert server.codes == [0]
        again = server.project.logged()
        assert (made(lines) + made(again), trained(again)) == (IMAGES, [12])
    else:
        lines = server.project.logged()
        assert (server.codes, made(lines), trained(lines)) == ([4, 0], IMAGES, [12])


def test_a_pipeline_that_is_killed_keeps_its_images(server: GitHub | GitLab) -> None:
    server.pipeline(DIES=2)
    lines = server.project.logged()
    assert (server.codes, trained(lines)) == ([137], [])
    server.pipeline()
    again = server.project.logged()
    assert server.codes == [0]
    assert 0 < made(again) < IMAGES
    assert trained(again) == [12]


def test_there_is_time_left_to_keep_the_images(project: Project) -> None:
    def limit(script: str) -> int:
        found = re.search(r"--max-minutes (\d+)", script)
        assert found is not None
        return int(found[1])

    steps = yaml.safe_load(project.file("-github.yml").read_text())["jobs"]["dataset"]["steps"]
    [step] = [step for step in steps if "diffgen run" in step.get("run", "")]
    assert limit(step["run"]) + 15 <= step["timeout-minutes"] <= 360 - 30
    job = yaml.safe_load(project.file("-gitlab.yml").read_text())["dataset-winter"]
    script, whole = job["variables"]["RUNNER_SCRIPT_TIMEOUT"], job["timeout"]
    assert (script, whole) == ("50m", "60 minutes")
    assert limit(job["script"][0]) + 10 <= 50


ODD = "my configs/on: {a} b's #2 $HOME.yaml"


@pytest.mark.parametrize("name", ["configs/winter.yaml", ODD])
@pytest.mark.parametrize(("end", "schema"), [("-github.yml", "github-workflows"), ("-gitlab.yml", "gitlab-ci")])
def test_the_files_of_both_meet_their_schemas(
    end: str, schema: str, name: str, new_project: Callable[..., Project]
) -> None:
    pytest.importorskip("check_jsonschema")  # not in `make test-lowest`
    file = new_project(name).file(end)
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
    answer = subprocess.run(check, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("kind", [GitHub, GitLab])
def test_a_recipe_may_have_any_name(kind: type[GitHub] | type[GitLab], new_project: Callable[..., Project]) -> None:
    project = new_project(ODD)
    server = kind(project)
    server.pipeline()
    assert (server.codes, trained(project.logged())) == ([0], [12])
    assert project.call("make", "-f", project.file(".mk"), "train-on-a-b-s-2-HOME") == 0
    assert trained(project.logged()) == [12]
