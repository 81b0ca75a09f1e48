"""One Source per image of a listing: its name in the export, its digests, and what its header and label say."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

from diffgen.dataset.file_cache import FileCache
from diffgen.dataset.formats import Found, Listing
from diffgen.dataset.images import SUFFIXES, TooLarge, read_size
from diffgen.dataset.labels import LabelError, parse_labels
from diffgen.errors import SourceError, why
from diffgen.files import read_regular, stamp
from diffgen.types import Source, digest_of

LEAST_SIDE = 10  # pixels; Ultralytics drops smaller images
LONGEST_LABEL = 2_000_000  # bytes, about 50,000 boxes: the checks of one picture would take minutes
MANY = 2000  # unread sources from which starting worker processes pays
CHUNK = 64  # sources that a worker process reads at a time
FACTS_VERSION = 10  # raise it when _read_facts changes, so that cached facts of older versions are not used

Facts = dict[str, Any]


def read_sources(listing: Listing, cache: FileCache) -> tuple[Source, ...]:
    """The sources of a listing, in its order. Only files that the cache does not know are read, several at a time."""
    kind = f"source/{FACTS_VERSION}/{len(listing.names)}/{listing.keypoints}"
    named = list(_named(listing.found))
    known: dict[str, tuple[str, str]] = {}
    for folder in _tops({entry.image.rpartition(os.sep)[0] for _, entry in named}):
        known |= cache.below(kind, folder)
    marks = [_mark(entry) for _, entry in named]
    rows = [known.get(entry.image) for _, entry in named]
    valid = [row[1] if row and row[0] == mark else "null" for row, mark in zip(rows, marks, strict=True)]
    facts: list[Facts | None] = json.loads(f"[{','.join(valid)}]")  # one call for all: twice as fast
    missing = [i for i, fields in enumerate(facts) if fields is None]
    read = partial(_read_facts, classes=len(listing.names), keypoints=listing.keypoints)
    for i, fields in zip(missing, _side_by_side(read, [named[i][1] for i in missing]), strict=True):
        facts[i] = fields
        if fields["digest"]:
            cache.put(kind, named[i][1].image, marks[i], json.dumps(fields))
    cache.flush()
    return tuple(
        _source(name, entry, fields) for (name, entry), fields in zip(named, facts, strict=True) if fields is not None
    )


def _side_by_side(read: Callable[[Found], Facts], entries: Sequence[Found]) -> Iterator[Facts]:
    """read(entry) of each entry, in order: in processes where there are many, the rest in threads."""
    done = 0
    if len(entries) > MANY and _can_fork():
        for fields in _in_processes(read, entries):
            yield fields
            done += 1
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
        yield from pool.map(read, entries[done:])


def _can_fork() -> bool:
    """Whether worker processes may be forked here. (Reading headers is work in Python, for which threads take turns.)

    Fork, because spawn and forkserver import the main module again: a user's script without a main guard would start its
    run once more in each worker. Fork is safe on Linux as long as no other Python thread may hold a lock, which Python 3.12
    warns of; threads of native libraries, such as a BLAS, do no harm, as workers call none. A daemonic process may have no
    children.
    """
    alone = threading.active_count() == 1
    return sys.platform == "linux" and alone and not multiprocessing.current_process().daemon


def _in_processes(read: Callable[[Found], Facts], entries: Sequence[Found]) -> Iterator[Facts]:
    """read(entry) of the first entries, in order: of all of them, unless a worker process dies or cannot be started."""
    context = multiprocessing.get_context("fork")
    before = multiprocessing.active_children()
    try:
        pool = ProcessPoolExecutor(min(8, os.cpu_count() or 1), context, _start_worker)
        try:
            with _ctrl_c_after():
                found = pool.map(read, entries, chunksize=CHUNK)
            yield from found
        finally:
            pool.shutdown(cancel_futures=True)
    except (BrokenProcessPool, OSError, NotImplementedError):  # the last two: no more processes, no semaphores
        return
    finally:
        # A pool that could not start all its workers leaves the others waiting, and Python would wait for them at its end.
        for worker in multiprocessing.active_children():
            if worker not in before:
                worker.kill()


@contextmanager
def _ctrl_c_after() -> Iterator[None]:
    """Delays Ctrl-C until the end of the block, as KeyboardInterrupt inside `submit` can leave a lock of the pool taken.

    Processes that are forked in the block never see it, though it reaches the whole process group.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """Set up a worker: only the parent stops it, and it exits when the parent is gone, even by SIGKILL."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a run's own handler would ignore the pool's request
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _named(found: tuple[Found, ...]) -> Iterator[tuple[str, Found]]:
    """(name in the export, entry). Names are unique within a split, ignoring suffix and case, and have no images folder."""
    taken: set[tuple[str, str]] = set()
    seen: set[tuple[str, str]] = set()
    for entry in found:
        key = (entry.split, entry.image)
        if key in seen:
            continue
        seen.add(key)
        base = name = _base_name(entry)
        n = 1
        while (entry.split, name.casefold()) in taken:
            n += 1
            name = f"{base}-{_suffix(entry.image)[1:]}{n if n > 2 else ''}"
        taken.add((entry.split, name.casefold()))
        yield name, entry


def _base_name(entry: Found) -> str:
    """The path relative to the searched folder, changed where it would leave the export's folder or not be found there."""
    folder, _, file = entry.image.rpartition(os.sep)
    stem, _ = os.path.splitext(_encodable(file))
    return f"{_folder_name(folder, entry.folder)}{'_' if stem.startswith('.') else ''}{stem}"


