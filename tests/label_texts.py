"""Label files that Ultralytics keeps and drops, for two classes: (name, bytes, kpt_shape, …)."""

from __future__ import annotations

BOX = b"0 0.5 0.5 0.2 0.2"
POLYGON = b"1 0.1 0.1 0.4 0.1 0.4 0.4"
POSE = b"0 0.5 0.5 0.2 0.2 0.4 0.4 2 0.6 0.6 1"

# … how many shapes
KEPT: list[tuple[str, bytes, tuple[int, int] | None, int]] = [
    ("empty", b"", None, 0),
    ("blank lines only", b"\n  \n\n", None, 0),
    ("one box", BOX + b"\n", None, 1),
    ("no newline at the end", BOX, None, 1),
    ("windows newlines", BOX + b"\r\n" + BOX.replace(b"0.2", b"0.3") + b"\r\n", None, 2),
    ("old mac newlines", BOX + b"\r" + BOX.replace(b"0.2", b"0.3"), None, 2),
    ("byte order mark", b"\xef\xbb\xbf" + BOX, None, 1),
    ("tabs and spaces", b"  0\t0.5  0.5 0.2\t0.2  \n", None, 1),
    ("blank line between rows", BOX + b"\n\n" + BOX.replace(b"0.2", b"0.3"), None, 2),
    ("class id written as a float", b"1.0 0.5 0.5 0.2 0.2", None, 1),
    ("exponent notation", b"0 5e-1 5e-1 2e-1 2e-1", None, 1),
    ("box over the border within tolerance", b"0 1.009 0.5 0.2 0.2", None, 1),
    ("box under the border within tolerance", b"0 -0.009 0.5 0.2 0.2", None, 1),
    ("box of no size", b"0 0.5 0.5 0 0", None, 1),
    ("polygon", POLYGON, None, 1),
    ("two polygons of different length", POLYGON + b"\n" + POLYGON + b" 0.1 0.4", None, 2),
    ("oriented box", b"0 0.3 0.1 0.5 0.4 0.3 0.6 0.1 0.4", None, 1),
    ("polygon with a point outside but its box's numbers inside", b"0 1.05 0.5 0.9 0.2 0.8 0.8", None, 1),
    ("pose", POSE, (2, 3), 1),
    ("pose without visibility", b"0 0.5 0.5 0.2 0.2 0.4 0.4 0.6 0.6", (2, 2), 1),
    ("pose whose box centre is over the border", POSE.replace(b"0.5 0.5", b"1.2 0.5"), (2, 3), 1),
    ("pose with absent points", b"0 0.5 0.5 0.2 0.2 0 0 0 0 0 0", (2, 3), 1),
]

# … why
DROPPED: list[tuple[str, bytes, tuple[int, int] | None, str]] = [
    ("class id beyond the names", b"2 0.5 0.5 0.2 0.2", None, "class-id"),
    ("negative class id", b"-1 0.5 0.5 0.2 0.2", None, "class-id"),
    ("fractional class id", b"0.5 0.5 0.5 0.2 0.2", None, "class-id"),
    ("class id of a polygon beyond the names", b"2" + POLYGON[1:], None, "class-id"),
    ("centre over the border", b"0 1.02 0.5 0.2 0.2", None, "range"),
    ("centre under the border", b"0 -0.02 0.5 0.2 0.2", None, "range"),
    ("pixels instead of shares", b"0 320 240 50 40", None, "range"),
    ("negative width", b"0 0.5 0.5 -0.005 0.2", None, "range"),
    ("width over the picture", b"0 0.5 0.5 1.5 0.2", None, "range"),
    ("polygon far outside", b"0 1.2 0.5 1.3 0.2 1.4 0.8", None, "range"),
    ("a word", b"car 0.5 0.5 0.2 0.2", None, "number"),
    ("a comma", b"0 0,5 0.5 0.2 0.2", None, "number"),
    ("not a number", b"0 nan 0.5 0.2 0.2", None, "number"),
    ("infinite", b"0 inf 0.5 0.2 0.2", None, "number"),
    ("four columns", b"0 0.5 0.5 0.2", None, "columns"),
    ("six columns", BOX + b" 0.9", None, "columns"),
    ("rows of different length", BOX + b"\n0 0.5 0.5 0.2", None, "columns"),
    ("polygon with half a point", POLYGON + b" 0.3", None, "columns"),
    ("box among polygons", BOX + b"\n" + POLYGON, None, "mixed"),
    ("not text", b"\xff\xfe0 0.5", None, "encoding"),
    ("pose point over the border", POSE.replace(b"0.6 0.6", b"1.2 0.6"), (2, 3), "range"),
    ("pose with a negative point", POSE.replace(b"0.6 0.6", b"-0.2 0.6"), (2, 3), "range"),
    ("pose of unequal rows", POSE + b"\n" + BOX, (2, 3), "columns"),
    ("pose rows of another kpt_shape", b"0 0.44 0.58 0.36 0.36 0.3 0.5 0.5 0.7", (2, 3), "columns"),
    ("a polygon in a pose dataset", POLYGON, (2, 3), "columns"),
]
