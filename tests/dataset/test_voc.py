"""Pascal VOC: the same boxes as YOLO rows, by hand-made annotations."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffgen.dataset.formats import NOTES
from diffgen.errors import UsageError
from tests.dataset.annotations import OBJECT, label, read, voc
from tests.fakes import photo, put, save


def test_voc_counts_pixels_from_one_and_holds_the_last(tmp_path: Path) -> None:
    dataset = read(voc(tmp_path, OBJECT.format("car", 1, 1, 32, 24)), tmp_path)
    assert dataset.names == ("bus", "car")
    assert label(dataset) == "1 0.250000 0.250000 0.500000 0.500000\n"
    assert label(dataset, "val") == "0 0.500000 0.500000 1.000000 1.000000\n"


def test_voc_zero_based(tmp_path: Path) -> None:
    dataset = read(voc(tmp_path, OBJECT.format("car", 0, 0, 32, 24), one_based=False), tmp_path)
    assert label(dataset) == "1 0.250000 0.250000 0.500000 0.500000\n"


def test_voc_is_read_again_when_a_file_changes(tmp_path: Path) -> None:
    spec = voc(tmp_path, OBJECT.format("car", 1, 1, 32, 24))
    first = read(spec, tmp_path)
    assert read(spec, tmp_path) == first
    voc(tmp_path, OBJECT.format("car", 1, 1, 64, 24) + " ")
    assert label(read(spec, tmp_path)) == "1 0.500000 0.250000 1.000000 0.500000\n"
    assert read(spec, tmp_path).split("train")[0].digest != first.split("train")[0].digest


def test_voc_a_list_names_the_split(tmp_path: Path) -> None:
    spec = voc(tmp_path, "", train={"images": "images", "annotations": "xml", "list": "train.txt"})
    put(tmp_path / "train.txt", "train/a 1\n")
    assert [Path(source.path).name for source in read(spec, tmp_path).split("train")] == ["a.png"]


LISTED = {"images": "images", "annotations": "xml", "list": "train.txt"}


@pytest.mark.parametrize("text", ["train/a.png\nval/b\ngone\n", "train/a 1\nval/b.png -1\ngone.png 1\n"])
def test_voc_a_list_names_images_with_and_without_suffix(text: str, tmp_path: Path) -> None:
    put(tmp_path / "train.txt", text)
    dataset = read(voc(tmp_path, "", train=LISTED), tmp_path)
    assert [Path(source.path).name for source in dataset.split("train")] == ["a.png", "b.png"]
    (lost,) = dataset.notes["not there"]
    assert lost.startswith("train: gone")


@pytest.mark.parametrize(("text", "words"), [("\n", "it is empty"), ("gone\nlost\n", "'gone' is no image of")])
def test_voc_a_list_without_any_image_says_so(text: str, words: str, tmp_path: Path) -> None:
    put(tmp_path / "train.txt", text)
    with pytest.raises(UsageError, match=words) as caught:
        read(voc(tmp_path, "", train=LISTED), tmp_path)
    assert caught.value.message.startswith(f"dataset.train.list: {tmp_path}/train.txt names no image")


def test_voc_files_without_image_and_of_two_images_are_counted(tmp_path: Path) -> None:
    spec = voc(tmp_path, "")
    put(tmp_path / "xml/old/c.xml", "<annotation/>")
    save(tmp_path / "images/train/a.jpg", photo(3))
    notes = read(spec, tmp_path).notes
    assert notes["unused"] == [str(tmp_path / "xml/old/c.xml")]
    assert len(notes["one label"]) == 1
    assert set(notes) <= set(NOTES)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("<annotation>", id="broken"),
        pytest.param("<annotation/>", id="no size"),
        pytest.param('<!DOCTYPE x [<!ENTITY e "boom">]><annotation>&e;</annotation>', id="entities"),
        pytest.param("<annotation><size><width>0</width><height>0</height></size></annotation>", id="size nought"),
        pytest.param(
            f"<annotation><size><width>9</width><height>9</height></size>{OBJECT.format('x', 1, 'a', 2, 3)}</annotation>",
            id="no number",
        ),
    ],
)
def test_what_is_not_voc_is_the_problem_of_its_image_alone(text: str, tmp_path: Path) -> None:
    spec = voc(tmp_path, "")
    put(tmp_path / "xml/a.xml", text)
    dataset = read(spec, tmp_path)
    (bad,), (good,) = dataset.split("train"), dataset.split("val")
    assert (bad.problem or "").startswith("annotation: a.xml")
    assert good.problem is None
