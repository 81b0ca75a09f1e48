"""One annotation of COCO's instances as a YOLO row."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from diffgen.dataset.formats import box_row, outline_row
from diffgen.dataset.formats.rle import box_of_mask

Size = tuple[int, int]  # (width, height) in pixels
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels


class Row(NamedTuple):
    """A YOLO row as `text`, the object's `box` before it is cut at the picture's edge, and whether it has a polygon that
    was used."""

    text: str
    box: Box
    outlined: bool


def yolo_row(entry: dict[str, Any], size: Size, class_id: int, outlines: bool) -> Row:
    """The row of an annotation: its box, or with `outlines` its polygon (the box's corners if it has none).

    Raises ValueError if it has no area inside the picture, or cannot be read.
    """
    if outlines and (polygons := polygons_of(entry)):
        inside = [part for part in polygons if box_row(class_id, _around(part), size) is not None]
        if not inside:
            raise ValueError(f"its polygon has no area within the picture's{sides_of(size)} pixels")
        return Row(outline_row(class_id, _joined(inside), size), _around_all(polygons), True)
    box = x0, y0, x1, y1 = _box(entry, size)
    text = box_row(class_id, box, size)
    if text is None:
        raise ValueError(f"bbox {list(box)} (x0, y0, x1, y1) has no area within the picture's{sides_of(size)} pixels")
    corners = (x0, y0, x1, y0, x1, y1, x0, y1)
    return Row(outline_row(class_id, corners, size) if outlines else text, box, False)


def _box(entry: dict[str, Any], size: Size) -> Box:
    """The box of an annotation: its bbox, else the one around its polygons or its mask."""
    box, mask = entry.get("bbox"), entry.get("segmentation")
    if isinstance(box, dict) and {"x", "y", "width", "height"} <= box.keys():
        box = [box[key] for key in ("x", "y", "width", "height")]
    elif isinstance(box, str):
        box = box.strip("[]() ").replace(",", " ").split()
    if not box:
        if polygons := polygons_of(entry):
            return _around_all(polygons)
        if isinstance(mask, dict):
            return box_of_mask(mask, size)
        raise ValueError("it has neither bbox nor segmentation")
    values = _numbers(box)
    if values is None or len(values) != 4:
        raise ValueError(f"bbox is {entry['bbox']!r:.60}, not [x, y, width, height] in pixels")
    x, y, width, height = values
    return min(x, x + width), min(y, y + height), max(x, x + width), max(y, y + height)


def _around(points: list[float]) -> Box:
    return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])


def _around_all(polygons: list[list[float]]) -> Box:
    return _around([value for part in polygons for value in part])


def polygons_of(entry: dict[str, Any]) -> list[list[float]]:
    """The polygons of an annotation that have three or more points."""
    parts = entry.get("segmentation")
    read = [_numbers(part) for part in parts] if isinstance(parts, list) else []
    return [part for part in read if part is not None and len(part) >= 6 and len(part) % 2 == 0]


def _joined(polygons: list[list[float]]) -> list[float]:
    """One outline from several polygons, as a YOLO row holds a single one.

    Each further polygon is connected, there and back, where it is nearest to the outline, so the connection has no area.
    """
    outline = list(polygons[0])
    for part in polygons[1:]:
        pairs = [
            ((outline[i] - part[j]) ** 2 + (outline[i + 1] - part[j + 1]) ** 2, i, j)
            for i in range(0, len(outline), 2)
            for j in range(0, len(part), 2)
        ]
        _, i, j = min(pairs)
        turned = part[j:] + part[:j] + part[j : j + 2]
        outline = outline[: i + 2] + turned + outline[i:]
    return outline


def number(value: Any) -> float | None:
    """A number of pixels, possibly written as text; None if it is not a number, or too large to calculate with."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9
    return float(value) if fits else None


def _numbers(values: Any) -> list[float] | None:
    """The numbers of a list; None if one entry is not a number."""
    numbers = [number(value) for value in values] if isinstance(values, list) else [None]
    return None if None in numbers else cast(list[float], numbers)


def sides_of(size: Size | None) -> str:
    return f" {size[0]}×{size[1]}" if size else ""
