"""Label text to shapes, by Ultralytics' rules (test_label_rules.py holds these tables against the original)."""

from __future__ import annotations

import pytest

from diffgen.dataset.labels import LabelError, Shape, box_row, parse_labels, with_row, without_rows
from tests.label_texts import DROPPED, KEPT


@pytest.mark.parametrize(("text", "keypoints", "count"), [row[1:] for row in KEPT], ids=[row[0] for row in KEPT])
def test_kept_files_give_a_shape_a_row(text: bytes, keypoints: tuple[int, int] | None, count: int) -> None:
    assert len(parse_labels(text, 2, keypoints)) == count


@pytest.mark.parametrize(("text", "keypoints", "reason"), [r[1:] for r in DROPPED], ids=[r[0] for r in DROPPED])
def test_dropped_files_have_a_reason_that_can_be_counted(
    text: bytes, keypoints: tuple[int, int] | None, reason: str
) -> None:
    with pytest.raises(LabelError) as caught:
        parse_labels(text, 2, keypoints)
    assert caught.value.reason == reason


def test_a_box_row_is_centre_and_size() -> None:
    (shape,) = parse_labels(b"1 0.5 0.25 0.5 0.25\n", 2)
    assert shape == Shape(1, (0.25, 0.125, 0.75, 0.375))


def test_a_polygon_keeps_its_outline_and_its_box() -> None:
    (shape,) = parse_labels(b"0 0.25 0.5 0.75 0.25 0.5 0.75", 1)
    assert shape == Shape(0, (0.25, 0.25, 0.75, 0.75), ((0.25, 0.5), (0.75, 0.25), (0.5, 0.75)))


@pytest.mark.parametrize(
    ("points", "keypoints", "seen"),
    [
        (b"0.1 0.2 2 0 0 0", (2, 3), ((0.1, 0.2),)),
        (b"0.1 0.2 1 0.3 0.4 0", (2, 3), ((0.1, 0.2),)),  # 1: hidden, and its place is known
        (b"0.1 0.2 0 0", (2, 2), ((0.1, 0.2),)),
        (b"0 0.2 0.3 0", (2, 2), ((0.0, 0.2), (0.3, 0.0))),
    ],
)
def test_a_pose_row_gives_the_box_and_the_points_that_are_seen(
    points: bytes, keypoints: tuple[int, int], seen: tuple[tuple[float, float], ...]
) -> None:
    (shape,) = parse_labels(b"0 0.5 0.5 0.5 0.5 " + points, 1, keypoints)
    assert shape == Shape(0, (0.25, 0.25, 0.75, 0.75), keypoints=seen)


def test_rows_of_another_kpt_shape_say_what_was_expected() -> None:
    with pytest.raises(LabelError, match=r"row 1 has 9 columns, expected 11 for kpt_shape \[2, 3\]"):
        parse_labels(b"0 0.44 0.58 0.36 0.36 0.3 0.5 0.5 0.7", 1, (2, 3))


def test_boxes_of_a_pose_dataset_are_read_as_boxes() -> None:
    assert parse_labels(b"0 0.5 0.5 0.5 0.5", 1, (2, 3)) == (Shape(0, (0.25, 0.25, 0.75, 0.75)),)


def test_rows_keep_the_order_of_the_file() -> None:
    shapes = parse_labels(b"1 .5 .5 .1 .1\n0 .5 .5 .2 .2\n1 .5 .5 .3 .3", 2)
    assert [shape.class_id for shape in shapes] == [1, 0, 1]


def test_the_message_names_the_row() -> None:
    with pytest.raises(LabelError, match="row 2: class id 7, but the dataset has 2 classes"):
        parse_labels(b"0 .5 .5 .1 .1\n7 .5 .5 .1 .1", 2)


@pytest.mark.parametrize(
    ("raw", "after"),
    [
        (b"", b"R\n"),
        (b"a\n", b"a\nR\n"),
        (b"a\nb", b"a\nb\nR\n"),
        (b"a\r\nb\r\n", b"a\r\nb\r\nR\r\n"),
        (b"a\r\nb", b"a\r\nb\r\nR\r\n"),
        (b"a\rb", b"a\rb\rR\r"),
        (b"\n\n", b"\n\nR\n"),
        (b"\xef\xbb\xbf", b"\xef\xbb\xbfR\n"),
        (b"a\n  ", b"a\n  \nR\n"),
    ],
)
def test_a_row_is_added_in_the_file_s_own_newlines(raw: bytes, after: bytes) -> None:
    assert with_row(raw, "R") == after


@pytest.mark.parametrize("text", [case[1] for case in KEPT if case[2] is None and b"0.5" in case[1]])
def test_an_added_row_reads_as_the_box_it_was(text: bytes) -> None:
    before = parse_labels(text, 2)
    box = (0.25, 0.125, 0.5, 0.75)
    *same, new = parse_labels(with_row(text, box_row(1, box, before[0].outline is not None)), 2)
    assert tuple(same) == before
    assert (new.class_id, new.box) == (1, pytest.approx(box))


@pytest.mark.parametrize(
    ("raw", "drop", "left"),
    [
        (b"a\nb\nc\n", {1}, b"a\nc\n"),
        (b"a\r\n\r\nb\r\nc", {1}, b"a\r\n\r\nc"),
        (b"\xef\xbb\xbf\n a\nb", {0}, b"\xef\xbb\xbf\nb"),
        (b"a\x0cb\nc", {1}, b"a\x0cc"),
        (b"", {0}, b""),
        (b"a\nb", set(), b"a\nb"),
    ],
)
def test_rows_are_counted_as_they_are_read(raw: bytes, drop: set[int], left: bytes) -> None:
    assert without_rows(raw, drop) == left
