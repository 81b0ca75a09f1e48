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


@pytest.mark.parametrize(("text", "words"), [("\n", "it is empty"), ("gone\nlost\n", "'gone' is not an image in")])
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


SIZE = "<size><width>64</width><height>48</height></size>"
CAR = OBJECT.format("car", 7, 7, 20, 18)
POLYGON = "<object><name>car</name><polygon>{}</polygon></object>"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"<annotation>{CAR}</annotation>", id="no size"),
        pytest.param(f"<annotation><size><width>0</width><height>0</height></size>{CAR}</annotation>", id="size nought"),
        pytest.param(f"<annotation>{SIZE}{OBJECT.format('car', 20, 18, 7, 7)}</annotation>", id="swapped corners"),
        pytest.param(f"<annotation>{SIZE}{OBJECT.format('car', '7,0', '7,0', '20,0', 18)}</annotation>", id="decimal commas"),
        pytest.param(
            "<annotation>"
            + POLYGON.format("<x1>7</x1><y1>7</y1><x2>20</x2><y2>7</y2><x3>20</x3><y3>18</y3>")
            + "</annotation>",
            id="a polygon",
        ),
        pytest.param(
            "<annotation>" + POLYGON.format("<pt><x>7</x><y>18</y></pt><pt><x>20</x><y>7</y></pt>") + "</annotation>",
            id="points",
        ),
        pytest.param(f"<annotation>{SIZE}<folder>a & b</folder>{CAR}</annotation>", id="a bare ampersand"),
        pytest.param(f'<annotation xmlns="urn:x">{SIZE}{CAR}</annotation>', id="a namespace"),
        pytest.param(f'<?xml version="1.0" encoding="gbk"?><annotation>{SIZE}<folder>图片</folder>{CAR}</annotation>', id="gbk"),
        pytest.param(f'<?xml version="1.0" encoding="shift_jis"?><annotation>{SIZE}<f>写真</f>{CAR}</annotation>', id="sjis"),
    ],
)  # fmt: skip
def test_annotations_as_other_tools_write_them(text: str, tmp_path: Path) -> None:
    spec = voc(tmp_path, "")
    encoding = "gbk" if "gbk" in text else "shift_jis" if "shift_jis" in text else "utf-8"
    (tmp_path / "xml/a.xml").write_bytes(text.encode(encoding))
    dataset = read(spec, tmp_path)
    assert label(dataset) == f"{dataset.names.index('car')} 0.203125 0.250000 0.218750 0.250000\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("<annotation>", "no element found", id="broken"),
        pytest.param('<!DOCTYPE x [<!ENTITY e "boom">]><annotation>&e;</annotation>', "Entit", id="entities"),
        pytest.param("<CVAT><image/></CVAT>", "its root is <cvat>", id="another format"),
        pytest.param(f"<annotation>{SIZE}{OBJECT.format('x', 1, 'a', 2, 3)}</annotation>", "ymin is not a number", id="no number"),
        pytest.param(f"<annotation>{SIZE}{OBJECT.format('', 1, 1, 2, 3)}</annotation>", "has no name", id="no name"),
        pytest.param(f"<annotation>{SIZE}<object><name>x</name></object></annotation>", "neither bndbox", id="no box"),
        pytest.param(f"<annotation>{SIZE}<objekt><bndbox/></objekt></annotation>", "outside of any object", id="no object"),
        pytest.param(f"<annotation>{SIZE}{CAR}{OBJECT.format('x', 90, 9, 99, 12)}</annotation>", "no area within", id="outside"),
        pytest.param(f"<annotation>{SIZE}<folder>{chr(233)}</folder></annotation>", "not UTF-8 text", id="latin-1, not declared"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_leaves_its_picture_out(text: str, reason: str, tmp_path: Path) -> None:
    spec = voc(tmp_path, "")
    (tmp_path / "xml/a.xml").write_bytes(text.encode("latin-1"))
    dataset = read(spec, tmp_path)
    (bad,), (good,) = dataset.split("train"), dataset.split("val")
    assert (bad.problem or "").startswith("annotation: ")
    assert reason in (bad.problem or "")
    assert (bad.left_out, good.left_out) == (True, False)


@pytest.mark.parametrize(("end", "left_out"), [(32, False), (60, True)])
def test_objects_beyond_the_stated_size_belong_to_a_picture_of_another(
    end: int, left_out: bool, tmp_path: Path
) -> None:
    spec = voc(tmp_path, "")
    size = SIZE.replace("64", "32").replace("48", "24")
    put(tmp_path / "xml/a.xml", f"<annotation>{size}{OBJECT.format('car', 1, 1, end, 20)}</annotation>")
    assert read(spec, tmp_path).split("train")[0].left_out == left_out


def test_a_picture_without_objects_needs_no_size(tmp_path: Path) -> None:
    spec = voc(tmp_path, "")
    put(tmp_path / "xml/a.xml", "<annotation/>")
    (source,) = read(spec, tmp_path).split("train")
    assert (source.problem, source.read_label()) == (None, b"")


def test_a_suffix_in_capitals(tmp_path: Path) -> None:
    spec = voc(tmp_path, CAR)
    (tmp_path / "xml/a.xml").rename(tmp_path / "xml/a.XML")
    dataset = read(spec, tmp_path)
    assert label(dataset)
    assert dataset.notes == {}


@pytest.mark.parametrize("line", ["IMG (1)", "IMG (1) -1", "IMG (1).png", "IMG (1).png  1"])
def test_a_list_of_names_with_spaces(line: str, tmp_path: Path) -> None:
    spec = voc(tmp_path, "", train={"images": "images/train", "annotations": "xml", "list": "train.txt"})
    put(tmp_path / "train.txt", f"{line}\ngone\n")
    save(tmp_path / "images/train/IMG (1).png", photo(3))
    dataset = read(spec, tmp_path)
    assert [source.name for source in dataset.split("train")] == ["IMG (1)"]
    assert dataset.notes["not there"] == ["train: gone"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("<annotation>", "no voc annotation can be read: ", id="broken"),
        pytest.param("<annotation/>", "name no object", id="no object"),
        pytest.param(None, "no image has a voc annotation", id="none"),
    ],
)
def test_a_dataset_without_a_class_says_why(text: str | None, message: str, tmp_path: Path) -> None:
    spec = voc(tmp_path, "")
    for name in ("a.xml", "b.xml"):
        (tmp_path / "xml" / name).unlink() if text is None else put(tmp_path / "xml" / name, text)
    with pytest.raises(UsageError, match=message) as caught:
        read(spec, tmp_path)
    assert caught.value.hint
