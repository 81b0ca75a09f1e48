"""What was read once is not read again before it changes."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from tests.dataset.reading import read
from tests.fakes import photo, put, save


def test_what_is_cached_is_what_is_read(dataset: Path) -> None:
    assert read(dataset).sources == read(dataset).sources


@pytest.mark.parametrize("name", ["images/train/00.jpg", "labels/train/00.txt"])
def test_a_changed_file_is_read_again(dataset: Path, name: str) -> None:
    before = read(dataset).sources
    path = dataset.parent / name
    if path.suffix == ".txt":
        path.write_text("1 0.5 0.5 0.2 0.2\n")
    else:
        save(path, photo(77))
    os.utime(path, ns=(1, 1))  # a coarse clock could give it the time that it had
    after = read(dataset).sources
    assert after[0].digest != before[0].digest
    assert after[1:] == before[1:]


def test_a_change_that_keeps_the_size_is_seen_by_its_time(dataset: Path) -> None:
    label = dataset.parent / "labels/train/00.txt"
    before = read(dataset).sources[0]
    label.write_text(label.read_text().replace("0 0.3", "1 0.3"))
    os.utime(label, ns=(1, 1))
    assert read(dataset).sources[0].digest != before.digest


def test_a_label_that_appears_is_seen(dataset: Path) -> None:
    label = dataset.parent / "labels/train/00.txt"
    text = label.read_text()
    label.unlink()
    bare = read(dataset).sources[0]
    label.write_text(text)
    assert read(dataset).sources[0].digest != bare.digest


@pytest.mark.parametrize("broken", ["a file in the way", "not a database"])
def test_a_cache_that_cannot_be_used_is_no_error(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    before = read(dataset).sources
    if broken == "a file in the way":
        monkeypatch.setenv("DIFFGEN_CACHE", str(put(tmp_path / "file", "x") / "below"))
    else:
        put(tmp_path / "cache/files.sqlite", "this is no database, but it is long enough to be read as one" * 50)
        monkeypatch.setenv("DIFFGEN_CACHE", str(tmp_path / "cache"))
    assert read(dataset).sources == before


def test_a_change_that_keeps_size_and_time_is_seen(dataset: Path) -> None:
    """As rsync -t, archives and CI caches make them."""
    label = dataset.parent / "labels/train/00.txt"
    before, times = read(dataset).sources[0], os.stat(label)
    label.write_text(label.read_text().replace("0 0.3", "1 0.3"))
    os.utime(label, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert os.stat(label).st_mtime_ns == times.st_mtime_ns
    assert read(dataset).sources[0].digest != before.digest


@pytest.mark.parametrize("damage", ["value", "stamp", "not JSON"])
def test_a_row_that_does_not_fit_its_checksum_is_not_believed(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setenv("DIFFGEN_CACHE", str(tmp_path / "cache"))
    before = read(dataset).sources
    change = {
        "value": "value = replace(value, '\"width\": 64', '\"width\": 46')",
        "stamp": "stamp = replace(stamp, ':', ';')",
        "not JSON": "value = '{'",
    }[damage]
    with sqlite3.connect(tmp_path / "cache/files.sqlite") as db:
        assert db.execute(f"UPDATE facts SET {change}").rowcount >= 6
    db.close()
    assert read(dataset).sources == before


def test_a_damaged_file_is_thrown_away(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "cache/files.sqlite", "this is no database, but it is long enough to be read as one" * 50)
    monkeypatch.setenv("DIFFGEN_CACHE", str(tmp_path / "cache"))
    read(dataset)
    with sqlite3.connect(tmp_path / "cache/files.sqlite") as db:
        assert db.execute("SELECT count(*) FROM facts").fetchone()[0] >= 6
    db.close()
