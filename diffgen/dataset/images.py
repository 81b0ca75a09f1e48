"""Decoding and encoding image files. Images are (H, W, 3) uint8 RGB arrays, upright."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageOps, UnidentifiedImageError

from diffgen.errors import SourceError, why

Pixels = NDArray[np.uint8]
REC_709 = np.array([0.2126, 0.7152, 0.0722], np.float32)  # luma weights of R, G, B, applied to sRGB values

# Suffixes of files that are edited. The others that Ultralytics reads (heic, avif, dng, jp2) are carried over unchanged.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".mpo"})
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")  # Pillow opens MPO as JPEG; as a format name it is a KeyError
_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_TOO_LARGE = (PILImage.DecompressionBombError, PILImage.DecompressionBombWarning)
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, *_TOO_LARGE)  # what Pillow raises for broken files


def read_size(raw: bytes) -> tuple[int, int]:
    """Upright (width, height) in pixels of an image file's bytes, from its header alone. Raises SourceError."""
    with _opened(raw, "read") as image:
        width, height = image.size
        # For TIFF, Pillow applies the orientation itself.
        sideways = image.format != "TIFF" and image.getexif().get(_ORIENTATION) in _SIDEWAYS
        return (height, width) if sideways else (width, height)


def decode(raw: bytes) -> Pixels:
    """The pixels that a detector trains on: EXIF orientation applied, alpha dropped, of 16 bits the high byte.

    Raises SourceError if the bytes do not decode.
    """
    with _opened(raw, "decode") as image:
        return _to_rgb(ImageOps.exif_transpose(image), image.format)


@contextmanager
def _opened(raw: bytes, verb: str) -> Iterator[PILImage.Image]:
    """The opened image. Raises SourceError for errors of Pillow, and for a mode that we do not support."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PILImage.DecompressionBombWarning)
            with PILImage.open(io.BytesIO(raw), formats=FORMATS) as image:
                if image.mode in ("F", "LAB"):  # Ultralytics does not read these, or reads other colours than we would
                    raise ValueError(f"images of mode {image.mode} are not supported")
                yield image
    except UnidentifiedImageError:  # Pillow's text would name an address in memory
        raise SourceError(f"cannot {verb} the image: unknown format") from None
    except BROKEN as error:
        raise SourceError(f"cannot {verb} the image: {why(error)}") from None


def _to_rgb(image: PILImage.Image, file_format: str | None) -> Pixels:
    """(H, W, 3) RGB of any mode, as OpenCV converts it, with which Ultralytics reads images."""
    if image.mode.startswith("I"):  # 16-bit grey
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.stack([grey] * 3, axis=-1)
    if image.mode == "CMYK" and file_format == "JPEG":  # OpenCV leaves TIFF to libtiff, which converts as Pillow does
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
    """The bytes of an image file: "jpg" (4:4:4), "png" or "webp". The metadata mark it as synthetic.

    `note` names the software; `how` is "edited" or "made" by a generative model.
    """
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
