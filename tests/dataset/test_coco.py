"""COCO: the same boxes as YOLO rows, by hand-made annotations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffgen.dataset.dataset import Dataset
from diffgen.dataset.formats import NOTES
from diffgen.errors import UsageError
from tests.dataset.annotations import BOX, coco, label, read
from tests.fakes import photo, put, save

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


def test_crowds_are_left_out_and_counted(tmp_path: Path) -> None:
    dataset = read(coco(tmp_path, [BOX, {**BOX, "iscrowd": 1}]), tmp_path)
    assert label(dataset) == ROW
    assert dataset.notes == {"crowd": ["train: annotation 1: a.png"]}


def test_where_everything_is_a_crowd_nothing_is_one(tmp_path: Path) -> None:
    # CVAT writes iscrowd: 1 for every mask that a brush made.
    dataset = read(coco(tmp_path, [{**BOX, "iscrowd": 1}]), tmp_path)
    assert label(dataset) == ROW
    assert dataset.notes == {"all crowd": ["annotation 1"]}


def problem(dataset: Dataset) -> str:
    (source,) = dataset.split("train")
    assert source.left_out == (source.problem is not None)
    return source.problem or ""


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
        pytest.param({"category_id": "5"}, {}, id="a category as text"),
        pytest.param({"iscrowd": "0"}, {}, id="no crowd as text"),
        pytest.param({"bbox": ["6.4", "4.8", " 12.8", "9.6"]}, {}, id="numbers as text"),
        pytest.param({"bbox": "[6.4, 4.8, 12.8, 9.6]"}, {}, id="all as text"),
        pytest.param({"bbox": {"x": 6.4, "y": 4.8, "width": 12.8, "height": 9.6}}, {}, id="a mapping"),
        pytest.param({"bbox": [19.2, 14.4, -12.8, -9.6]}, {}, id="drawn to the left and up"),
        pytest.param({"segmentation": [SQUARE, [100, 1, 120, 1, 120, 9]]}, {}, id="one part outside"),
    ],
)
def test_annotations_as_other_tools_write_them(
    annotation: dict[str, Any], words: dict[str, int], tmp_path: Path
) -> None:
    dataset = read(coco(tmp_path, [{**BOX, **annotation}]), tmp_path)
    assert {word: len(lines) for word, lines in dataset.notes.items()} == words
    assert bool(label(dataset)) == (not words)
    if label(dataset):
        assert max(map(float, label(dataset).split()[1:])) == (0.75 if "segmentation" in annotation else 0.2)
    assert set(NOTES) >= set(words)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        pytest.param({"category_id": 6}, "annotation 1: no category has the id 6", id="unknown category"),
        pytest.param({"category_id": True}, "no category has the id True", id="yes is no category"),
        pytest.param({"category_id": [5]}, r"no category has the id \[5\]", id="category of a wrong kind"),
        pytest.param({"bbox": [10**400, 1, 5, 5]}, "not .x, y, width, height. in pixels", id="a number of 400 digits"),
        pytest.param({"bbox": [1, 1, float("nan"), 5]}, "not .x, y", id="nan"),
        pytest.param({"bbox": [1, 1, float("inf"), 5]}, "not .x, y", id="infinite"),
        pytest.param({"bbox": [1, 1, 5]}, "not .x, y", id="three numbers"),
        pytest.param({"bbox": {"left": 1}}, "not .x, y", id="another mapping"),
        pytest.param({"bbox": None}, "neither bbox nor segmentation", id="nothing"),
        pytest.param({"bbox": [1, 1, 0, 5]}, "no area within the picture's 64×48 pixels", id="no area"),
        pytest.param({"bbox": [99, 1, 5, 5]}, "no area within the picture", id="outside"),
        pytest.param({"segmentation": [[float("nan")] * 6], "bbox": None}, "neither bbox nor", id="nan polygon"),
        pytest.param({"segmentation": [[100, 100, 120, 100, 120, 120]]}, "its polygon has no area", id="polygon outside"),
        pytest.param({"segmentation": [[5, 5, 5, 5, 5, 5]]}, "its polygon has no area", id="polygon without area"),
        pytest.param({"segmentation": {"counts": [3], "size": [9, 9]}, "bbox": []}, "does not fit", id="another mask"),
        pytest.param({"segmentation": {"counts": [3, 4], "size": [48, 64]}, "bbox": []}, "has 7 pixels", id="short mask"),
        pytest.param({"segmentation": {"counts": [3072], "size": [48, 64]}, "bbox": []}, "is empty", id="empty mask"),
        pytest.param({"segmentation": {"counts": 7, "size": [48, 64]}, "bbox": []}, "does not fit", id="no mask"),
    ],
)  # fmt: skip
def test_a_picture_with_an_object_that_cannot_be_read_is_left_out(
    annotation: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    dataset = read(coco(tmp_path, [{**BOX, "id": 2}, {**BOX, **annotation}]), tmp_path)
    assert re.search(reason, problem(dataset))
    assert problem(dataset).startswith("annotation: annotation 1: ")


def test_a_picture_with_crowds_alone_is_no_background(tmp_path: Path) -> None:
    crowd, elsewhere = {**BOX, "iscrowd": 1}, {**BOX, "id": 2, "image_id": 99}
    assert problem(read(coco(tmp_path, [crowd, elsewhere]), tmp_path)) == (
        "annotation: it has only crowd regions, no object"
    )


@pytest.mark.parametrize("box", [(10, 5, 23, 17), (0, 0, 64, 48), (63, 47, 64, 48), (3, 0, 4, 48)])
def test_the_box_of_a_mask(box: tuple[int, int, int, int], tmp_path: Path) -> None:
    mask = np.zeros((48, 64), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [0]])))
    runs = np.diff([0, *edges, mask.size]).tolist()
    assert box_of(runs, tmp_path) == pytest.approx(box, abs=0.01)


def test_the_box_of_a_packed_mask(tmp_path: Path) -> None:
    # pycocotools 2.0.10 gives this text for a mask of 64 × 48 pixels that is set in [5:17, 10:23].
    packed = "U?<T100000000000000000000000[m1"
    assert box_of(packed, tmp_path) == pytest.approx((10, 5, 23, 17), abs=0.01)


def box_of(counts: list[int] | str, root: Path) -> tuple[float, ...]:
    dataset = read(coco(root, [{**BOX, "bbox": [], "segmentation": {"counts": counts, "size": [48, 64]}}]), root)
    x, y, w, h = (float(value) for value in label(dataset).split()[1:])
    return (x - w / 2) * 64, (y - h / 2) * 48, (x + w / 2) * 64, (y + h / 2) * 48


@pytest.mark.parametrize(
    "image",
    [
        pytest.param({"width": "64", "height": "48"}, id="text"),
        pytest.param({"width": None, "height": None}, id="null"),
        pytest.param({"width": 0, "height": 0}, id="nought"),
        pytest.param({"width": 10**400}, id="400 digits"),
        pytest.param({"file_name": "images\\a.png"}, id="backslashes"),
        pytest.param({"file_name": "..\\images\\a.png"}, id="backslashes upwards"),
        pytest.param({"file_name": None, "coco_url": "http://images.cocodataset.org/val2017/a.png"}, id="LVIS"),
    ],
)
def test_images_as_other_tools_write_them(image: dict[str, Any], tmp_path: Path) -> None:
    dataset = read(coco(tmp_path, [BOX], images=[{"id": 7, **A, **image}]), tmp_path)
    assert (label(dataset), dataset.notes) == (ROW, {})


def test_a_picture_that_exif_turns_needs_a_stated_size(tmp_path: Path) -> None:
    spec = coco(tmp_path, [BOX], images=[{"id": 7, "file_name": "c.jpg"}])
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "images/c.jpg", photo(3), exif=exif)
    assert "states no size, and its EXIF orientation rotates the picture" in problem(read(spec, tmp_path))


def test_categories_with_ids_and_names_of_other_kinds(tmp_path: Path) -> None:
    categories = [{"id": "10", "name": 7}, {"id": "9", "name": "person"}, {"id": "5", "name": "car"}]
    dataset = read(coco(tmp_path, [BOX], categories=categories), tmp_path)
    assert (dataset.names, label(dataset)) == (("bus", "car", "person", "7"), ROW)


def test_a_root_category_is_a_class_with_a_remark(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "street", "supercategory": "none"},
        {"id": 5, "name": "car", "supercategory": "street"},
    ]
    dataset = read(coco(tmp_path, [BOX], categories=categories), tmp_path)
    assert (dataset.names, dataset.notes) == (("street", "bus", "car"), {"root": ["'street'"]})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        pytest.param([{"id": 7, **A}, {"id": 7, **B}], r"the id 7 belongs to two images: a\.png .*, b\.png", id="one id"),
        pytest.param([{"id": 7, **A}, {"id": "7", **B}], "the id 7 belongs to two images", id="one id, once as text"),
        pytest.param([{"id": 7, **A}, {"id": 8, **A, "file_name": "x/a.png"}], "both lead to", id="one file, two names"),
        pytest.param([{**A}], "no id", id="no id"),
        pytest.param([{"id": 7, **A, "file_name": "\ud800.png"}], r"'\\ud800.png' cannot be a file name", id="half a character"),
        pytest.param([{"id": 7, **A, "file_name": "\0.png"}], "cannot be a file name", id="zero byte"),
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
    image = {"id": 7, "file_name": "a.png", "width": 48, "height": 64}
    assert problem(read(coco(tmp_path, [BOX], images=[image]), tmp_path)) == (
        "size: annotated as 48×64, the image is 64×48"
    )


def test_objects_beyond_the_stated_size_belong_to_a_picture_of_another(tmp_path: Path) -> None:
    image = {"id": 7, "file_name": "a.png", "width": 32, "height": 24}
    for box, reason in (([6, 5, 13, 10], ""), ([6, 5, 40, 30], "size: annotated as 32×24, the image is 64×48")):
        assert problem(read(coco(tmp_path, [{**BOX, "bbox": box}], images=[image]), tmp_path)) == reason


def test_a_picture_made_smaller_keeps_its_rows(tmp_path: Path) -> None:
    image = {"id": 7, "file_name": "a.png", "width": 641, "height": 480}
    box = {**BOX, "bbox": [64.1, 48, 128.2, 96]}
    dataset = read(coco(tmp_path, [box], images=[image]), tmp_path)
    assert (label(dataset), problem(dataset)) == (ROW, "")


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