@lru_cache(maxsize=4096)  # many images lie in few folders
def _folder_name(folder: str, above: str) -> str:
    inside = os.path.relpath(_encodable(folder) or os.sep, _encodable(above))
    return "".join(f"{_tame(part)}/" for part in inside.split(os.sep) if part != ".")


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _tame(folder: str) -> str:
    if folder.lower() in ("images", "labels"):
        return f"{folder}_"
    if folder == "..":
        return "up_"
    return f"_{folder}" if folder.startswith(".") else folder  # Ultralytics looks into no hidden folder


def _mark(entry: Found) -> str:
    """A stamp that changes when the image or its label changes."""
    if isinstance(entry.label, str):
        return stamp([entry.image, entry.label])
    stated = str((entry.size, entry.reaches_out, entry.problem))
    return f"{stamp([entry.image])};{digest_of(entry.label or b'-', stated)[:16]}"


def _tops(folders: set[str]) -> list[str]:
    """The folders that are not inside another of them."""
    tops: list[str] = []
    for folder in sorted(folders, key=lambda folder: f"{folder}{os.sep}"):
        if not tops or not folder.startswith(f"{tops[-1]}{os.sep}"):
            tops.append(folder)
    return tops


def _source(name: str, entry: Found, fields: Facts) -> Source:
    return Source(
        split=entry.split,
        name=name,
        path=entry.image,
        label=entry.label if fields["labelled"] else None,
        digest=fields["digest"],
        width=fields["width"],
        height=fields["height"],
        counts=tuple(sorted(Counter(fields["classes"]).items())),
        classes=tuple(fields["classes"]),
        smallest=tuple(fields["smallest"]),
        sides=tuple(fields["sides"]),
        problem=fields["problem"],
        image_digest=fields["image_digest"],
        size=fields["size"],
    )


def _read_facts(entry: Found, classes: int, keypoints: tuple[int, int] | None) -> Facts:
    """What the cache keeps of one image and its label. `problem` is "word: text", or None.

    `width` and `height` are pixels, upright. By object in file order: `classes` are the class ids, `smallest` the shorter
    side of its box and `sides` the square root of its area, in pixels.
    """
    fields: Facts = {
        "digest": "", "image_digest": "", "width": 0, "height": 0, "labelled": False, "classes": [], "smallest": [],
        "sides": [], "problem": entry.problem, "size": 0,
    }  # fmt: skip
    try:
        raw = read_regular(entry.image)
        text = _read_label(entry.label) if isinstance(entry.label, str) else entry.label
    except OSError as error:
        return {**fields, "problem": f"missing: {why(error)}"}
    fields.update(labelled=text is not None, size=len(raw))
    digest = hashlib.sha256(raw)
    fields["image_digest"] = digest.hexdigest()[:32]
    digest.update(b"\0" + (text or b""))
    fields["digest"] = digest.hexdigest()
    if entry.problem is not None:
        return fields
    if len(text or b"") > LONGEST_LABEL:
        return {**fields, "problem": f"long: the label file has over {LONGEST_LABEL // 1000} kB"}
    try:
        shapes = parse_labels(text or b"", classes, keypoints)
    except LabelError as error:
        return {**fields, "problem": f"{error.reason}: {error}"}
    if _suffix(entry.image) not in SUFFIXES:
        return {**fields, "problem": f"format: {_suffix(entry.image)} is copied unedited"}
    try:
        width, height = read_size(raw)
    except SourceError as error:
        return {**fields, "problem": f"{'large' if isinstance(error, TooLarge) else 'unreadable'}: {error.message}"}
    boxes = [((s.box[2] - s.box[0]) * width, (s.box[3] - s.box[1]) * height) for s in shapes]
    fields.update(
        width=width,
        height=height,
        classes=[shape.class_id for shape in shapes],
        smallest=[round(min(box), 1) for box in boxes],
        sides=[round(math.sqrt(max(0.0, w * h)), 2) for w, h in boxes],
    )
    annotated = entry.size or (width, height)
    scaled = _is_scaled(annotated, (width, height)) and not entry.reaches_out
    if annotated != (width, height) and not scaled:
        fields["problem"] = f"size: annotated as {annotated[0]}×{annotated[1]}, the image is {width}×{height}"
    elif min(width, height) < LEAST_SIDE:
        fields["problem"] = f"tiny: {width}×{height} pixels, under {LEAST_SIDE}"
    return fields


def _is_scaled(annotated: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a picture of `size` can be the annotated one made larger or smaller, which rows do not notice."""
    scale = size[0] / annotated[0]
    return scale != 1 and abs(size[1] - annotated[1] * scale) <= max(1.0, scale)


def _read_label(path: str) -> bytes | None:
    """The label file's bytes; None where there is no such file."""
    try:
        return read_regular(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
