"""The EXIF orientation of an image file as OpenCV reads it, with which Ultralytics trains: labels are drawn on those pixels.

Pillow also honours an orientation in XMP and in ImageMagick's raw profiles, and takes one of any type. OpenCV (exif.cpp and
grfmt_*.cpp of 4.13 and 5.0) reads the EXIF block alone, entry after entry up to the first that points outside of it, and of
the orientation the first 16 bits, whatever type it claims to be.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_ORIENTATION = 0x0112
# Entries whose value OpenCV follows to another place in the block: texts, and rationals (tag -> how many).
_TEXTS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x8298)
_RATIONALS = {0x011A: 1, 0x011B: 1, 0x013E: 2, 0x013F: 6, 0x0211: 3, 0x0214: 6}

SIDEWAYS = (5, 6, 7, 8)  # those that swap width and height


def orientation(raw: bytes) -> int:
    """The EXIF orientation, 1 to 8, of a JPEG, PNG or WebP file's bytes; 1 for other files, and if there is no valid one."""
    for block in _blocks(raw):
        if (found := _of_block(block)) is not None:
            return found if 1 <= found <= 8 else 1
    return 1


def upright(pixels: NDArray[np.uint8], turned: int) -> NDArray[np.uint8]:
    """The pixels (H, W, C) turned upright, for an orientation from 1 to 8."""
    if turned in SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    if turned in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turned in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _blocks(raw: bytes) -> Iterator[bytes]:
    """The EXIF blocks of a file, starting at their byte order mark."""
    if raw.startswith(b"\xff\xd8"):
        yield from _jpeg_blocks(raw)
    elif raw.startswith(b"\x89PNG\r\n\x1a\n"):
        yield from (body for name, body in _chunks(raw, 8, ">", length_first=True) if name == b"eXIf")
    elif raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        yield from (body for name, body in _chunks(raw, 12, "<", length_first=False) if name == b"EXIF")


def _jpeg_blocks(raw: bytes) -> Iterator[bytes]:
    """EXIF blocks from the segments before the image data."""
    at = 2
    while at + 4 <= len(raw) and raw[at] == 0xFF:
        marker = raw[at + 1]
        if marker == 0xFF:  # fill bytes
            at += 1
            continue
        if marker in (0xDA, 0xD9):
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # without length
            at += 2
            continue
        length = int.from_bytes(raw[at + 2 : at + 4], "big")
        body = raw[at + 4 : at + 2 + length]
        if marker == 0xE1 and len(body) > 6 and body.startswith(b"Exif\0\0"):
            yield body[6:]
        at += 2 + max(length, 2)


def _chunks(raw: bytes, at: int, order: str, length_first: bool) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of the chunks of PNG (length, name, content, checksum) or RIFF (name, length, content, a pad byte)."""
    while at + 8 <= len(raw):
        first, second = raw[at : at + 4], raw[at + 4 : at + 8]
        name, size = (second, first) if length_first else (first, second)
        (length,) = struct.unpack(f"{order}I", size)
        yield name, raw[at + 8 : at + 8 + length]
        at += 8 + length + (4 if length_first else length % 2)


def _of_block(data: bytes) -> int | None:
    """The orientation in an EXIF block; None if OpenCV finds none."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2], ">")

    def number(at: int, size: int) -> int:
        value: int = struct.unpack_from(f"{order}{'H' if size == 2 else 'I'}", data, at)[0]
        return value

    try:
        if number(2, 2) != 42:
            return None
        at = number(4, 4)
        for entry in range(at + 2, at + 2 + 12 * number(at, 2), 12):
            tag = number(entry, 2)
            if tag == _ORIENTATION:
                return number(entry + 8, 2)
            if tag in _TEXTS:
                size = number(entry + 4, 4)
                place = number(entry + 8, 4) if size > 4 else 8
                if place + size > len(data):
                    return None
            elif tag in _RATIONALS:
                number(number(entry + 8, 4) + 8 * _RATIONALS[tag] - 4, 4)
    except struct.error:  # outside of the block
        return None
    return None
