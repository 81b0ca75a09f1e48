"""A finished run folder that is damaged at random: the next run ends with the dataset of an undamaged one, or refuses with
one error and touches nothing. Some of its images were rejected and made again, so records of later attempts are hit, too.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffgen.commands.verify import verify
from diffgen.errors import DiffgenError
from diffgen.recipe.load import load_recipe
from tests.fakes import make, tree
from tests.fakes_attempts import Melting, run_it


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """(the folder of a recipe and its finished run, the dataset's files)."""
    root = tmp_path_factory.mktemp("finished")
    summary, _, _ = run_it(root, "out", 3)
    assert summary.saved
    assert summary.rejected
    return root, tree(root / "out/dataset")


def flip(path: Path, chance: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    path.write_bytes(raw)


def flip_unseen(path: Path, chance: random.Random) -> None:
    times = path.stat()
    flip(path, chance)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def cut(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def zeros(path: Path, chance: random.Random) -> None:
    raw = path.read_bytes()
    at = chance.randrange(len(raw))
    path.write_bytes(raw[:at] + bytes(len(raw) - at))


def noise(path: Path, chance: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    at = chance.randrange(len(raw))
    end = min(len(raw), at + 200)
    raw[at:end] = chance.randbytes(end - at)
    path.write_bytes(raw)


def doubled(path: Path, chance: random.Random) -> None:
    raw = path.read_bytes()
    at = chance.randrange(len(raw))
    path.write_bytes(raw[:at] + raw)


def gone(path: Path, chance: random.Random) -> None:
    path.unlink()


DAMAGES: list[Callable[[Path, random.Random], None]] = [flip, flip_unseen, cut, zeros, noise, doubled, gone]
PLACES = [
    "records-0.jsonl",
    "run.json",
    "images/*/*.jpg",
    "dataset/labels/*/*.txt",
    "dataset/images/*/*.jpg",
    "dataset/*.*",
]


def damaged(finished: tuple[Path, dict[str, str]], tmp_path: Path, seed: int) -> None:
    root, whole = finished
    chance = random.Random(seed)
    work = tmp_path / "w"
    shutil.copytree(root / "data", work / "data")
    shutil.copytree(root / "out", work / "out")
    recipe = work / "out.yaml"
    recipe.write_text((root / "out.yaml").read_text().replace(str(root), str(work)))
    place, damage = PLACES[seed % len(PLACES)], chance.choice(DAMAGES)
    path = chance.choice(sorted((work / "out").glob(place)))
    damage(path, chance)
    said = f"seed {seed}: {damage.__name__} of {path.relative_to(work)}"
    unlike = place.startswith("dataset/images") and not verify(load_recipe(work / "out.yaml")).whole
    before = tree(work / "out")
    try:
        summary, _ = make(recipe, Melting())
    except DiffgenError as error:
        assert place == "run.json", said
        assert error.hint, said
        assert {k: v for k, v in tree(work / "out").items() if k != "lock"} == {
            k: v for k, v in before.items() if k != "lock"
        }, said
    else:
        if unlike and tree(work / "out/dataset") != whole:  # of the same size: `run` does not read it, `verify` does
            (work / "out/dataset/manifest.jsonl").unlink()
            make(recipe, Melting())
        assert tree(work / "out/dataset") == whole, said
        assert summary.pending == 0, said
        assert verify(load_recipe(work / "out.yaml")).whole, said
    shutil.rmtree(work)


@pytest.mark.parametrize("first", range(0, 36, 6))
def test_damaged_at_random(first: int, finished: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    for seed in range(first, first + 6):
        damaged(finished, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1360, 60))
def test_damaged_at_random_three_hundred_times(
    first: int, finished: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    for seed in range(first, first + 60):
        damaged(finished, tmp_path, seed)
