"""The run folder: commit and reopen, what is dropped and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffgen.errors import DiffgenError, UsageError
from diffgen.files import image_path, write_atomically
from diffgen.run.store.images import read_present
from diffgen.run.store.records import read_log, trailer_line
from diffgen.run.store.state import FORMAT, check_folder, read_state
from diffgen.run.store.store import RunStore
from diffgen.types import EDIT_VERSION, Record, Result
from tests.fakes import put, read_records, tree


def made(name: str, text: str = "pixels") -> Result:
    return Result(Record(name, "made", {"structure": [1.0]}, sha256="0" * 64, seconds=0.5), f"{text} {name}".encode())


def failed(name: str, kind: str) -> Result:
    return Result(Record(name, "failed", kind=kind, error=f"{name}: bad"))


IDS = [f"{i:02x}{'0' * 30}" for i in range(12)]


def filled(folder: Path) -> None:
    """Three batches: two made; one made and one failed for good; one made and one to be tried again."""
    with RunStore(folder, "jpg") as store:
        store.commit([made(IDS[0]), made(IDS[1])])
        store.commit([made(IDS[2]), failed(IDS[3], "source")])
        store.commit([made(IDS[4]), failed(IDS[5], "transient")])


def test_a_commit_is_there_after_reopening(tmp_path: Path) -> None:
    filled(tmp_path)
    with RunStore(tmp_path, "jpg") as store:
        assert list(store.records) == IDS[:6]
        assert store.records[IDS[0]] == made(IDS[0]).record
        assert store.done == {*IDS[:5]}
    assert image_path(tmp_path, IDS[0], "jpg").read_bytes() == b"pixels " + IDS[0].encode()
    assert image_path(tmp_path, IDS[0], "jpg") == tmp_path / "images" / IDS[0][:2] / f"{IDS[0]}.jpg"


def test_the_later_record_of_a_job_wins(tmp_path: Path) -> None:
    filled(tmp_path)
    with RunStore(tmp_path, "jpg") as store:
        store.commit([made(IDS[5])])
    assert read_records(tmp_path)[IDS[5]].status == "made"


def test_a_made_record_without_its_image_is_not_done(tmp_path: Path) -> None:
    filled(tmp_path)
    image_path(tmp_path, IDS[1], "jpg").unlink()
    with RunStore(tmp_path, "jpg") as store:
        assert store.done == {IDS[0], *IDS[2:5]}


TAILS = [
    ("half a line", b'{"id":"' + IDS[6].encode()),
    ("a line without its trailer", made(IDS[6]).record.to_json().encode() + b"\n"),
    ("half a trailer", made(IDS[6]).record.to_json().encode() + b'\n{"commit":1,"crc"'),
    ("a whole trailer without its newline", None),
    ("a trailer that counts wrong", made(IDS[6]).record.to_json().encode() + b'\n{"commit":2,"crc":"00000000"}\n'),
    ("noise", b"\x00\xff\x00\n\n\n"),
]


@pytest.mark.parametrize("tail", [t[1] for t in TAILS], ids=[t[0] for t in TAILS])
def test_what_follows_the_last_trailer_is_dropped(tmp_path: Path, tail: bytes | None) -> None:
    filled(tmp_path)
    records = tmp_path / "records-0.jsonl"
    whole = records.read_bytes()
    if tail is None:
        with RunStore(tmp_path, "jpg") as store:
            store.commit([made(IDS[6])])
        records.write_bytes(records.read_bytes()[:-1])
    else:
        records.write_bytes(whole + tail)
    assert read_log(records).end == len(whole)
    with RunStore(tmp_path, "jpg") as store:
        assert list(store.records) == IDS[:6]
        store.commit([made(IDS[7])])
    assert list(read_records(tmp_path)) == [*IDS[:6], IDS[7]]
    assert records.read_bytes().startswith(whole)


def damaged(folder: Path, change: Callable[[bytearray], Any]) -> bytes:
    """The bytes of records-0.jsonl after a change."""
    raw = bytearray((folder / "records-0.jsonl").read_bytes())
    change(raw)
    (folder / "records-0.jsonl").write_bytes(raw)
    return bytes(raw)


def lines_of(folder: Path) -> list[int]:
    """Where the lines of records-0.jsonl begin, and where it ends."""
    raw = (folder / "records-0.jsonl").read_bytes()
    return [0, *(i + 1 for i, byte in enumerate(raw) if byte == ord("\n"))]


@pytest.mark.parametrize("line", range(9))
def test_a_flipped_bit_costs_its_batch_and_is_said_and_kept(tmp_path: Path, line: int) -> None:
    filled(tmp_path)
    starts = lines_of(tmp_path)
    raw = damaged(tmp_path, lambda raw: raw.__setitem__(starts[line] + 3, raw[starts[line] + 3] ^ 1))
    lost = line // 3
    with RunStore(tmp_path, "jpg") as store:
        assert list(store.records) == [name for i, name in enumerate(IDS[:6]) if i // 2 != lost]
        assert "records-0.damaged.jsonl" in store.repaired[0]
        store.commit([made(IDS[2 * lost]), made(IDS[2 * lost + 1])])
    assert (tmp_path / "records-0.damaged.jsonl").read_bytes() == raw
    with RunStore(tmp_path, "jpg") as store:
        assert set(store.records) == set(IDS[:6])
        assert store.repaired == []


def test_a_lost_newline_costs_its_batch_alone(tmp_path: Path) -> None:
    filled(tmp_path)
    starts = lines_of(tmp_path)
    damaged(tmp_path, lambda raw: raw.__delitem__(starts[3] - 1))  # between the first trailer and the second batch
    with RunStore(tmp_path, "jpg") as store:
        assert set(IDS[4:6]) <= set(store.records)
        assert store.repaired


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda raw: raw.__setitem__(slice(-40, None), b"\0" * 40), id="nought at the end"),
        pytest.param(lambda raw: raw.__setitem__(slice(-300, None), os.urandom(300)), id="noise over the last batches"),
        pytest.param(lambda raw: raw.__setitem__(slice(None), raw.replace(b"\n", b"\r\n")), id="copied by Windows"),
    ],
)
def test_damage_at_the_end_is_no_interrupted_write(change: Callable[[bytearray], Any], tmp_path: Path) -> None:
    filled(tmp_path)
    raw = damaged(tmp_path, change)
    with RunStore(tmp_path, "jpg") as store:
        assert store.repaired
    assert (tmp_path / "records-0.damaged.jsonl").read_bytes() == raw
    damaged(tmp_path, lambda raw: raw.extend(b"garbage\n"))
    RunStore(tmp_path, "jpg").close()
    assert (tmp_path / "records-0.damaged-2.jsonl").exists(), "an older copy is kept"


def test_a_forged_record_costs_its_batch(tmp_path: Path) -> None:
    filled(tmp_path)
    for forged in (
        b'{"id":"a","status":"made","facts":7}',
        b'{"id":"a","status":"made","seconds":"x"}',
        b"[]",
        b'{"id":[]}',
    ):
        lines = forged + b"\n"
        damaged(tmp_path, lambda raw, lines=lines: raw.extend(lines + trailer_line(1, lines) + b"\n"))
        with RunStore(tmp_path, "jpg") as store:
            assert list(store.records) == IDS[:6]
            assert store.repaired


def test_an_unfinished_image_is_not_taken_for_the_one_that_is_gone(tmp_path: Path) -> None:
    """`status` reads without opening the folder, so nothing has swept it."""
    filled(tmp_path)
    gone = image_path(tmp_path, IDS[0], "jpg")
    put(tmp_path / "images/.tmp" / gone.name, "half")
    gone.unlink()
    assert IDS[0] not in read_present(tmp_path, "jpg")


def test_unfinished_images_are_swept(tmp_path: Path) -> None:
    filled(tmp_path)
    left = put(tmp_path / "images/.tmp/half.jpg", "x")
    RunStore(tmp_path, "jpg").close()
    assert not left.exists()


# --- whose folder


@pytest.mark.parametrize("name", ["photo.jpg", "images/a.jpg", "recipe.yaml", ".git/config"])
def test_a_folder_with_other_files_is_refused_and_untouched(tmp_path: Path, name: str) -> None:
    put(tmp_path / "mine" / name, "precious")
    before = tree(tmp_path / "mine")
    with pytest.raises(UsageError, match="holds files that diffgen did not make"):
        RunStore(tmp_path / "mine", "jpg")
    assert tree(tmp_path / "mine") == before


def test_one_that_another_worker_begins_during_the_look_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing that ends after run.json was written may lack it, and have what came later."""
    listed = Path.iterdir

    def slow(folder: Path) -> list[Path]:
        put(tmp_path / "images/.tmp/half.jpg", "x")
        found = list(listed(folder))
        put(tmp_path / "run.json", json.dumps({"format": FORMAT, "edit_version": EDIT_VERSION, "environments": {}}))
        return found

    monkeypatch.setattr(Path, "iterdir", slow)
    check_folder(tmp_path)


