"""What a detector finds in pictures and in their edits, and what it loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from diffgen.checks.detections import CONFIDENT, FOUND_AGAIN
from diffgen.checks.detectors.names import same_names
from diffgen.commands.eval.arms import Slot, TestSet, place_of, relabelled, write_test
from diffgen.commands.eval.precision import Boxes, match_class, mean_precision, overlaps
from diffgen.commands.eval.results import detections_of, truths_of
from diffgen.commands.eval.trainings import ZERO_SHOT, Bench, Training, file_digest, training_key
from diffgen.dataset.images import decode
from diffgen.errors import UsageError
from diffgen.output.outcome import Entry, Outcome
from diffgen.types import Source, digest_of

CLEAN, FLOOR = "clean", "round-trip"  # the sources themselves, and after the editor's autoencoder alone
SIZES = (("small", 32.0), ("medium", 96.0), ("large", float("inf")))  # px of the square root of an area; as COCO
LOST = 0.3  # share of the objects of a class and size, beyond the floor's, from which on they count as lost
FEWEST = 10  # objects found in the clean pictures, for a sentence about them
SHOWN = 24  # pictures in the gallery, those that lose most


@dataclass(frozen=True, slots=True)
class Cell:
    """One condition at one severity: the pictures that have it, and what was found in them."""

    condition: str
    severity: float
    pictures: tuple[int, ...]  # indices of the sources
    seen: tuple[Boxes, ...]
    entries: tuple[Entry, ...]


class Look:
    """What the detector finds in the sources and in their edits."""

    def __init__(
        self, folder: Path, outcome: Outcome, weights: Path, size: int, device: str, command: tuple[str, ...] | None
    ) -> None:
        """Runs the detector, unless its results exist already. Raises UsageError, or DiffgenError if the detector fails."""
        self._folder, self._outcome = folder, outcome
        self._weights, self._size, self._device = weights, size, device
        accepted = [entry for entry in outcome.entries if entry.accepted]
        self._sources = list({entry.item.source.key: entry.item.source for entry in accepted}.values())
        if not self._sources:
            raise UsageError(
                f"{outcome.folder}: no edit of a val picture kept its labels true", "see `diffgen status` there"
            )
        self._at = {source.key: i for i, source in enumerate(self._sources)}
        dataset = outcome.dataset
        self._slots = [relabelled(source, dataset, dataset.names) for source in self._sources]
        self._truths = [
            truths_of(source.width, source.height, slot.label, dataset.schema)
            for source, slot in zip(self._sources, self._slots, strict=True)
        ]
        groups: dict[str, list[Entry]] = {}
        for entry in accepted:
            groups.setdefault(entry.item.job.settings.condition, []).append(entry)
        sets = {CLEAN: self._set(CLEAN, self._slots, self._sources)}
        for name, entries in groups.items():
            slots = [self._edit(entry) for entry in entries]
            sets[name] = self._set(name, slots, [entry.item.source for entry in entries])
        found = self._found(sets, command)
        names = found[CLEAN]["names"]
        ids = same_names(dataset.names, names)
        self._classes = sorted(set(ids) & {c for source in self._sources for c, _ in source.counts})
        if not self._classes:
            raise UsageError(
                f"{weights} knows none of the dataset's classes",
                f"its classes: {', '.join(names)}; the dataset's: {', '.join(dataset.names)}",
            )
        boxes = {name: tuple(detections_of(found[name], dataset.names, True)) for name in sets}
        self._clean = boxes.pop(CLEAN)
        self._cells = [self._cell(name, groups[name], boxes[name]) for name in groups]

    def _edit(self, entry: Entry) -> Slot:
        assert entry.record is not None
        slot = self._slots[self._at[entry.item.source.key]]
        return replace(
            slot, path=str(self._outcome.image(entry)), digest=digest_of(slot.digest, str(entry.record.sha256))
        )

    def _set(self, name: str, slots: Sequence[Slot], sources: Sequence[Source]) -> TestSet:
        return TestSet(name, tuple(slots), tuple(sources), frozenset())

    def _found(self, sets: Mapping[str, TestSet], command: tuple[str, ...] | None) -> dict[str, Any]:
        """The detector's boxes in each set; each set is run once."""
        names = self._outcome.dataset.names
        tests = {name: (test.digest, place_of(self._folder / "sets", name, test.slots)) for name, test in sets.items()}
        for name, test in sets.items():
            write_test(tests[name][1], test, names)
        bench = Bench(self._folder, self._weights.resolve(), self._size, {}, tests)
        bench = bench if command is None else replace(bench, command=command)
        key = training_key(file_digest(self._weights), ZERO_SHOT, 0, self._size, {})
        detector = Training(ZERO_SHOT, 0, key)
        if not bench.done(detector):
            bench.work(detector, self._device)
        return {name: bench.found(detector, name) for name in sets}

    def _cell(self, name: str, entries: Sequence[Entry], seen: tuple[Boxes, ...]) -> Cell:
        severity, _, condition = name.partition("-")
        if name == FLOOR:
            severity, condition = "0", FLOOR
        pictures = tuple(self._at[entry.item.source.key] for entry in entries)
        return Cell(condition, float(severity), pictures, seen, tuple(entries))

    def facts(self, fail_under: float | None) -> dict[str, Any]:
        """Everything, JSON-ready; writes the gallery."""
        names = self._outcome.dataset.names
        cells = [self._cell_facts(cell) for cell in self._cells]
        there = {(cell["condition"], cell["severity"]) for cell in cells}
        for name in (condition.name for condition in self._outcome.recipe.conditions):
            severity, _, condition = name.partition("-")
            if name != FLOOR and (condition, float(severity)) not in there:
                cells.append(self._cell_facts(Cell(condition, float(severity), (), (), ())))
        floor = next((cell for cell in cells if cell["condition"] == FLOOR), None)
        under = [line for line in map(partial(_under, fail_under), cells) if line is not None]
        return {
            "folder": str(self._folder),
            "weights": str(self._weights),
            "weights_sha256": file_digest(self._weights),
            "editor": self._outcome.plan.items[0].job.settings.model,
            "size": self._size,
            "seed": self._outcome.recipe.seed,
            "pictures": len(self._sources),
            "classes": {str(c): names[c] for c in self._classes},
            "clean": {"map50": self._map50(range(len(self._sources)), self._clean)},
            "cells": cells,
            "sentences": sentences(cells, floor, [names[c] for c in self._classes]),
            "fail_under": fail_under,
            "failed_under": under,
            "gallery": self._gallery(),
            "stopped": None,
        }

    def _map50(self, pictures: Sequence[int], seen: Sequence[Boxes]) -> float | None:
        if not pictures:
            return None
        truths = [self._truths[i] for i in pictures]
        value = mean_precision({c: match_class(truths, seen, c) for c in self._classes})
        return None if np.isnan(value) else round(value, 4)

    def _cell_facts(self, cell: Cell) -> dict[str, Any]:
        """For each class and size: how many objects found in the clean pictures are lost."""
        names = self._outcome.dataset.names
        counts: dict[str, dict[str, list[int]]] = {names[c]: {size: [0, 0] for size, _ in SIZES} for c in self._classes}
        for i, seen in zip(cell.pictures, cell.seen, strict=True):
            for c, side, kept in self._kept(i, seen):
                row = counts[names[c]][next(size for size, below in SIZES if side < below)]
                row[0] += 1
                row[1] += not kept
        return {
            "condition": cell.condition,
            "severity": cell.severity,
            "pictures": len(cell.pictures),
            "map50": self._map50(cell.pictures, cell.seen),
            "clean_map50": self._map50(cell.pictures, [self._clean[i] for i in cell.pictures]),
            "found": sum(n for sizes in counts.values() for n, _ in sizes.values()),
            "lost": sum(n for sizes in counts.values() for _, n in sizes.values()),
            "objects": counts,
        }

    def _kept(self, picture: int, seen: Boxes) -> list[tuple[int, float, bool]]:
        """(class, square root of the area in px, whether it is found again) of each labelled object that is found in the
        clean picture."""
        truth, rows = self._truths[picture], []
        for c in self._classes:
            objects = truth.corners[truth.classes == c]
            before = _covered(objects, self._clean[picture], c, CONFIDENT)
            after = _covered(objects, seen, c, FOUND_AGAIN)
            sides = np.sqrt((objects[:, 2:] - objects[:, :2]).prod(1))
            rows += [(c, float(s), bool(a)) for s, b, a in zip(sides, before, after, strict=True) if b]
        return rows

    def _gallery(self) -> list[dict[str, Any]]:
        """The pictures that lose most, side by side with their sources."""
        flips = []
        for cell in self._cells:
            if cell.condition == FLOOR:
                continue
            for i, seen, entry in zip(cell.pictures, cell.seen, cell.entries, strict=True):
                lost = sum(not kept for _, _, kept in self._kept(i, seen))
                flips.append((lost, cell, i, seen, entry))
        flips.sort(key=lambda flip: (-flip[0], flip[1].severity))
        gallery: list[dict[str, Any]] = []
        (self._folder / "gallery").mkdir(exist_ok=True)
        for lost, cell, i, seen, entry in flips[:SHOWN]:
            if not lost:
                break
            name = f"gallery/{len(gallery):02}.jpg"
            self._side_by_side(i, seen, self._outcome.image(entry)).save(self._folder / name, quality=88)
            about = {
                "source": entry.item.source.key,
                "condition": cell.condition,
                "severity": cell.severity,
                "lost": lost,
            }
            gallery.append({"file": name, **about})
        return gallery

    def _side_by_side(self, picture: int, seen: Boxes, edit: Path) -> Image.Image:
        source = Image.fromarray(decode(Path(self._sources[picture].path).read_bytes()))
        pair = [source, Image.fromarray(decode(edit.read_bytes()))]
        truth = self._truths[picture]
        for c in self._classes:
            objects = truth.corners[truth.classes == c]
            before = _covered(objects, self._clean[picture], c, CONFIDENT)
            after = _covered(objects, seen, c, FOUND_AGAIN)
            for box, was, still in zip(objects.tolist(), before, after, strict=True):
                if was:
                    for image, good in zip(pair, (True, still), strict=True):
                        colour = "#2bb24c" if good else "#ff3b30"
                        ImageDraw.Draw(image).rectangle(box, outline=colour, width=max(2, image.width // 320))
        scale = 640 / source.width
        size = 640, max(1, round(source.height * scale))
        joined = Image.new("RGB", (1284, size[1]), "white")
        for x, image in zip((0, 644), pair, strict=True):
            joined.paste(image.resize(size), (x, 0))
        return joined


def _covered(objects: NDArray[np.float64], seen: Boxes, class_id: int, score: float) -> list[bool]:
    """Whether each object is found: greedily, best detection first, at IoU .5."""
    mine = np.flatnonzero((seen.classes == class_id) & (seen.scores >= score))
    mine = mine[np.argsort(-seen.scores[mine], kind="stable")]
    found = [False] * len(objects)
    for row in overlaps(seen.corners[mine], objects):
        free = [g for g in np.argsort(-row) if not found[g] and row[g] >= 0.5]
        if free:
            found[int(free[0])] = True
    return found


def _under(least: float | None, cell: Mapping[str, Any]) -> str | None:
    """A line for a condition and severity that is below the least AP50, or could not be tested."""
    if least is None or cell["condition"] == FLOOR:
        return None
    name = f"{cell['condition']} {cell['severity']:g}"
    if cell["map50"] is None:
        return f"{name}: not tested"
    return f"{name}: {cell['map50']:.3f}" if cell["map50"] < least else None


def sentences(cells: Sequence[Mapping[str, Any]], floor: Mapping[str, Any] | None, names: Sequence[str]) -> list[str]:
    """For each condition, class and size, a sentence on the severities at which it is lost, worst first. Severities
    with fewer than FEWEST objects say nothing."""
    found: list[tuple[float, str]] = []
    conditions = list(dict.fromkeys(cell["condition"] for cell in cells if cell["condition"] != FLOOR))
    for condition in conditions:
        for name in names:
            for size, below in SIZES:
                enough = [c for c in cells if c["condition"] == condition and c["objects"][name][size][0] >= FEWEST]
                rows = sorted(enough, key=lambda cell: cell["severity"])
                least = LOST + (_share(floor, name, size) if floor else 0.0)
                lost = [row for row in rows if _share(row, name, size) >= least]
                if not lost:
                    continue
                end = next((i for i in range(len(rows), 0, -1) if rows[i - 1] not in lost), 0)
                worst = max(lost, key=lambda row: (_share(row, name, size), row["severity"]))
                where = {"small": " under 32 px", "medium": f" of 32 to {below:g} px", "large": " over 96 px"}[size]
                some = ", ".join(f"{row['severity']:g}" for row in lost)
                lasts = end < len(rows)
                at = f"from {condition} {rows[end]['severity']:g} on" if lasts else f"at {condition} {some}"
                share = _share(worst, name, size)
                found.append((-share, f"loses {name}{where} {at} ({share:.0%} at {worst['severity']:g})"))
    return [text for _, text in sorted(found)]


def _share(cell: Mapping[str, Any], name: str, size: str) -> float:
    found, lost = cell["objects"][name][size]
    return lost / found if found else 0.0
