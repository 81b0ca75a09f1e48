"""Decoding and encoding image files. Images are (H, W, 3) uint8 RGB arrays, upright."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from diffgen.dataset.orientation import SIDEWAYS, orientation, upright
from diffgen.errors import SourceError, why

Pixels = NDArray[np.uint8]
REC_709 = np.array([0.2126, 0.7152, 0.0722], np.float32)  # luma weights of R, G, B, applied to sRGB values

# Suffixes of files that are edited. The others that Ultralytics reads (heic, avif, dng, jp2) are copied unchanged.
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".mpo"})
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")  # Pillow opens MPO as JPEG; as a format name it is a KeyError
MOST_PIXELS = 1024**3 // 12  # in one picture: Pillow's own limit, a quarter of a gigabyte of RGB
_ORIENTATION = 0x0112


class TooLarge(SourceError):
    """The picture has more than MOST_PIXELS."""


def read_size(raw: bytes) -> tuple[int, int]:
    """Upright (width, height) in pixels of an image file's bytes, from its header alone. Raises SourceError."""
    with opened(raw, "read") as image:
        width, height = image.size
        return (height, width) if orientation(raw) in SIDEWAYS else (width, height)


def decode(raw: bytes, least: int | None = None) -> Pixels:
    """The pixels that a detector trains on: EXIF orientation applied, alpha dropped, of 16 bits the high byte.

    With `least`, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size if its long side keeps at least that many pixels: that
    is several times faster. Raises SourceError if the bytes do not decode.
    """
    with opened(raw, "decode") as image:
        if least is not None:
            scale = least / max(image.size)
            image.draft(image.mode, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        return upright(_to_rgb(image), orientation(raw))


@contextmanager
def opened(raw: bytes, verb: str) -> Iterator[PILImage.Image]:
    """The opened image. Raises SourceError for whatever goes wrong in the block, and for a mode that we do not support."""
    try:
        with PILImage.open(io.BytesIO(raw), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:  # Pillow only warns
                raise PILImage.DecompressionBombError
            if image.mode in ("F", "LAB"):  # Ultralytics does not read these, or reads other colours than we would
                raise ValueError(f"images of mode {image.mode} are not supported")
            if isinstance(image, TiffImageFile):
                _know_orientation(image)
            yield image
    except PILImage.DecompressionBombError:
        raise TooLarge(f"cannot {verb} the image: it has over {MOST_PIXELS / 1e6:.0f} megapixels") from None
    except UnidentifiedImageError:  # Pillow's text would name an address in memory
        raise SourceError(f"cannot {verb} the image: unknown format") from None
    except Exception as error:  # a decoder may raise anything; it is this picture's fault  # noqa: BLE001
        raise SourceError(f"cannot {verb} the image: {why(error)}") from None


def _know_orientation(image: TiffImageFile) -> None:
    """Lets Pillow, which turns TIFF images while loading them, know the orientation that the file's own tag gives.

    By itself it would also look into XMP, and write the EXIF block again, which fails for odd tags.
    """
    exif, turned = PILImage.Exif(), image.tag_v2.get(_ORIENTATION)
    exif._loaded = True
    if turned in range(1, 9):
        exif[_ORIENTATION] = turned
    image._exif = exif


def _to_rgb(image: PILImage.Image) -> Pixels:
    """(H, W, 3) RGB of any mode, as OpenCV converts it, with which Ultralytics reads images."""
    file_format = image.format
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


# IPTC's word for synthetic media, in XMP as its guideline has it (IPTC Photo Metadata Standard 2023.2, Digital Source Type).
_SYNTHETIC = "trainedAlgorithmicMedia"
_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/{_SYNTHETIC}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


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
        info.add_text("DigitalSourceType", _SYNTHETIC)
        info.add_itxt("XML:com.adobe.xmp", _XMP)
        image.save(out, "PNG", pnginfo=info)
        return out.getvalue()
    exif = PILImage.Exif()
    exif[0x0131] = note  # Software
    exif[0x010E] = f"{_SYNTHETIC}: {how} by a generative model"  # ImageDescription
    if image_format == "webp":
        image.save(out, "WEBP", quality=quality, exif=exif.tobytes(), xmp=_XMP.encode())
    else:
        image.save(out, "JPEG", quality=quality, subsampling=0, exif=exif.tobytes(), xmp=_XMP.encode())
    return out.getvalue()
