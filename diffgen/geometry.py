"""Pixels in, pixels out: decoding, fitting to a model's working size and back. Never crops, squashes or shifts.

Images are (H, W, 3) uint8 RGB arrays, upright.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageOps, UnidentifiedImageError

from diffgen.errors import SourceError, why
from diffgen.types import Settings

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


@dataclass(frozen=True, slots=True)
class Fit:
    """How a source of (width, height) lies in a working image of `size`: scaled to `inner`, padded by left and top."""

    source: tuple[int, int]
    inner: tuple[int, int]
    left: int
    top: int
    size: tuple[int, int]


@lru_cache(maxsize=4096)  # many sources are of few sizes
def plan_fit(width: int, height: int, long_side: int, multiple: int, smallest: int | None = None) -> Fit:
    """Fit a (width, height) source to a long side of `long_side` pixels and pad both sides to `multiple`.

    With `smallest`, a source whose long side lies between `smallest` and `long_side` keeps its own size.
    """
    longest = max(width, height)
    target = long_side if smallest is None else min(max(longest, smallest), long_side)
    inner = max(1, round(width * target / longest)), max(1, round(height * target / longest))
    size = -(-inner[0] // multiple) * multiple, -(-inner[1] // multiple) * multiple
    return Fit((width, height), inner, (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2, size)


def plan_for(width: int, height: int, settings: Settings) -> Fit:
    """How a (width, height) source is worked on: scaled to the working size, or, in tiles, at its own size."""
    longest = max(width, height)
    if settings.mode == "tile" and longest > settings.long_side:
        return plan_fit(width, height, longest, settings.multiple)
    return plan_fit(width, height, settings.long_side, settings.multiple, settings.smallest)


def views_for(plan: Fit, settings: Settings) -> list[View]:
    """The tiles in which a picture is worked on; one that is the whole picture where it fits in."""
    side = settings.long_side // settings.multiple * settings.multiple
    if settings.mode != "tile" or max(plan.size) <= side:
        return [View(0, 0, plan.size)]
    return plan_tiles(plan.size, side, settings.multiple, side // 4)


@dataclass(frozen=True, slots=True)
class View:
    """Where a tile lies in the whole working picture: its corner, and the size (width, height) of the whole, in pixels."""

    left: int
    top: int
    whole: tuple[int, int]


def plan_tiles(size: tuple[int, int], side: int, step: int, overlap: int) -> list[View]:
    """Tiles of at most `side` pixels that cover a working picture of `size`, neighbours sharing `overlap` or more.

    Corners are multiples of `step` (the model's cells); rows from the top, each from the left.
    """
    columns, rows = (_starts(length, side, step, overlap) for length in size)
    return [View(left, top, size) for top in rows for left in columns]


def _starts(length: int, side: int, step: int, overlap: int) -> list[int]:
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    last = length - side
    return [round(last * i / (count - 1) / step) * step for i in range(count)]


def cut(pixels: NDArray[Any], view: View, side: int) -> NDArray[Any]:
    """The tile of a picture or mask."""
    return np.ascontiguousarray(pixels[view.top : view.top + side, view.left : view.left + side])


def merge(tiles: Sequence[Pixels], views: Sequence[View]) -> Pixels:
    """One picture of its tiles, each weighing less towards its edges, so that no seam shows."""
    width, height = views[0].whole
    total = np.zeros((height, width, 3), dtype=np.float32)
    weights = np.zeros((height, width, 1), dtype=np.float32)
    for tile, view in zip(tiles, views, strict=True):
        rows, columns = (_tent(n) for n in tile.shape[:2])
        weight = (rows[:, None] * columns[None, :])[..., None]
        place = np.s_[view.top : view.top + tile.shape[0], view.left : view.left + tile.shape[1]]
        total[place] += weight * tile
        weights[place] += weight
    return np.asarray((total / weights).round(), dtype=np.uint8)


def _tent(n: int) -> NDArray[np.float32]:
    """1 in the middle, falling evenly to nearly 0 at both ends."""
    away = np.abs(np.arange(n, dtype=np.float32) - (n - 1) / 2)
    return np.asarray(1 - away / (n / 2), dtype=np.float32)


def fit(pixels: Pixels, plan: Fit, *, mix: bool = True) -> Pixels:
    """Scale and pad: by reflection, or by the edge where the side is too short to reflect.

    `pixels` is the plan's source, or a map of it of any size. Without `mix` no colour is made that was not there.
    """
    inner = _resize(pixels, plan.inner, PILImage.Resampling.LANCZOS if mix else PILImage.Resampling.NEAREST)
    for axis, before, total in ((0, plan.top, plan.size[1]), (1, plan.left, plan.size[0])):
        side = inner.shape[axis]
        after = total - side - before
        if before or after:
            widths = [(0, 0), (0, 0), (0, 0)]
            widths[axis] = (before, after)
            inner = np.pad(inner, widths, mode="reflect" if max(before, after) < side else "edge")
    return np.ascontiguousarray(inner)


def unfit(pixels: Pixels, plan: Fit) -> Pixels:
    """Take the padding off and scale back to the source's own size. Raises ValueError on a size not the plan's."""
    if pixels.shape != (plan.size[1], plan.size[0], 3):
        raise ValueError(f"expected an image of shape {(plan.size[1], plan.size[0], 3)}, got {pixels.shape}")
    inner = pixels[plan.top : plan.top + plan.inner[1], plan.left : plan.left + plan.inner[0]]
    return _resize(inner, plan.source)


def _resize(
    pixels: Pixels, size: tuple[int, int], resampling: PILImage.Resampling = PILImage.Resampling.LANCZOS
) -> Pixels:
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    image = PILImage.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize(size, resampling), dtype=np.uint8)
