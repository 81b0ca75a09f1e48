"""Photographs for training: several folders, names that keep apart, upright, what is left out said."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from scripts.pocket.photos import list_photos, load_photos


def draw(path: Path, size: tuple[int, int] = (160, 130), turned: int = 1) -> Path:
    """A red picture; `turned`: the EXIF orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[274] = turned
    Image.new("RGB", size, (200, 30, 30)).save(path, exif=exif)
    return path


def test_photographs_of_one_name_in_two_subfolders_keep_apart(tmp_path: Path) -> None:
    draw(tmp_path / "cam1/0001.jpg")
    draw(tmp_path / "cam2/0001.jpg", (130, 160))
    photos = load_photos(list_photos([tmp_path], None, None))
    assert {p.name: tuple(p.pixels.shape[1:]) for p in photos} == {
        "cam1/0001.jpg": (130, 160),
        "cam2/0001.jpg": (160, 130),
    }


def test_two_folders_are_one_set_and_may_not_share_a_name(tmp_path: Path) -> None:
    draw(tmp_path / "one/a.jpg")
    draw(tmp_path / "two/b.jpg")
    folders = [tmp_path / "two", tmp_path / "one"]
    assert [found.name for found in list_photos(folders, None, None)] == ["a.jpg", "b.jpg"]
    draw(tmp_path / "two/a.jpg")
    with pytest.raises(ValueError, match=r"one/a\.jpg and .*two/a\.jpg have one name"):
        list_photos(folders, None, None)


def test_a_picture_of_a_turned_camera_is_upright(tmp_path: Path) -> None:
    draw(tmp_path / "phone.jpg", (160, 130), turned=6)
    (photo,) = load_photos(list_photos([tmp_path], None, None))
    assert photo.pixels.shape == (3, 160, 130)


def test_what_cannot_be_read_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    draw(tmp_path / "good.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    assert [photo.name for photo in load_photos(list_photos([tmp_path], None, None))] == ["good.jpg"]
    assert "broken.jpg: cannot be read and is left out" in capsys.readouterr().err


def test_only_wanted_licences_are_used_and_the_others_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = {"a.jpg": "CC BY 4.0", "sub/b.jpg": "CC BY-SA 4.0", "sub/c.jpg": "CC BY 2.0", "d.jpg": None}
    for name in rows:
        draw(tmp_path / name)
    table = tmp_path / "sources.tsv"
    table.write_text("file\tlicence\n" + "".join(f"{name}\t{text}\n" for name, text in rows.items() if text))
    found = list_photos([tmp_path], table, "CC BY")
    assert [(one.name, one.licence) for one in found] == [("a.jpg", "CC BY 4.0"), ("sub/c.jpg", "CC BY 2.0")]
    assert "2 photographs have no row" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no table"):
        list_photos([tmp_path], None, "CC BY")
