"""COCO: the same boxes as YOLO rows, by hand-made annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffgen.dataset.formats import NOTES
from diffgen.errors import UsageError
from tests.dataset.annotations import BOX, coco, label, read
from tests.fakes import put

SQUARE = [16, 12, 48, 12, 48, 36, 16, 36]


def test_coco_ids_are_contiguous_by_category_id_over_all_splits(tmp_path: Path) -> None:
    dataset = read(coco(tmp_path, [BOX, {**BOX, "id": 2, "category_id": 9}]), tmp_path)
    assert dataset.names == ("bus", "car", "person")
    assert label(dataset) == "1 0.200000 0.200000 0.200000 0.200000\n2 0.200000 0.200000 0.200000 0.200000\n"
    assert label(dataset, "val") == ""


@pytest.mark.parametrize(
    ("annotation", "row"),
    [
        pytest.param({"bbox": [-10, -10, 42, 34]}, "1 0.250000 0.250000 0.500000 0.500000", id="cut at the edge"),
        pytest.param({"segmentation": [SQUARE]}, "1 0.250000 0.250000 0.750000 0.250000 0.750000 0.750000 0.250000 0.750000", id="polygon"),
        pytest.param({"segmentation": []}, "1 0.200000 0.200000 0.200000 0.200000", id="empty segmentation"),
        pytest.param({"segmentation": {"counts": [1], "size": [48, 64]}}, "1 0.200000 0.200000 0.200000 0.200000", id="mask"),
    ],
)  # fmt: skip
def test_coco_rows(annotation: dict[str, Any], row: str, tmp_path: Path) -> None:
    assert label(read(coco(tmp_path, [{**BOX, **annotation}]), tmp_path)) == f"{row}\n"


def test_one_polygon_gives_every_object_of_the_split_one(tmp_path: Path) -> None:
    rows = label(read(coco(tmp_path, [{**BOX, "segmentation": [SQUARE]}, {**BOX, "id": 2}]), tmp_path)).splitlines()
    assert rows[1] == "1 0.100000 0.100000 0.300000 0.100000 0.300000 0.300000 0.100000 0.300000"


def test_several_polygons_become_one_outline_with_their_area(tmp_path: Path) -> None:
    parts = [[0, 0, 10, 0, 10, 10, 0, 10], [20, 20, 30, 20, 30, 30, 20, 30]]
    values = [float(v) for v in label(read(coco(tmp_path, [{**BOX, "segmentation": parts}]), tmp_path)).split()[1:]]
    xs, ys = [v * 64 for v in values[::2]], [v * 48 for v in values[1::2]]
    area = sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs))) / 2  # the shoelace formula
    assert abs(area) == pytest.approx(200, abs=0.1)
    assert (min(xs), max(xs), min(ys), max(ys)) == pytest.approx((0, 30, 0, 30), abs=0.01)


def test_crowds_and_boxes_without_area_are_left_out_and_counted(tmp_path: Path) -> None:
    dataset = read(
        coco(tmp_path, [{**BOX, "iscrowd": 1}, {**BOX, "bbox": [1, 1, 0, 5]}, {**BOX, "bbox": [99, 1, 5, 5]}]), tmp_path
    )
    assert label(dataset) == ""
    assert {word: len(lines) for word, lines in dataset.notes.items()} == {"crowd": 1, "degenerate": 2}


A, B = ({"file_name": name, "width": 64, "height": 48} for name in ("a.png", "b.png"))
ROW = "1 0.200000 0.200000 0.200000 0.200000\n"
OTHER = {**BOX, "id": 2, "image_id": 8, "bbox": [0, 0, 32, 24]}


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        pytest.param({"image_id": 77}, {"no image": 1}, id="unknown image"),
        pytest.param({"image_id": 7.5}, {"no image": 1}, id="no id"),
        pytest.param({"image_id": True}, {"no image": 1}, id="yes is no id"),
        pytest.param({"image_id": "7"}, {}, id="an id as text"),
        pytest.param({"image_id": 7.0}, {}, id="an id as a float"),
        pytest.param({"category_id": 6}, {"category": 1}, id="unknown category"),
        pytest.param({"category_id": True}, {"category": 1}, id="yes is no category"),
        pytest.param({"category_id": "5"}, {}, id="a category as text"),
        pytest.param({"bbox": [10**400, 1, 5, 5]}, {"degenerate": 1}, id="a number of 400 digits"),
        pytest.param({"segmentation": [[100, 100, 120, 100, 120, 120]]}, {"degenerate": 1}, id="polygon outside"),
        pytest.param({"segmentation": [[5, 5, 5, 5, 5, 5]]}, {"degenerate": 1}, id="polygon without area"),
        pytest.param({"segmentation": [SQUARE, [100, 1, 120, 1, 120, 9]]}, {}, id="one part outside"),
    ],
)  # fmt: skip
def test_what_is_left_out_is_counted_by_its_reason(
    annotation: dict[str, Any], words: dict[str, int], tmp_path: Path
) -> None:
    dataset = read(coco(tmp_path, [{**BOX, **annotation}]), tmp_path)
    assert {word: len(lines) for word, lines in dataset.notes.items()} == words
    assert bool(label(dataset)) == (not words)
    if label(dataset) and "segmentation" in annotation:
        assert max(map(float, label(dataset).split()[1:])) == 0.75
    assert set(NOTES) >= set(words)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        pytest.param([{"id": 7, **A}, {"id": 7, **B}], r"the id 7 belongs to two images: a\.png .*, b\.png", id="one id"),
        pytest.param([{"id": 7, **A}, {"id": "7", **B}], "the id 7 belongs to two images", id="one id, once as text"),
        pytest.param([{"id": 7, **A}, {"id": 8, **A, "file_name": "x/a.png"}], "both lead to", id="one file, two names"),
        pytest.param([{**A}], "no id", id="no id"),
        pytest.param([{"id": 7, **A, "width": 10**400}], "no id, file_name, width", id="a width of 400 digits"),
        pytest.param([{"id": 7, **A, "file_name": "\ud800.png"}], r"'\\ud800.png' cannot be the name", id="half a character"),
        pytest.param([{"id": 7, **A, "file_name": "\0.png"}], "cannot be the name", id="zero byte"),
    ],
)  # fmt: skip
def test_images_whose_labels_cannot_be_told_are_an_error(
    images: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read(coco(tmp_path, [BOX], images=images), tmp_path)
    assert str(tmp_path / "train.json") in caught.value.message
    assert caught.value.hint


def test_a_file_under_two_ids_has_the_objects_of_both(tmp_path: Path) -> None:
    dataset = read(
        coco(tmp_path, [BOX, {**BOX, "image_id": 8}, OTHER], images=[{"id": 7, **A}, {"id": 8, **A}]), tmp_path
    )
    assert label(dataset) == ROW + "1 0.250000 0.250000 0.500000 0.500000\n"
    assert dataset.notes == {"listed twice": ["train: a.png"]}
    sizes = read(coco(tmp_path, [BOX, OTHER], images=[{"id": 7, **A}, {"id": 8, **A, "width": 6}]), tmp_path)
    assert sizes.split("train")[0].problem == "size: annotated as 64×48 and as 6×48"


def test_a_file_is_one_however_its_path_is_written(tmp_path: Path) -> None:
    images = [{"id": 7, **A}, {"id": 8, **A, "file_name": "../images/./a.png"}]
    assert read(coco(tmp_path, [BOX], images=images), tmp_path).notes == {"listed twice": ["train: ../images/./a.png"]}


def test_an_image_that_stands_twice_alike_stands_once(tmp_path: Path) -> None:
    dataset = read(coco(tmp_path, [BOX], images=[{"id": 7, **A}, {"id": 7, **A}]), tmp_path)
    assert (label(dataset), dataset.notes) == (ROW, {})


def test_annotations_for_another_size_are_a_problem(tmp_path: Path) -> None:
    image = {"id": 7, "file_name": "a.png", "width": 640, "height": 480}
    (source,) = read(coco(tmp_path, [BOX], images=[image]), tmp_path).split("train")
    assert source.problem == "size: annotated as 640×480, the image is 64×48"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "not JSON", id="broken"),
        pytest.param("[]", "not COCO", id="a list"),
        pytest.param('{"images": 3}', "not a list", id="no rows"),
        pytest.param('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "x"}]}', "no images", id="empty"),
        pytest.param('{"images": [{}], "annotations": [], "categories": [{"id": 1, "name": "x"}]}', "file_name", id="no name"),
        pytest.param("[" * 100_000, "not JSON", id="nested"),
    ],
)  # fmt: skip
def test_what_is_not_coco_is_one_error(text: str, message: str, tmp_path: Path) -> None:
    spec = coco(tmp_path, [])
    put(tmp_path / "train.json", text)
    with pytest.raises(UsageError, match=message) as caught:
        read(spec, tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"category_id": [5]}, id="category of a wrong kind"),
        pytest.param({"bbox": [1, 1, float("nan"), 5]}, id="nan"),
        pytest.param({"bbox": [1, 1, float("inf"), 5]}, id="infinite"),
        pytest.param({"image_id": {}}, id="image of a wrong kind"),
        pytest.param({"segmentation": [[float("nan")] * 6], "bbox": None}, id="nan polygon"),
    ],
)
def test_a_broken_coco_annotation_is_left_out(change: dict[str, Any], tmp_path: Path) -> None:
    dataset = read(coco(tmp_path, [{**BOX, **change}, {**BOX, "id": 2}]), tmp_path)
    assert label(dataset) == "1 0.200000 0.200000 0.200000 0.200000\n"
