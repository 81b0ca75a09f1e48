"""Find the datasets below a folder, and files that look like a dataset but cannot be used as is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from diffgen.dataset.formats import is_image

_SPLITS = {
    "train": "train",
    "valid": "val",
    "val": "val",
    "validation": "val",
    "test": "test",
}  # a folder's or file's word
_DEPTH = 3  # levels of subfolders that are searched
_HEAD = 1 << 16  # bytes of a JSON file that tell what it is
_ORDER = ("train", "val", "test")


@dataclass(frozen=True)
class Found:
    """A dataset. `path` is a data.yaml, or the top folder; `splits` are what a recipe's `dataset` has, for COCO and VOC."""

    form: str  # yolo, coco or voc
    path: Path
    splits: dict[str, dict[str, Path]] = field(default_factory=dict)
    classes: tuple[str, ...] = ("your", "class", "names")
    has_val: bool = True
    beside: tuple[str, ...] = ()  # other forms in which the same pictures are labelled

    @property
    def text(self) -> str:
        """What was found, for a terminal."""
        files = [self.path] if self.form == "yolo" else [split["annotations"] for split in self.splits.values()]
        where = ", ".join(map(str, dict.fromkeys(files)))
        also = f" (its labels in the format {', '.join(self.beside)} are not used)" if self.beside else ""
        return f"{self.form}: {where}{also}"


def datasets(place: Path) -> list[Found]:
    """Every dataset at a path: a data.yaml, a COCO file, or a folder that has some, the nearest first."""
    if place.is_file():  # of COCO files, those beside it have the other splits
        beside = sorted(place.parent.glob("*.json")) if place.suffix == ".json" else []
        groups = _coco(place.parent, beside)
        return [
            *_yolo([place]),
            *(one for one in groups if any(s["annotations"] == place for s in one.splits.values())),
        ]
    files = list(_below(place))
    found = [*_yolo(files), *_coco(place, files), *_voc(files)]
    parts = {id(one): other for one in found for other in found if _is_part_of(one, other)}
    forms = {id(other): [one.form for one in found if parts.get(id(one)) is other] for other in parts.values()}
    return [replace(one, beside=tuple(forms.get(id(one), ()))) for one in found if id(one) not in parts]


def hint_for(place: Path) -> str:
    """What a folder without a dataset holds, and what to do about it."""
    files = list(_below(place))
    by_name = {path.name.lower(): path for path in reversed(files)}
    texts = [path for path in files if path.suffix == ".txt"]
    names = next((by_name[name] for name in ("classes.txt", "obj.names", "labels.txt") if name in by_name), None)
    if any(path.parent.name in ("label_2", "label_02") for path in texts):
        return "label_2/ holds KITTI labels, which diffgen does not read: convert them to YOLO or COCO first"
    for path in (path for path in files if path.suffix == ".json"):
        head = _head(path)
        if '"box2d"' in head or '"frameAttributes"' in head:
            return (
                f"{path} is in BDD format, which diffgen does not read: convert it to COCO first (bdd100k's bdd2coco)"
            )
        if '"shapes"' in head and '"imagePath"' in head:
            return f"{path} is in LabelMe format, which diffgen does not read: convert it to YOLO or COCO first"
    if names is not None or any(path.parent.name == "labels" for path in texts):
        return _needs_data_yaml(place, files, names)
    if any(is_image(path.name) for path in files):
        return "there are images but no labels: give the folder that has both"
    return "give the folder of a dataset in YOLO's, COCO's or Pascal VOC's format"


def _needs_data_yaml(place: Path, files: list[Path], names: Path | None) -> str:
    """How to write the data.yaml that YOLO labels of Label Studio, LabelImg, CVAT or darknet lack."""
    images = [path.parent for path in files if is_image(path.name)]
    splits: dict[str, str] = {}
    for folder in dict.fromkeys(images):
        words = [_SPLITS[part] for part in folder.relative_to(place).parts if part in _SPLITS]
        splits.setdefault(words[-1] if words else "train", folder.relative_to(place).as_posix())
    listed = [line.strip() for line in _head(names).splitlines() if line.strip()] if names else ["…"]
    parts = [f"{split}: {_quoted(splits[split])}" for split in _ORDER if split in splits]
    saw = f"YOLO labels and {names.name}" if names else "YOLO labels"
    text = f"{{{', '.join(parts)}, names: [{', '.join(map(_quoted, listed))}]}}"
    return f"there are {saw}, but no data.yaml: write {place / 'data.yaml'} with {text}"


def _quoted(text: str) -> str:
    return (
        yaml.safe_dump(text, default_flow_style=True, allow_unicode=True, width=10**6).removesuffix("\n...\n").strip()
    )


def _is_part_of(one: Found, other: Found) -> bool:
    """Whether a data.yaml describes the same folder, and so the same pictures, as annotations of another format there."""
    return one is not other and one.form != "yolo" and other.form == "yolo" and other.path.parent == one.path


