"""Our label rules against the code that trains: what Ultralytics drops we drop, what it keeps we keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffgen.dataset.formats.yolo import label_path
from diffgen.dataset.labels import LabelError, parse_labels
from tests.fakes import photo, save
from tests.label_texts import DROPPED, KEPT

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def ultralytics() -> Iterator[Any]:
    """ultralytics.data.utils; the import replaces PIL.Image.open, which is put back."""
    opener = Image.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_AUTOINSTALL", "false")
        patch.setenv("YOLO_OFFLINE", "true")
        from ultralytics.data import utils

        Image.open = opener
        yield utils
        Image.open = opener


@pytest.fixture
def trainer_keeps(ultralytics: Any, tmp_path: Path) -> Callable[[bytes, tuple[int, int] | None], bool]:
    image, label = save(tmp_path / "a.jpg", photo(1)), tmp_path / "a.txt"

    def ask(text: bytes, keypoints: tuple[int, int] | None) -> bool:
        label.write_bytes(text)
        points, dims = keypoints or (0, 0)
        answer = ultralytics.verify_image_label(
            (str(image), str(label), "", keypoints is not None, 2, points, dims, False)
        )
        return answer[0] is not None

    return ask


CASES = [row[:3] for row in (*KEPT, *DROPPED)]


@pytest.mark.parametrize(("text", "keypoints"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_keep_and_drop_agree(
    trainer_keeps: Callable[[bytes, tuple[int, int] | None], bool], text: bytes, keypoints: tuple[int, int] | None
) -> None:
    try:
        parse_labels(text, 2, keypoints)
        kept = True
    except LabelError:
        kept = False
    assert kept == trainer_keeps(text, keypoints)


@pytest.mark.parametrize(
    "path",
    [
        "/d/images/train/a.jpg", "/d/images/x/images/a.jpg", "/images/a.jpg", "/d/a.jpg", "/d/images2/a.b.jpg",
        "/d/images/images.v2/a.jpeg", "/d/my.images/images/a.jpg",
    ],
)  # fmt: skip
def test_label_paths_agree(ultralytics: Any, path: str) -> None:
    assert ultralytics.img2label_paths([path]) == [label_path(path)]
