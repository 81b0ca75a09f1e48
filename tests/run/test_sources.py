"""Sources as a run reads them: each once, and not more of them kept than there is room for."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffgen.dataset.dataset import read_dataset
from diffgen.dataset.file_cache import FileCache
from diffgen.errors import TransientError
from diffgen.run.sources import LEAST, SHARE, Sources
from diffgen.types import Source
from tests.fakes import make_dataset

BYTES = 64 * 48 * 3


@pytest.fixture
def found(tmp_path: Path, cache: FileCache) -> tuple[Source, ...]:
    data = make_dataset(tmp_path / "data", counts=(5, 1))
    return tuple(source for source in read_dataset(str(data), tmp_path, cache).sources if source.split == "train")


def test_a_source_is_read_once_as_long_as_there_is_room(found: tuple[Source, ...]) -> None:
    read: list[str] = []

    def shapes_of(source: Source, _: bytes) -> tuple[()]:
        read.append(source.name)
        return ()

    names = [source.name for source in found]
    roomy = Sources(shapes_of)
    assert [roomy(source) for source in found] == [roomy(source) for source in found]
    assert read == names

    read.clear()
    narrow = Sources(shapes_of, room=2 * (LEAST + SHARE * BYTES))  # also the smallest picture takes LEAST
    for source in (*found[:3], *found[1:3], found[0]):
        narrow(source)
    assert read == [*names[:3], names[0]]


def test_one_that_has_changed_is_not_used(found: tuple[Source, ...]) -> None:
    Path(found[0].path).write_bytes(Path(found[1].path).read_bytes())
    with pytest.raises(TransientError, match="changed during the run"):
        Sources(lambda *_: ())(found[0])
