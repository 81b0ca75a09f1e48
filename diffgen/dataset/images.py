"""Image files to pixels and back. Images are (H, W, 3) uint8 RGB arrays, upright."""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageOps, UnidentifiedImageError

from diffgen.errors import SourceError, why

Pixels = NDArray[np.uint8]

# Formats that are edited. The others that Ultralytics reads (heic, avif, dng, jp2) are carried over as they are.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".mpo"})
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")  # Pillow opens MPO as JPEG; asked for by name it is a KeyError
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
# What Pillow raises for files that are not the image they claim to be.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    PILImage.DecompressionBombError,
    PILImage.DecompressionBombWarning,
)


def read_size(raw: bytes) -> tuple[int, int]:
    """Upright (width, height) in pixels of an image file's bytes, from its header alone. Raises SourceError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PILImage.DecompressionBombWarning)
            with PILImage.open(io.BytesIO(raw), formats=FORMATS) as image:
                _check_mode(image)
                width, height = image.size
                # Pillow turns TIFF by itself, and says the upright size.
                if image.format != "TIFF" and image.getexif().get(_ORIENTATION) in _SIDEWAYS:
                    width, height = height, width
                return width, height
    except _BROKEN as error:
        raise SourceError(f"cannot read the image: {_fault(error)}") from None


def decode(raw: bytes) -> Pixels:
    """The pixels a detector trains on: EXIF orientation applied, alpha dropped, 16 bits by their high byte.

    Raises SourceError when the bytes do not decode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PILImage.DecompressionBombWarning)
            with PILImage.open(io.BytesIO(raw), formats=FORMATS) as image:
                _check_mode(image)
                return _to_rgb(ImageOps.exif_transpose(image), image.format)
    except _BROKEN as error:
        raise SourceError(f"cannot decode the image: {_fault(error)}") from None


def _fault(error: Exception) -> str:
    """What is wrong with a file, the same words each time: Pillow's own name an address in memory."""
    return "of no format that is read" if isinstance(error, UnidentifiedImageError) else why(error)


def _check_mode(image: PILImage.Image) -> None:
    """Raises ValueError for colour modes that Ultralytics does not read, or reads as other colours than ours."""
    if image.mode in ("F", "LAB"):
        raise ValueError(f"pictures of mode {image.mode} are not supported")


def _to_rgb(image: PILImage.Image, file_format: str | None) -> Pixels:
    """As OpenCV, which Ultralytics reads with, makes three channels of every mode."""
    if image.mode.startswith("I"):  # 16-bit grey
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.stack([grey] * 3, axis=-1)
    if image.mode == "CMYK" and file_format == "JPEG":  # TIFF is converted by libtiff, as Pillow does it
        ink = np.asarray(image).astype(np.int32)
        paper = 255 - ink[..., 3:]
        return (paper - ((ink[..., :3] * paper) >> 8)).astype(np.uint8)
    if image.mode == "RGBA" and file_format == "TIFF":  # libtiff multiplies by alpha; elsewhere alpha is dropped
        pixels = np.asarray(image).astype(np.int32)
        return ((pixels[..., :3] * pixels[..., 3:] + 127) // 255).astype(np.uint8)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.ascontiguousarray(np.asarray(image.convert("RGB"), dtype=np.uint8))


def encode(pixels: Pixels, image_format: str, quality: int | None, note: str, how: str = "edited") -> bytes:
    """Image file bytes: "jpg" (4:4:4), "png" or "webp"; `note` (what made it) goes into EXIF, or a PNG text chunk, and EXIF
    says `how` it came about."""
    image = PILImage.fromarray(pixels)
    out = io.BytesIO()
    if image_format == "png":
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("Software", note)
        info.add_text("DigitalSourceType", "trainedAlgorithmicMedia")  # IPTC's word for synthetic media
        image.save(out, "PNG", pnginfo=info)
        return out.getvalue()
    exif = PILImage.Exif()
    exif[0x0131] = note  # Software
    exif[0x010E] = f"trainedAlgorithmicMedia: {how} by a generative model"  # ImageDescription
    if image_format == "webp":
        image.save(out, "WEBP", quality=quality, exif=exif.tobytes())
    else:
        image.save(out, "JPEG", quality=quality, subsampling=0, exif=exif.tobytes())
    return out.getvalue()