def test_an_empty_or_new_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/deep"):
        RunStore(tmp_path / name, "jpg").close()
        assert read_state(tmp_path / name)["format"] == 2


def test_a_folder_in_which_only_the_lock_was_made_is_ours(tmp_path: Path) -> None:
    put(tmp_path / "lock", "")
    put(tmp_path / ".run.json.tmp", "{")
    RunStore(tmp_path, "jpg").close()


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DiffgenError, match="file is not a folder"):
        RunStore(put(tmp_path / "file", "x"), "jpg")


def test_two_at_once_are_refused_and_the_lock_is_given_back(tmp_path: Path) -> None:
    with RunStore(tmp_path, "jpg"), pytest.raises(DiffgenError, match="another diffgen is writing there"):
        RunStore(tmp_path, "jpg")
    RunStore(tmp_path, "jpg").close()


def test_a_failed_opening_gives_the_lock_back(tmp_path: Path) -> None:
    filled(tmp_path)
    state = (tmp_path / "run.json").read_text()
    put(tmp_path / "run.json", "{")
    with pytest.raises(DiffgenError, match="cannot be read"):
        RunStore(tmp_path, "jpg")
    put(tmp_path / "run.json", state)
    RunStore(tmp_path, "jpg").close()


@pytest.mark.parametrize("state", ["[]", '{"format": 99}', "{}", "null"])
def test_a_state_of_another_version_is_refused(tmp_path: Path, state: str) -> None:
    put(tmp_path / "run.json", state)
    with pytest.raises(DiffgenError, match="its format is not"):
        RunStore(tmp_path, "jpg")


