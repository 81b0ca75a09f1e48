"""Parsing YOLO label text to shapes in normalised coordinates. Pure Python; knows nothing about pixels, files or torch.

Accepts what Ultralytics accepts (8.4, `verify_image_label`): it drops a whole file for one bad row, so the first bad row is
the file's problem. The export copies the bytes of label files instead of writing parsed labels.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

TOLERANCE = 0.01  # Ultralytics lets coordinates exceed 0 to 1 by this much


@dataclass(frozen=True, slots=True)
class Shape:
    """One labelled object: class id, enclosing box (x0, y0, x1, y1), `outline` of polygons and OBB, visible `keypoints`.

    Coordinates are fractions of the picture's width and height as in the file: 0 to 1, give or take TOLERANCE.
    """

    class_id: int
    box: tuple[float, float, float, float]
    outline: tuple[tuple[float, float], ...] | None = None
    keypoints: tuple[tuple[float, float], ...] = ()


class LabelError(ValueError):
    """Ultralytics would drop this file. `reason` is one word to count by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class LabelSchema:
    """What label rows may contain: class ids below the number of `names`, and `kpt_shape` (count, 2 or 3) for poses."""

    names: tuple[str, ...]
    keypoints: tuple[int, int] | None = None

    def parse(self, raw: bytes | None) -> tuple[Shape, ...]:
        """The shapes of a label file, in file order; none without a file. Raises LabelError, see `parse_labels`."""
        return parse_labels(raw or b"", len(self.names), self.keypoints)

    def parse_or_nothing(self, raw: bytes | None) -> tuple[Shape, ...]:
        """`parse`, but no shapes for a file that Ultralytics would drop."""
        try:
            return self.parse(raw)
        except LabelError:
            return ()


def without_rows(raw: bytes, drop: Collection[int]) -> bytes:
    """A label file without the rows of these numbers, counted from 0 without blank lines. The rest stays byte for byte."""
    kept, number = [], -1
    for line in raw.decode("utf-8").splitlines(keepends=True):
        blank = not line.strip("\ufeff").strip()
        number += not blank
        if blank or number not in drop:
            kept.append(line)
    return "".join(kept).encode()


def with_row(raw: bytes, row: str) -> bytes:
    """A label file with a row appended, in the file's own kind of newline. The rest stays byte for byte."""
    text = raw.decode("utf-8")
    newline = next((end for end in ("\r\n", "\n", "\r") if end in text), "\n")
    gap = newline if text.strip("\ufeff") and not text.endswith(("\n", "\r")) else ""
    return f"{text}{gap}{row}{newline}".encode()


def box_row(class_id: int, box: tuple[float, float, float, float], outlined: bool) -> str:
    """The label row of a box (x0, y0, x1, y1): centre and size, or its four corners if the file has outlines."""
    x0, y0, x1, y1 = box
    values = (x0, y0, x1, y0, x1, y1, x0, y1) if outlined else ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
    return " ".join([str(class_id), *(f"{value:.6f}" for value in values)])


def parse_labels(raw: bytes, classes: int, keypoints: tuple[int, int] | None = None) -> tuple[Shape, ...]:
    """The shapes of a label file, in file order; none for an empty file.

    `classes` is the number of class names; `keypoints` is the dataset's `kpt_shape` (count, 2 or 3). Rows are detect
    (5 columns), segment or OBB (class and three or more points); with `keypoints` pose (5 + count·dims) or detect. Raises
    LabelError if Ultralytics would drop the file.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError("encoding", f"the label file is not UTF-8 text (byte {error.start})") from None
    rows = [line.split() for line in text.strip().splitlines() if line.strip()]
    if not rows:
        return ()
    pose = 5 + keypoints[0] * keypoints[1] if keypoints else 0
    widths = {len(row) for row in rows}
    if pose and widths != {5}:  # boxes alone are for detection with a pose dataset
        wrong = next((n for n, row in enumerate(rows, 1) if len(row) != pose), None)
        if wrong is not None:
            columns = len(rows[wrong - 1])
            raise LabelError(
                "columns", f"row {wrong} has {columns} columns, expected {pose} for kpt_shape {list(keypoints or ())}"
            )
        return tuple(_box_row(row, n, classes, keypoints) for n, row in enumerate(rows, 1))
    if any(width > 6 for width in widths):
        if 5 in widths:
            raise LabelError("mixed", "box rows and polygon rows in one file")
        return tuple(_outline_row(row, n, classes) for n, row in enumerate(rows, 1))
    if widths != {5}:
        wrong = next(n for n, row in enumerate(rows, 1) if len(row) != 5)
        raise LabelError("columns", f"row {wrong} has {len(rows[wrong - 1])} columns, expected 5")
    return tuple(_box_row(row, n, classes) for n, row in enumerate(rows, 1))


def _numbers(row: list[str], n: int) -> list[float]:
    try:
        values = [float(value) for value in row]
    except ValueError:
        raise LabelError("number", f"row {n}: not all values are numbers") from None
    if not all(math.isfinite(value) for value in values):
        raise LabelError("number", f"row {n}: not all values are finite")
    return values


def _class_id(value: float, n: int, classes: int) -> int:
    if value < 0 or value % 1:
        raise LabelError("class-id", f"row {n}: class id {value:g} is not a whole number from 0")
    if value >= classes:
        raise LabelError("class-id", f"row {n}: class id {value:g}, but the dataset has {classes} classes")
    return int(value)


def _check_range(values: list[float], n: int) -> None:
    if max(values) > 1 + TOLERANCE:
        raise LabelError("range", f"row {n}: coordinate {max(values):g} is over 1")
    if min(values) < -TOLERANCE:
        raise LabelError("range", f"row {n}: coordinate {min(values):g} is under 0")


def _box_row(row: list[str], n: int, classes: int, keypoints: tuple[int, int] | None = None) -> Shape:
    values = _numbers(row, n)
    class_id = _class_id(values[0], n, classes)
    x, y, width, height = values[1:5]
    seen: list[tuple[float, float]] = []
    if keypoints:  # in pose rows, Ultralytics limits only the points to 1, but all values to 0
        dims = keypoints[1]
        points = list(zip(values[5::dims], values[6::dims], strict=True))
        _check_range([min(values), *(side for point in points for side in point)], n)
        # Without a visibility flag, a point at (0, 0) is unset.
        flags = values[7::3] if dims == 3 else map(max, points)
        seen = [point for point, flag in zip(points, flags, strict=True) if flag > 0]
    else:
        _check_range([x, y, width, height], n)
    if width < 0 or height < 0:
        raise LabelError("range", f"row {n}: box of negative size {width:g} × {height:g}")
    box = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return Shape(class_id, box, keypoints=tuple(seen))


def _outline_row(row: list[str], n: int, classes: int) -> Shape:
    values = _numbers(row, n)
    if len(values) < 7 or len(values) % 2 == 0:
        raise LabelError("columns", f"row {n} has {len(values)} columns, not a class and three or more points")
    class_id = _class_id(values[0], n, classes)
    xs, ys = values[1::2], values[2::2]
    x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
    _check_range([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], n)
    return Shape(class_id, (x0, y0, x1, y1), tuple(zip(xs, ys, strict=True)))