def _below(folder: Path) -> Iterator[Path]:
    """The files, nearest first, except in hidden folders, runs/ and node_modules/."""
    level = [folder]
    for _ in range(_DEPTH + 1):
        entries = [entry for place in level for entry in sorted(place.iterdir())]
        yield from (entry for entry in entries if entry.is_file())
        folders = (entry for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        level = [entry for entry in folders if entry.name not in ("runs", "node_modules")]


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD).decode("utf-8-sig", "replace")
    except OSError:
        return ""


def _yolo(files: list[Path]) -> Iterator[Found]:
    for path in files:
        if path.suffix not in (".yaml", ".yml"):
            continue
        try:
            data = yaml.safe_load(path.read_bytes().decode("utf-8-sig"))
        except (OSError, ValueError, yaml.YAMLError, RecursionError):
            continue
        if not isinstance(data, dict) or not data.get("train"):
            continue
        names, count = data.get("names"), data.get("nc")
        if names is None and isinstance(count, int):
            names = [f"class_{i}" for i in range(min(count, 3))]
        if isinstance(names, (list, dict)):
            listed = names.values() if isinstance(names, dict) else names
            yield Found("yolo", path, {}, tuple(map(str, listed)), bool(data.get("val") or data.get("validation")))


def _coco(top: Path, files: list[Path]) -> Iterator[Found]:
    """COCO files in one folder, or in one folder per split, are one dataset."""
    groups: dict[Path, dict[str, dict[str, Path]]] = {}
    for path in files:
        if path.suffix == ".json" and _is_coco(_head(path)):
            beside = _SPLITS.get(path.parent.name)  # Roboflow: one file beside the images of each split
            words = re.findall("[a-z]+", path.stem.lower())
            split = beside or next((_SPLITS[word] for word in words if word in _SPLITS), "train")
            group = path.parent.parent if beside else path.parent
            parts = {"images": _images_of(path, top, split), "annotations": path}
            groups.setdefault(group, {}).setdefault(split, parts)
    for group, splits in groups.items():
        if "train" in splits:
            ordered = {split: splits[split] for split in _ORDER if split in splits}
            yield Found("coco", group, ordered, has_val="val" in splits)


def _is_coco(head: str) -> bool:
    """An instances file, by its first bytes: captions and key points have no `bbox`, or no categories."""
    keys = sum(f'"{key}"' in head for key in ("images", "annotations", "categories"))
    return keys == 3 or (keys >= 1 and ('"file_name"' in head or '"bbox"' in head) and '"caption"' not in head)


def _images_of(annotations: Path, top: Path, split: str) -> Path:
    """The image folder that goes with an annotations file: the one that has its first image, else the likeliest one."""
    year = annotations.stem.partition("_")[2]
    years = [f"images/{year}", year] if year else []
    names = [*years, f"images/{split}", split, "images", "."]
    tops = [place for place in (annotations.parent, annotations.parent.parent) if place.is_relative_to(top)]
    folders = [place / name for place in tops for name in names if (place / name).is_dir()]
    first = re.search(r'"file_name"\s*:\s*"([^"]+)"', _head(annotations))
    if first:
        name = first[1].replace("\\\\", "/")
        for folder in folders:
            if (folder / name).is_file() or (folder / Path(name).name).is_file():
                return folder
    return folders[0] if folders else top / "images"


def _voc(files: list[Path]) -> Iterator[Found]:
    """An Annotations folder beside JPEGImages or images; or XML files beside their images, as LabelImg and Roboflow do."""
    folders = dict.fromkeys(path.parent for path in files if path.suffix.lower() == ".xml")
    above = (place for folder in folders for place in (folder, folder.parent))
    for xmls in dict.fromkeys(place for place in above if place.name.lower() == "annotations"):
        if parts := _voc_splits(xmls):
            yield Found("voc", xmls.parent, parts, has_val="val" in parts)
    beside: dict[Path, dict[str, dict[str, Path]]] = {}
    with_images = {path.parent for path in files if is_image(path.name)}
    for folder in folders:
        if folder in with_images:
            split = _SPLITS.get(folder.name)
            both = {"images": folder, "annotations": folder}
            beside.setdefault(folder.parent if split else folder, {}).setdefault(split or "train", both)
    for top, splits in beside.items():
        if "train" in splits:
            ordered = {split: splits[split] for split in _ORDER if split in splits}
            yield Found("voc", top, ordered, has_val="val" in splits)


def _voc_splits(xmls: Path) -> dict[str, dict[str, Path]]:
    """The splits of a VOC dataset: by its ImageSets lists, else by its image folders; none if it has no images."""
    images = next((path for name in ("JPEGImages", "images") if (path := xmls.parent / name).is_dir()), None)
    if images is None:
        return {}
    both = {"images": images, "annotations": xmls}
    main = xmls.parent / "ImageSets" / "Main"
    lists = {path.stem: path for path in main.glob("*.txt") if path.stat().st_size}
    if "train" not in lists and "trainval" in lists:
        lists["train"] = lists["trainval"]
        lists.pop("val", None)
    if "train" in lists:
        return {split: both | {"list": lists[split]} for split in _ORDER if split in lists}
    parts = {}
    for name, split in _SPLITS.items():
        if (images / name).is_dir():
            beside = xmls / name if (xmls / name).is_dir() else xmls
            parts[split] = {"images": images / name, "annotations": beside}
    return parts if "train" in parts else {"train": both}
