"""The cluster jobs that `init` writes: Kubernetes' schema takes them, and bash runs them as Slurm would."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from diffgen.cli import main
from diffgen.commands.init import write_starter
from tests.fakes import make_dataset, put

CODES = """#!/bin/bash
echo "$@" >> calls
trap 'sleep 0.3; exit 4' USR1
trap 'exit 143' TERM
[ -f hang ] && for i in $(seq 100); do sleep 0.1; done
exit ${CODE:-0}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_dataset(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    write_starter(Path("data"), Path("My Winter.yaml"), clusters=["slurm", "k8s", "sky"], shards=3)
    tools = tmp_path / "tools"
    for name, text in {"diffgen": CODES, "scontrol": '#!/bin/bash\necho "$@" >> requeued\n', "sleep": ""}.items():
        if text:
            put(tools / name, text).chmod(0o755)
    return tmp_path


def slurm(folder: Path, **environment: str) -> subprocess.Popen[bytes]:
    given = {
        "SLURM_ARRAY_TASK_ID": "10",
        "SLURM_ARRAY_JOB_ID": "77",
        "PATH": f"{folder / 'tools'}:{os.environ['PATH']}",
    }
    return subprocess.Popen(["bash", "My Winter.slurm"], cwd=folder, env={**os.environ, **given, **environment})


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4])
def test_slurm_queues_a_shard_again_that_is_not_done(folder: Path, code: int) -> None:
    assert slurm(folder, CODE=str(code)).wait(timeout=60) == code
    assert (folder / "calls").read_text() == "run My Winter.yaml --shard 10/3\n"
    assert (folder / "requeued").exists() == (code == 4)
    if code == 4:
        assert (folder / "requeued").read_text() == "requeue 77_10\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 4), (signal.SIGTERM, 143)])
def test_slurm_s_warning_reaches_the_worker_which_ends_its_batch(folder: Path, number: int, code: int) -> None:
    put(folder / "hang", "")
    job = slurm(folder)
    while not (folder / "calls").exists():
        time.sleep(0.05)
    time.sleep(0.3)
    job.send_signal(number)
    assert job.wait(timeout=60) == code
    assert (folder / "requeued").exists() == (code == 4)


def test_kubernetes_takes_the_job(folder: Path) -> None:
    job: dict[str, Any] = yaml.safe_load((folder / "My Winter-k8s.yaml").read_text())
    kubernetes_validate.validate(job, "1.33", strict=True)
    assert job["metadata"]["name"] == "my-winter"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 3
    (rules,) = [job["spec"]["podFailurePolicy"]["rules"]]
    assert {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [2]}} in rules
    (container,) = job["spec"]["template"]["spec"]["containers"]
    text = container["args"][0].replace("exec diffgen", "echo diffgen")
    done = subprocess.run(
        ["sh", "-c", text], env={"JOB_COMPLETION_INDEX": "0"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "diffgen run My Winter.yaml --shard 1/3\n"


def test_the_job_for_skypilot_names_a_shard_a_node(folder: Path) -> None:
    job = yaml.safe_load((folder / "My Winter-sky.yaml").read_text())
    assert job["num_nodes"] == 3
    text = job["run"].replace("diffgen run", "echo diffgen run").replace("cd /work", "true")
    done = subprocess.run(
        ["sh", "-c", text], env={"SKYPILOT_NODE_RANK": "2"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "diffgen run My Winter.yaml --shard 3/3\n"


def test_they_are_written_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    make_dataset(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert main(["init", "data", "--k8s"]) == 0
    assert (tmp_path / "diffgen-k8s.yaml").exists()
    assert not (tmp_path / "diffgen.slurm").exists()
    assert "diffgen-k8s.yaml" in capsys.readouterr().out