def test_a_folder_without_state_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        read_state(tmp_path)


# --- what is kept in run.json


def test_the_first_choice_is_kept(tmp_path: Path) -> None:
    with RunStore(tmp_path, "jpg") as store:
        assert store.settle(batch_size=4, threads=2) == {"batch_size": 4, "threads": 2}
    with RunStore(tmp_path, "jpg") as store:
        assert store.settle(batch_size=16, threads=8) == {"batch_size": 4, "threads": 2}
        store.note(limit=3)
        store.note(limit=None)
    state = read_state(tmp_path)
    assert (state["batch_size"], state["limit"]) == (4, None)


def test_environments_are_kept_once_under_a_key(tmp_path: Path) -> None:
    with RunStore(tmp_path, "jpg") as store:
        one, same, two = (store.environment({"device": name}) for name in ("cpu", "cpu", "cuda"))
    assert one == same != two
    assert read_state(tmp_path)["environments"] == {one: {"device": "cpu"}, two: {"device": "cuda"}}


def test_write_atomically_leaves_no_other_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.json", "1")
    write_atomically(tmp_path / "a.json", "2")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "2"


# --- clean


def test_drop_all_but_first_says_and_then_does(tmp_path: Path) -> None:
    filled(tmp_path)
    with RunStore(tmp_path, "jpg") as store:
        size = sum(len(made(i).image or b"") for i in (IDS[1], IDS[4]))
        keep = {IDS[0], IDS[2], IDS[3]}
        before = tree(tmp_path)
        assert store.drop_all_but(keep, remove=False) == (2, size)
        assert tree(tmp_path) == before
        assert store.drop_all_but(keep, remove=True) == (2, size)
        assert set(store.records) == keep
    assert set(read_records(tmp_path)) == keep
    assert sorted(p.stem for p in (tmp_path / "images").glob("*/*")) == sorted([IDS[0], IDS[2]])
    with RunStore(tmp_path, "jpg") as store:
        assert store.done == keep
        assert store.drop_all_but(keep, remove=True) == (0, 0)
        assert store.drop_all_but(set(), remove=True)[0] == 2
        assert read_records(tmp_path) == {}


def test_records_are_plain_json_lines_with_a_trailer_a_batch(tmp_path: Path) -> None:
    filled(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "records-0.jsonl").read_text().splitlines()]
    assert [line.get("id", line.get("commit")) for line in lines] == [*IDS[:2], 2, *IDS[2:4], 2, *IDS[4:6], 2]


def test_the_records_of_all_workers_are_one(tmp_path: Path) -> None:
    filled(tmp_path)
    with RunStore(tmp_path, "jpg", "1") as store:
        assert list(store.records) == IDS[:6]
        store.commit([made(IDS[6]), made(IDS[5])])
    with RunStore(tmp_path, "jpg", "2") as store:
        store.commit([failed(IDS[7], "source"), failed(IDS[6], "transient")])
    assert sorted(path.name for path in tmp_path.glob("records*")) == [f"records-{n}.jsonl" for n in range(3)]
    with RunStore(tmp_path, "jpg") as store:
        assert set(store.records) == {*IDS[:8]}
        assert store.done == {*IDS[:8]}, "an image that one worker made counts more than another's failure"


@pytest.mark.parametrize("first", ["0", "1"])
def test_of_two_images_of_a_job_the_one_in_place_counts(tmp_path: Path, first: str) -> None:
    """Two devices give different bytes."""
    images = {worker: f"by {worker}".encode() for worker in ("0", "1")}
    shas = {worker: hashlib.sha256(image).hexdigest() for worker, image in images.items()}
    for worker in (first, "1" if first == "0" else "0"):
        with RunStore(tmp_path, "jpg", worker) as store:
            store.commit([Result(Record(IDS[0], "made", {}, shas[worker]), images[worker])])
    for worker in ("0", "1"):
        image_path(tmp_path, IDS[0], "jpg").write_bytes(images[worker])
        assert read_records(tmp_path)[IDS[0]].sha256 == shas[worker]
        with RunStore(tmp_path, "jpg") as store:
            assert store.present[IDS[0]].sha256 == shas[worker]
            assert not store.repaired


def test_cleaning_leaves_one_file_of_records(tmp_path: Path) -> None:
    for worker in ("0", "1", "2"):
        with RunStore(tmp_path, "jpg", worker) as store:
            store.commit([made(IDS[int(worker)])])
    with RunStore(tmp_path, "jpg") as store:
        assert store.drop_all_but({IDS[1]}, remove=True)[0] == 2
    assert [path.name for path in tmp_path.glob("records*")] == ["records-0.jsonl"]
    assert list(read_records(tmp_path)) == [IDS[1]]
