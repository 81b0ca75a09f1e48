"""Contact sheets: sources beside their edits, with the labels drawn. For people, not for training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from diffgen.dataset.dataset import Dataset
from diffgen.dataset.images import Pixels, decode
from diffgen.dataset.labels import Shape
from diffgen.errors import SourceError
from diffgen.output.fonts import Font, font_for
from diffgen.output.outcome import Outcome
from diffgen.types import Source

GAP = 6  # pixels between tiles
KEYPOINT_RADIUS = 3  # pixels
LINE = 17  # pixels of height for each line of a caption
MARKS = {True: "#009E73", False: "#D55E00"}
PLACEHOLDER = "#D9D9D9"  # drawn where there is no picture
# By class id, in turn. Okabe and Ito's colours, distinct with any colour vision (Color Universal Design, 2008).
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture, the shapes to draw on it, and a caption of one or more lines.

    `picture` is a file, or (H, W, 3) uint8 RGB. None, or a file that cannot be decoded, is drawn as a grey area. `good`
    puts a green (True) or red (False) mark before the caption.
    """

    picture: Path | Pixels | None
    caption: str
    shapes: tuple[Shape, ...] = ()
    good: bool | None = None


def contact_sheet(rows: Sequence[Sequence[Tile]], names: Sequence[str], tile_width: int = 420) -> Image.Image:
    """Draw rows of tiles, each scaled to a width of `tile_width` pixels. `names` are the class names, by class id."""
    drawn = [_draw_row(row, names, tile_width) for row in rows]
    heights = [max(tile.height for tile in row) + GAP for row in drawn]
    width = max(len(row) for row in drawn) * (tile_width + GAP)
    sheet = Image.new("RGB", (width - GAP, sum(heights) - GAP), "white")
    top = 0
    for row, height in zip(drawn, heights, strict=True):
        for column, tile in enumerate(row):
            sheet.paste(tile, (column * (tile_width + GAP), top))
        top += height
    return sheet


def source_tile(source: Source, shapes: tuple[Shape, ...]) -> Tile:
    """The source itself, with its name and size."""
    return Tile(_picture(source), f"{source.key}\n{source.width} x {source.height} px", shapes)


def _picture(source: Source) -> Path | None:
    return Path(source.path) if source.text is None else None


def png(image: Image.Image) -> bytes:
    """The image encoded as PNG."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def run_sheet(outcome: Outcome, max_sources: int = 8, columns: int | None = None) -> Image.Image:
    """A row for each of the first `max_sources` sources: the source, then its images, each with its verdict.

    With `columns`, a row breaks after that many tiles. Raises ValueError when no image was made.
    """
    rows: dict[str, list[Tile]] = {}
    for entry in outcome.entries:
        if not entry.made:
            continue
        source = entry.item.source
        row = rows.setdefault(source.key, [Tile(_picture(source), source.key, source_shapes(source, outcome.dataset))])
        rejected = f" (rejected: {entry.verdict.reason})" if entry.verdict is not None and not entry.accepted else ""
        caption = f"{entry.item.job.settings.condition}{rejected}"
        row.append(Tile(outcome.image(entry), caption, entry.shapes(outcome.dataset)))
    if not rows:
        raise ValueError("no image was made, there is nothing to show")
    lines = []
    for row in list(rows.values())[:max_sources]:
        width = columns or len(row)
        lines += [row[start : start + width] for start in range(0, len(row), width)]
    return contact_sheet(lines, outcome.dataset.names)


def source_shapes(source: Source, dataset: Dataset) -> tuple[Shape, ...]:
    """The source's labelled objects; none if its label file cannot be parsed. Raises OSError if the file is missing."""
    return dataset.schema.parse_or_nothing(source.read_label())


def _draw_row(row: Sequence[Tile], names: Sequence[str], width: int) -> list[Image.Image]:
    """All pictures of a row start at the same height, below the row's longest caption."""
    lines = max(tile.caption.count("\n") + 1 for tile in row)
    return [_draw(tile, names, width, lines) for tile in row]


def _draw(tile: Tile, names: Sequence[str], width: int, lines: int) -> Image.Image:
    image = _scaled(tile.picture, width)
    pen = ImageDraw.Draw(image)
    for shape in tile.shapes:
        colour = COLOURS[shape.class_id % len(COLOURS)]
        points = shape.outline or _corners(shape.box)
        pen.polygon([(x * image.width, y * image.height) for x, y in points], outline=colour, width=2)
        for x, y in shape.keypoints:
            pen.circle((x * image.width, y * image.height), KEYPOINT_RADIUS, fill=colour, outline="black")
        x, y = shape.box[0] * image.width + 2, max(0.0, shape.box[1] * image.height - 13)
        text = names[shape.class_id]
        font = font_for(text, 11)
        if font is None:
            text, font = f"#{shape.class_id}", ImageFont.load_default(size=11)
        if (shape.box[2] - shape.box[0]) * image.width < pen.textlength(text, font=font):
            continue  # a name wider than its box would cover other objects
        pen.rectangle(pen.textbbox((x, y), text, font=font), fill=colour)
        pen.text((x, y), text, fill="black", font=font)
    above = lines * LINE + 3
    framed = Image.new("RGB", (width, image.height + above), "white")
    framed.paste(image, (0, above))
    pen = ImageDraw.Draw(framed)
    left = 4
    if tile.good is not None:
        pen.rectangle((left, 5, left + 10, 15), fill=MARKS[tile.good])
        left += 16
    for i, line in enumerate(tile.caption.split("\n")):
        start, font = left if i == 0 else 4, font_for(line, 12)
        if font is None:
            line, font = line.encode("unicode_escape").decode(), ImageFont.load_default(size=12)
        pen.text((start, 3 + i * LINE), _fitting(line, pen, font, width - start - 4), fill="black", font=font)
    return framed


def _scaled(picture: Path | Pixels | None, width: int) -> Image.Image:
    """The picture at a width of `width` pixels."""
    pixels = _decoded(picture) if isinstance(picture, Path) else picture
    if pixels is None:
        return Image.new("RGB", (width, width * 9 // 16), PLACEHOLDER)
    image = Image.fromarray(pixels)
    return image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)


def _decoded(path: Path) -> Pixels | None:
    try:
        return decode(path.read_bytes())
    except (OSError, SourceError):
        return None


def _fitting(text: str, pen: ImageDraw.ImageDraw, font: Font, width: float) -> str:
    """The text; if it is wider than `width` pixels, its middle is replaced by "…"."""
    keep = len(text)
    short = text
    while keep > 2 and pen.textlength(short, font=font) > width:
        keep -= 1
        short = f"{text[: (keep + 1) // 2]}…{text[len(text) - keep // 2 :]}"
    return short


def _corners(box: tuple[float, float, float, float]) -> tuple[tuple[float, float], ...]:
    x0, y0, x1, y1 = box
    return (x0, y0), (x1, y0), (x1, y1), (x0, y1)
