"""Decoding, fitting and undoing, encoding."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffgen.dataset.geometry import canvas_of, fit, unfit
from diffgen.dataset.images import decode, encode, read_size
from diffgen.errors import SourceError
from tests.fakes import photo, save


def encoded(image: Image.Image, fmt: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


# (orientation, how the stored pixels are turned for the picture to stand upright)
ORIENTATIONS = [
    (1, lambda a: a),
    (2, lambda a: a[:, ::-1]),
    (3, lambda a: a[::-1, ::-1]),
    (4, lambda a: a[::-1]),
    (5, lambda a: a.transpose(1, 0, 2)),
    (6, lambda a: np.rot90(a, -1)),
    (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
    (8, lambda a: np.rot90(a)),
]


@pytest.mark.parametrize(("orientation", "turn"), ORIENTATIONS, ids=[str(o) for o, _ in ORIENTATIONS])
def test_the_exif_orientation_is_applied(orientation: int, turn: object, tmp_path: Path) -> None:
    stored = photo(3, (24, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    raw = encoded(Image.fromarray(stored), "PNG", exif=exif)
    upright = turn(stored)  # type: ignore[operator]
    assert np.array_equal(decode(raw), upright)
    path = tmp_path / "a.png"
    path.write_bytes(raw)
    assert read_size(path.read_bytes()) == (upright.shape[1], upright.shape[0])


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),  # alpha is dropped, not blended
        ("LA", (50, 0), (50, 50, 50)),
        ("I;16", 0x4321, (0x43, 0x43, 0x43)),  # the high byte
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_every_mode_becomes_rgb(mode: str, value: object, expected: tuple[int, int, int]) -> None:
    raw = encoded(Image.new(mode, (12, 10), value), "TIFF" if mode == "CMYK" else "PNG")  # type: ignore[arg-type]
    pixels = decode(raw)
    assert pixels.shape == (10, 12, 3)
    assert pixels.dtype == np.uint8
    assert tuple(pixels[5, 5]) == expected


def test_a_palette_with_transparency_keeps_its_colours() -> None:
    image = Image.new("P", (12, 10), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert tuple(decode(encoded(image, "PNG", transparency=1))[0, 0]) == (200, 100, 50)


@pytest.mark.parametrize(
    "raw",
    [b"", b"not an image", encoded(Image.fromarray(photo(1)), "JPEG")[:200], encoded(Image.new("L", (9, 9)), "GIF")],
    ids=["empty", "text", "cut short", "a format that is not edited"],
)
def test_what_does_not_decode_is_a_source_error(raw: bytes) -> None:
    with pytest.raises(SourceError, match="cannot decode the image"):
        decode(raw)


def test_an_mpo_is_read_by_its_first_picture() -> None:
    two = encoded(Image.fromarray(photo(1)), "MPO", save_all=True, append_images=[Image.fromarray(photo(2))])
    assert np.abs(decode(two).astype(int) - photo(1)).mean() < 10


def test_a_picture_of_absurd_size_is_a_source_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = save(tmp_path / "big.png", photo(1))
    with pytest.raises(SourceError):
        decode(path.read_bytes())
    with pytest.raises(SourceError):
        read_size(path.read_bytes())


# (source, long side, multiple, smallest, inner, size)
FITS = [
    ((640, 480), 512, 8, None, (512, 384), (512, 384)),
    ((1242, 375), 512, 8, None, (512, 155), (512, 160)),
    ((375, 1242), 512, 8, None, (155, 512), (160, 512)),
    ((100, 100), 512, 64, None, (512, 512), (512, 512)),
    ((2000, 1), 512, 8, None, (512, 1), (512, 8)),
    ((300, 200), 1024, 32, 256, (300, 200), (320, 224)),  # between smallest and long side: its own size
    ((100, 50), 1024, 32, 256, (256, 128), (256, 128)),
    ((4000, 2000), 1024, 32, 256, (1024, 512), (1024, 512)),
]


@pytest.mark.parametrize(("source", "long_side", "multiple", "smallest", "inner", "size"), FITS)
def test_plan_fit(
    source: tuple[int, int],
    long_side: int,
    multiple: int,
    smallest: int | None,
    inner: tuple[int, int],
    size: tuple[int, int],
) -> None:
    plan = canvas_of(*source, long_side, multiple, smallest)
    assert (plan.inner, plan.size) == (inner, size)
    assert (plan.left, plan.top) == ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)


def test_padding_is_a_reflection_and_comes_off_again() -> None:
    pixels = photo(5, (61, 45))
    plan = canvas_of(61, 45, 61, 8)
    padded = fit(pixels, plan)
    assert padded.shape == (48, 64, 3)
    assert np.array_equal(padded[plan.top : plan.top + 45, plan.left - 1], pixels[:, 1])
    assert np.array_equal(unfit(padded, plan), pixels)


def test_a_side_too_short_to_reflect_is_padded_by_its_edge() -> None:
    pixels = photo(5, (64, 2))
    plan = canvas_of(64, 2, 64, 32)
    padded = fit(pixels, plan)
    assert padded.shape == (32, 64, 3)
    assert np.array_equal(padded[0], pixels[0])
    assert np.array_equal(padded[-1], pixels[-1])


def test_unfit_refuses_another_size() -> None:
    plan = canvas_of(64, 48, 64, 8)
    with pytest.raises(ValueError, match=r"expected an image of shape \(48, 64, 3\), got \(56, 64, 3\)"):
        unfit(np.zeros((56, 64, 3), np.uint8), plan)


@pytest.mark.parametrize("fmt", ["jpg", "png", "webp"])
def test_a_made_image_is_marked_synthetic_and_upright(fmt: str) -> None:
    raw = encode(photo(2), fmt, None if fmt == "png" else 95, "diffgen test")
    with Image.open(io.BytesIO(raw)) as image:
        assert image.size == (64, 48)
        assert image.getexif().get(0x0112) is None
        texts = [str(v) for v in (*image.getexif().values(), *getattr(image, "text", {}).values())]
    assert "diffgen test" in texts
    assert any("trainedAlgorithmicMedia" in text for text in texts)
    assert b"digitalsourcetype/trainedAlgorithmicMedia" in raw, "in XMP, where scanners look for it"


def test_png_is_lossless_and_jpg_has_full_chroma() -> None:
    pixels = photo(2)
    assert np.array_equal(decode(encode(pixels, "png", None, "x")), pixels)
    with Image.open(io.BytesIO(encode(pixels, "jpg", 95, "x"))) as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3


def test_encoding_twice_gives_the_same_bytes() -> None:
    for fmt, quality in (("jpg", 95), ("png", None), ("webp", 80)):
        assert encode(photo(2), fmt, quality, "x") == encode(photo(2), fmt, quality, "x")
