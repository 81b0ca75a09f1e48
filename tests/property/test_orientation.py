"""Whatever stands in a file's EXIF, its pixels are those that OpenCV gives, with which Ultralytics reads pictures."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffgen.dataset.images import decode, read_size
from diffgen.dataset.orientation import orientation, upright

SMALL = np.random.default_rng(0).integers(0, 255, (3, 5, 3), dtype=np.uint8)
PICTURE = Image.fromarray(SMALL).resize((40, 24), Image.Resampling.BICUBIC)  # no two orientations of it are alike
# Tags that OpenCV reads, and others; the sizes of EXIF's types.
TAGS = [
    0x100,
    0x10E,
    0x10F,
    0x110,
    0x11A,
    0x11B,
    0x128,
    0x131,
    0x132,
    0x13E,
    0x13F,
    0x211,
    0x213,
    0x214,
    0x8298,
    0x8769,
    0x9999,
]
FORMATS = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d"}
XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:tiff="t" tiff:Orientation="6"/>'

Entry = tuple[int, int, int, bytes, "int | None"]  # tag, type, count, value, or where it claims to be


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """An EXIF block with an orientation of any type, among entries that may point anywhere; sometimes cut short."""
    order = draw(st.sampled_from("<>"))
    value, kind = draw(st.integers(0, 9)), draw(st.sampled_from([3, 3, 3, *FORMATS]))
    numbers = [value, 1][: len(FORMATS[kind])]
    entries: list[Entry] = [(0x112, kind, 1, struct.pack(order + FORMATS[kind], *numbers), None)]
    for _ in range(draw(st.integers(0, 4))):
        count = draw(st.sampled_from([0, 1, 2, 3, 6, 20]))
        text = draw(st.binary(min_size=min(count, 20), max_size=40))
        place = draw(st.sampled_from([None, None, None, 7, 10**6, 2**31, 0xFFFFFFF0]))
        entries.insert(
            draw(st.integers(0, len(entries))),
            (draw(st.sampled_from(TAGS)), draw(st.integers(0, 13)), count, text, place),
        )
    if draw(st.booleans()):
        entries.sort(key=lambda entry: entry[0])
    block = _block(entries, order)
    return block[: draw(st.integers(0, len(block)))] if draw(st.integers(0, 9)) == 0 else block


def _block(entries: list[Entry], order: str) -> bytes:
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    fields, data = b"", b""
    for tag, kind, count, value, place in entries:
        if place is None and len(value) > 4:
            place = len(head) + 12 * len(entries) + 4 + len(data)
            data += value
        fields += struct.pack(f"{order}HHI", tag, kind, count)
        fields += value.ljust(4, b"\0")[:4] if place is None else struct.pack(f"{order}I", place)
    return head + fields + bytes(4) + data


def _saved(kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    PICTURE.save(out, kind, **options)
    return out.getvalue()


def jpeg(block: bytes, xmp_first: bool, after_jfif: bool) -> bytes:
    segments = [b"Exif\0\0" + block, *([XMP] if xmp_first else [])]
    written = b"".join(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in reversed(segments))
    raw = _saved("JPEG")
    at = 4 + struct.unpack(">H", raw[4:6])[0] if after_jfif else 2
    return raw[:at] + written + raw[at:]


def png(block: bytes, last: bool, **_: Any) -> bytes:
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block + struct.pack(">I", zlib.crc32(b"eXIf" + block))
    raw = _saved("PNG")
    at = raw.index(b"IEND" if last else b"IDAT") - 4
    return raw[:at] + chunk + raw[at:]


def same_as_opencv(raw: bytes) -> None:
    data = np.frombuffer(raw, np.uint8)
    plain = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    theirs = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert np.array_equal(upright(plain, orientation(raw)), theirs)
    ours = decode(raw)
    assert read_size(raw) == (ours.shape[1], ours.shape[0])
    assert ours.shape == theirs.shape
    assert np.abs(ours[..., ::-1].astype(int) - theirs).max() <= 3


@given(blocks(), st.booleans(), st.booleans())
def test_jpeg(block: bytes, xmp_first: bool, after_jfif: bool) -> None:
    same_as_opencv(jpeg(block, xmp_first, after_jfif))


@given(blocks(), st.booleans())
def test_png(block: bytes, last: bool) -> None:
    same_as_opencv(png(block, last))


@given(blocks(), st.booleans())
def test_webp(block: bytes, prefixed: bool) -> None:
    same_as_opencv(_saved("WEBP", lossless=True, exif=(b"Exif\0\0" if prefixed else b"") + block))
