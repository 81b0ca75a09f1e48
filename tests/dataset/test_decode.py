"""`decode` gives the pixels that Ultralytics trains on: every mode, file format and EXIF orientation, compared with its own
reader. Importing that needs torch, so this is no unit test."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffgen.dataset.images import decode, read_size
from diffgen.errors import SourceError

pytestmark = pytest.mark.e2e

Reader = Callable[[str], Any]


@pytest.fixture(scope="module")
def imread() -> Reader:
    before = Image.open
    from ultralytics.utils.patches import imread

    Image.open = before  # type: ignore[assignment] # importing Ultralytics replaces it
    return imread


def smooth(seed: int, channels: int) -> np.ndarray:
    """A smooth (48, 64, channels) picture, so that lossy formats have something to lose."""
    small = np.random.default_rng(seed).integers(0, 255, (12, 16, channels), dtype=np.uint8)
    planes = [Image.fromarray(small[..., i]).resize((64, 48), Image.Resampling.BICUBIC) for i in range(channels)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


RGB = Image.fromarray(smooth(0, 3))
GREY = Image.fromarray(smooth(1, 1)[..., 0])
ALPHA = Image.fromarray(smooth(2, 1)[..., 0])
RGBA = Image.merge("RGBA", (*RGB.split(), ALPHA))
LA = Image.merge("LA", (GREY, ALPHA))
PALETTE = RGB.convert("P", palette=Image.Palette.ADAPTIVE)
DEEP = Image.fromarray(smooth(1, 1)[..., 0].astype(np.uint16) * 257 - 13)

CASES: dict[str, tuple[Image.Image, dict[str, Any]]] = {
    **{f"rgb.{suffix}": (RGB, {}) for suffix in ("jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff")},
    **{f"grey.{suffix}": (GREY, {}) for suffix in ("jpg", "png", "bmp", "tif")},
    "subsampled.jpg": (RGB, {"quality": 70, "subsampling": 2}),
    "progressive.jpg": (RGB, {"progressive": True}),
    "lossless.webp": (RGBA, {"lossless": True}),
    "cmyk.jpg": (RGB.convert("CMYK"), {}),
    "cmyk.tif": (RGB.convert("CMYK"), {}),
    "rgba.png": (RGBA, {}),
    "rgba.tif": (RGBA, {}),
    "la.png": (LA, {}),
    "palette.png": (PALETTE, {}),
    "palette.bmp": (PALETTE, {}),
    "palette.tif": (PALETTE, {}),
    "palette-alpha.png": (RGBA.quantize(64), {}),
    "palette-transparent.png": (PALETTE, {"transparency": 3}),
    "bits.png": (GREY.convert("1"), {}),
    "bits.tif": (GREY.convert("1"), {}),
    "deep.png": (DEEP, {}),
    "deep.tif": (DEEP, {}),
    "several.mpo": (RGB, {"save_all": True, "append_images": [RGB.rotate(90)]}),
    "pages.tif": (RGB, {"save_all": True, "append_images": [RGB.rotate(180)]}),
}


def compare(path: Path, imread: Reader) -> None:
    theirs = imread(str(path))
    theirs = theirs[..., ::-1] if theirs.shape[2] == 3 else np.repeat(theirs, 3, axis=2)
    ours = decode(path.read_bytes())
    assert np.array_equal(ours, theirs)
    assert read_size(path.read_bytes()) == (ours.shape[1], ours.shape[0])


@pytest.mark.parametrize("name", CASES)
def test_every_mode_and_format(name: str, tmp_path: Path, imread: Reader) -> None:
    image, options = CASES[name]
    image.save(tmp_path / name, **options)
    compare(tmp_path / name, imread)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(orientation: int, suffix: str, tmp_path: Path, imread: Reader) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    RGB.save(tmp_path / f"a.{suffix}", exif=exif)
    compare(tmp_path / f"a.{suffix}", imread)


XMP = '<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_an_orientation_in_xmp_turns_nothing(suffix: str, tmp_path: Path, imread: Reader) -> None:
    """macOS writes it there alone. OpenCV does not look there, so the labels are for the picture as it is stored."""
    options: dict[str, Any] = {"xmp": XMP.encode()}
    if suffix == "png":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP)
        options = {"pnginfo": info}
    if suffix == "tif":
        options = {"tiffinfo": {700: XMP.encode()}}
    RGB.save(tmp_path / f"a.{suffix}", **options)
    assert decode((tmp_path / f"a.{suffix}").read_bytes()).shape == (48, 64, 3)
    compare(tmp_path / f"a.{suffix}", imread)


def test_nor_does_one_in_a_raw_profile(tmp_path: Path, imread: Reader) -> None:
    """ImageMagick writes EXIF into PNG so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = exif.tobytes()
    info = PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n{len(data):8}\n{data.hex()}\n")
    RGB.save(tmp_path / "a.png", pnginfo=info)
    compare(tmp_path / "a.png", imread)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_exif_that_cannot_be_written_again(orientation: int, suffix: str, tmp_path: Path, imread: Reader) -> None:
    """Phones and drones write tags of odd types, which Pillow can read and not write. Reading has to write nothing."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x011A] = 72
    raw = io.BytesIO()
    RGB.save(raw, "TIFF" if suffix == "tif" else "JPEG", exif=exif)
    content = raw.getvalue()
    order = "<" if b"II*\0" in content[:60] else ">"
    entry = struct.pack(f"{order}HH", 0x011A, 5)
    assert entry in content
    # The resolution becomes a signed rational that is negative, as in a photograph of a DJI drone.
    at = content.index(entry)
    block = content.index(b"II*\0" if order == "<" else b"MM\0*")
    place = block + struct.unpack_from(f"{order}I", content, at + 8)[0]
    changed = bytearray(content)
    changed[at : at + 4] = struct.pack(f"{order}HH", 0x011A, 10)
    changed[place : place + 8] = struct.pack(f"{order}ii", -72, 1)
    (tmp_path / f"a.{suffix}").write_bytes(changed)
    compare(tmp_path / f"a.{suffix}", imread)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_colour(suffix: str, channels: int, tmp_path: Path, imread: Reader) -> None:
    import cv2

    if (suffix, channels) == ("tif", 4):
        pytest.skip("Pillow reads no 16-bit TIFF with alpha; such a source is carried over unedited")
    pixels = smooth(0, channels).astype(np.uint16) * 250 + 77
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), pixels)
    compare(tmp_path / f"a.{suffix}", imread)


@pytest.mark.parametrize("image", [Image.fromarray(smooth(1, 1)[..., 0].astype(np.float32) / 255), RGB.convert("LAB")])
def test_modes_that_are_not_edited_are_known_by_their_header(image: Image.Image, tmp_path: Path) -> None:
    image.save(tmp_path / "a.tif")
    for read in (read_size, decode):
        with pytest.raises(SourceError, match="not supported"):
            read((tmp_path / "a.tif").read_bytes())
