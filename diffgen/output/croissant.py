"""The text of croissant.json: the exported dataset described in Croissant 1.0, the JSON-LD that hubs and loaders read.

Like all of the export it holds no times, hosts or absolute paths. Licence, author and address are the user's to add.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from diffgen.checks.auto_labels import is_text2img
from diffgen.dataset.formats import SPLITS
from diffgen.output.entries import ExportedImage

CARD = "croissant.json"
# The context of the specification, without which its readers warn.
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
# Not by the module mimetypes: it reads the machine's own tables.
_MEDIA_TYPES = {
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".bmp": "image/bmp",
    ".tif": "image/tiff", ".tiff": "image/tiff",
}  # fmt: skip
_SPLIT_TERMS = {"train": "cr:TrainingSplit", "val": "cr:ValidationSplit", "test": "cr:TestSplit"}
_ROWS = (
    "A row of a YOLO label file: class id, then for a box centre x, centre y, width, height; for an outline x1, y1, "
    "x2, y2 and so on; for a pose a box and its points. Coordinates are fractions of the picture's width and height."
)


def croissant_text(
    images: Sequence[ExportedImage], names: Sequence[str], digest: str, data_yaml: str, manifest_sha256: str
) -> str:
    """The card of these images and class names. `digest` is the export's, `data_yaml` the text of that file."""
    card = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"diffgen-{digest[:12]}",
        "description": _description(images),
        **_origin(images),
        "distribution": [
            _file(
                "data.yaml", "application/yaml", hashlib.sha256(data_yaml.encode()).hexdigest(), "The training split."
            ),
            _file(
                "manifest.jsonl",
                "application/jsonlines",
                manifest_sha256,
                "For each image its origin, and for each synthetic one the measured values and the sha256.",
            ),
            _files("images", "images/**/*", sorted({_media_type(image) for image in images})),
            _files("labels", "labels/**/*.txt", ["text/plain"]),
        ],
        "recordSet": [_split_records(images), _class_records(names), _image_records(), _label_records()],
    }
    return json.dumps(card, ensure_ascii=False, indent=1) + "\n"


def _description(images: Sequence[ExportedImage]) -> str:
    """What the dataset is, in a paragraph."""
    made = [image for image in images if image.entry is not None]
    conditions = sorted({image.entry.item.job.settings.condition for image in made if image.entry is not None})
    total, synthetic = Counter(image.split for image in images), Counter(image.split for image in made)
    counts = [f"{split} {total[split]} ({synthetic[split]} synthetic)" for split in SPLITS if total[split]]
    what = "A labelled detection dataset in YOLO's layout"
    if made and not _imagined(made):
        what += f": photographs, and synthetic edits of them for the conditions {', '.join(conditions)}"
    marks = (
        " Synthetic images have a `job` in manifest.jsonl, and are marked as synthetic in their own metadata."
        if made
        else ""
    )
    return f"{what}, written by diffgen. Images: {', '.join(counts) or 'none'}.{marks}"


def _origin(images: Sequence[ExportedImage]) -> dict[str, Any]:
    """How the synthetic images and the labels came about, in the vocabulary of Croissant RAI; nothing without any."""
    made = [image for image in images if image.entry is not None]
    settings = [image.entry.item.job.settings for image in made if image.entry is not None]
    models = sorted({one.model for one in settings})
    if not made:
        return {}
    if _imagined(made):
        return {
            "rai:dataCollection": f"Images generated from text by {', '.join(models)}.",
            "rai:dataAnnotationProtocol": "The labels are a detector's predictions; manifest.jsonl has its confidences.",
            "rai:machineAnnotationTools": sorted({one.annotator for one in settings if one.annotator}),
        }
    return {
        "rai:dataManipulationProtocol": (
            f"Synthetic images were edited from photographs by the diffusion model {', '.join(models)} and checked "
            "against them; geometry does not change."
        ),
        "rai:dataAnnotationProtocol": (
            "The labels are those of the photographs, byte for byte, except for the rows that manifest.jsonl lists "
            "in dropped_rows and added_rows."
        ),
    }


def _imagined(made: Sequence[ExportedImage]) -> bool:
    """Whether the images were made from text: a run makes all of them so, or none."""
    entry = made[0].entry
    return entry is not None and entry.record is not None and is_text2img(entry.record.facts)


def _media_type(image: ExportedImage) -> str:
    return _MEDIA_TYPES.get(image.suffix.lower(), f"image/{image.suffix[1:].lower()}")


def _file(name: str, media_type: str, sha256: str, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "description": description,
        "contentUrl": name,
        "encodingFormat": media_type,
        "sha256": sha256,
    }


def _files(name: str, pattern: str, media_types: list[str]) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": f"{name}-files",
        "name": f"{name}-files",
        "encodingFormat": media_types,
        "includes": pattern,
    }


def _records(name: str, fields: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"@type": "cr:RecordSet", "@id": name, "name": name, **more, "field": fields}


def _field(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": name, "name": name, "dataType": kind, **more}


def _source(files: str, extract: str, regex: str | None = None) -> dict[str, Any]:
    transform = {"transform": {"regex": regex}} if regex else {}
    return {"fileSet": {"@id": f"{files}-files"}, "extract": {"fileProperty": extract}, **transform}


def _split_records(images: Sequence[ExportedImage]) -> dict[str, Any]:
    used = {image.split for image in images}
    return _records(
        "splits",
        [_field("splits/name", "sc:Text"), _field("splits/term", "sc:URL")],
        dataType="cr:Split",
        key={"@id": "splits/name"},
        data=[{"splits/name": split, "splits/term": _SPLIT_TERMS[split]} for split in SPLITS if split in used],
    )


def _class_records(names: Sequence[str]) -> dict[str, Any]:
    return _records(
        "classes",
        [_field("classes/id", "sc:Integer"), _field("classes/name", "sc:Text")],
        dataType="sc:Enumeration",
        key={"@id": "classes/id"},
        data=[{"classes/id": number, "classes/name": name} for number, name in enumerate(names)],
    )


def _image_records() -> dict[str, Any]:
    return _records(
        "images",
        [
            _field("images/name", "sc:Text", source=_source("images", "fullpath", r"^images/(.+)\.[^.]+$")),
            _field("images/split", "sc:Text", source=_source("images", "fullpath", "^images/([^/]+)/")),
            _field("images/image", "sc:ImageObject", source=_source("images", "content")),
        ],
        description="One record per image. Its name is that of its label file; an image without objects may have none.",
        key={"@id": "images/name"},
    )


def _label_records() -> dict[str, Any]:
    return _records(
        "labels",
        [
            _field("labels/image", "sc:Text", source=_source("labels", "fullpath", r"^labels/(.+)\.txt$")),
            _field("labels/row", "sc:Text", description=_ROWS, source=_source("labels", "lines")),
        ],
        description="One record per labelled object: the name of its image, and its label row.",
    )
