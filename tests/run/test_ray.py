"""A real Ray cluster of this machine: several workers with parts of its CPUs on one run folder."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from diffgen.errors import DiffgenError, UsageError
from diffgen.plan import batches as cutting
from diffgen.recipe.load import load_recipe
from diffgen.run.executors import ray as ours
from diffgen.run.executors.local import OVERLAP
from diffgen.run.loop import run
from diffgen.run.part import Part, require_ray
from diffgen.run.progress import Progress
from diffgen.run.together import run_together
from tests.fakes import fake_worker, make, make_dataset, tree, write_recipe
from tests.fakes_attempts import Melting
from tests.run import worker_driver
from tests.run.test_together import BATCH, made_more_than_once

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        patch.setattr(cutting, "LANE", 3)
        yield ours.connect(None)
        ray.shutdown()


@pytest.fixture(scope="module")
def data(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("ray") / "data", counts=(24, 2))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("whole")
    make(recipe_for(root, data), Melting())
    return tree(root / "out/dataset")


def recipe_for(root: Path, data: Path) -> Path:
    return write_recipe(root / "r.yaml", data, root / "out", batch_size=BATCH, attempts=3)


def work_on(recipe: Path, seconds: float, pids: Path | None = None, bug: bool = False) -> Any:
    """What each Ray task does: the driver's torch-free worker."""

    def work(name: str, progress: Any) -> None:
        if pids is not None:
            (pids / name).write_text(str(os.getpid()))
        editor = worker_driver.Logging(seconds=seconds, log=recipe.parent / "made.log", bug_at=2 if bug else -1)
        run(load_recipe(recipe), make_worker=lambda: fake_worker(editor), part=Part(name), progress=progress)

    return work


def over_ray(cluster: Any, recipe: Path, work: Any, workers: int = 3, **options: Any) -> Any:
    executor = partial(ours.run_ray, cluster, work, ours.places(cluster, workers))
    return run_together(load_recipe(recipe), executor, fetch=False, **options)


def test_workers_of_a_cluster_end_as_one_process_does(cluster: Any, data: Path, whole: Any, tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, data)
    summary = over_ray(cluster, recipe, work_on(recipe, 0.05))
    assert tree(tmp_path / "out/dataset") == whole
    assert summary.exit_code == 0
    assert made_more_than_once(tmp_path) == 0
    assert len(list((tmp_path / "out").glob("records-ray*.jsonl"))) > 1


def test_a_killed_task_s_work_is_taken_over(cluster: Any, data: Path, whole: Any, tmp_path: Path) -> None:
    recipe, pids, said = recipe_for(tmp_path, data), tmp_path / "pids", []
    pids.mkdir()

    class Killing(Progress):
        """Progress that kills a worker once."""

        done = False

        def update(self, made: int, *_: Any) -> None:
            if made and not self.done and len(list(pids.iterdir())) == 3:
                self.done = True
                os.kill(int(next(pids.iterdir()).read_text()), signal.SIGKILL)

    summary = over_ray(cluster, recipe, work_on(recipe, 0.3, pids), notify=said.append, progress=Killing())
    assert tree(tmp_path / "out/dataset") == whole
    assert summary.exit_code == 0
    assert sum("died" in line for line in said) == 1
    assert made_more_than_once(tmp_path) <= OVERLAP * BATCH


def test_a_bug_is_one_error_with_its_worker(cluster: Any, data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, data)
    with pytest.raises(DiffgenError, match=r"ray\d failed: .*a bug"):
        over_ray(cluster, recipe, work_on(recipe, 0.05, bug=True))


def test_stopping_a_cluster(cluster: Any, data: Path, whole: Any, tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, data)
    started = time.monotonic()
    first = over_ray(cluster, recipe, work_on(recipe, 0.5), max_minutes=0.05)
    assert time.monotonic() - started < 60
    assert first.exit_code == 4
    assert over_ray(cluster, recipe, work_on(recipe, 0.0)).exit_code == 0
    assert tree(tmp_path / "out/dataset") == whole


def test_a_cluster_without_a_gpu_says_so(cluster: Any) -> None:
    if not cluster.cluster_resources().get("GPU"):
        with pytest.raises(UsageError, match="the cluster has no GPU"):
            ours.places(cluster, None)
    assert sum(place["num_cpus"] for place in ours.places(cluster, 4)) <= cluster.cluster_resources()["CPU"]


@pytest.mark.parametrize(("executor", "address"), [("dask", None), (None, "ray://x:1")])
def test_what_is_no_executor_is_refused(executor: str | None, address: str | None) -> None:
    with pytest.raises(UsageError):
        require_ray(executor, address)
