"""A YOLO data.yaml, in every form that Ultralytics accepts.

Path rules are those of Ultralytics 8.4 (`check_det_dataset`, `get_img_files`, `img2label_paths`), with one difference: if a
path can mean two existing folders, Ultralytics silently takes one, and we refuse.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from diffgen.dataset.formats import SPLITS, Found, Listing, images_below, is_image, sharing
from diffgen.errors import UsageError, why
from diffgen.files import read_regular
from diffgen.recipe.yaml_reader import read_yaml

# Keys of a data.yaml that the export does not copy: it writes its own, Ultralytics would execute them (`download`), or they
# name folders that the export does not have.
OWN_KEYS = frozenset({"path", "names", "nc", "download", "minival", "masks_dir", "validation", *SPLITS})


def read_yolo(path: Path) -> Listing:
    """The listing of a data.yaml. Raises UsageError if the dataset cannot be used."""
    data = _read_yaml(path)
    names = _names(data, path)
    keypoints = _keypoints(data, path)
    root = _root(data, path)
    entries: list[Found] = []
    folders: list[Path] = []
    notes: dict[str, list[str]] = {}
    for split in SPLITS:
        if not data.get(split):
            continue
        try:
            found, searched = _split(split, data[split], root, path)
        except UsageError as error:
            if split != "test":
                raise
            notes["test"] = [
                error.message
            ]  # training looks at train and val only, and many exports have no test images
            continue
        entries += found
        folders += searched
    if not entries:
        raise UsageError(f"{path}: no split with images", "it needs at least 'train:' and 'val:'")
    extra = {key: value for key, value in data.items() if key not in OWN_KEYS}
    if shared := sharing((entry.image, str(entry.label)) for entry in entries):
        notes["one label"] = shared
    if data.get("download"):
        notes["download"] = [f"{path}: download:"]
    return Listing(path, names, tuple(entries), extra, keypoints, tuple(folders), notes, (path.parent, root))


def _split(split: str, value: Any, root: Path, path: Path) -> tuple[list[Found], list[Path]]:
    """(images of a split, folders that were searched)."""
    places = list(_places(value, root, path, split))
    images = [image for place in places for image in _images(place, root)]
    if not images:
        raise UsageError(f"{path}: {split}: no images in {value}", "check the path; images need a known suffix")
    found = [Found(split, image, folder, _label_of(image)) for image, folder in images]
    return found, [place for place in places if place.is_dir()]


def orphan_labels(folders: Iterable[Path], labels: set[str]) -> list[str]:
    """Label files, in the label folders of the given image folders, that are not among `labels`."""
    orphans = []
    for folder in folders:
        label_folder = os.path.dirname(label_path(os.path.join(folder, "image")))
        for directory, _, names in os.walk(label_folder):
            files = [os.path.join(directory, name) for name in names if name.endswith(".txt") and name[0] != "."]
            orphans += [file for file in files if file not in labels]
    return sorted(orphans)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = read_yaml(read_regular(path).decode("utf-8-sig"), path)
    except FileNotFoundError:
        raise UsageError(
            f"{path}: dataset file not found", "give the path of a data.yaml, relative to the recipe"
        ) from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder", f"name the file: {path}/data.yaml") from None
    except OSError as error:
        raise UsageError(
            f"{path}: cannot read the dataset file: {why(error)}", "check the path and its permissions"
        ) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: the dataset file is {why(error)}", "save it as UTF-8") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path}: not a data.yaml: not a mapping", "it needs 'train:', 'val:' and 'names:'")
    if data.get("channels") not in (None, 1, 3):
        raise UsageError(
            f"{path}: channels: {data['channels']}: only images with 1 or 3 channels can be edited",
            "use a dataset of ordinary photographs; if it is one, remove the key",
        )
    if "val" not in data and "validation" in data:
        data["val"] = data["validation"]
    return data


def _names(data: dict[str, Any], path: Path) -> tuple[str, ...]:
    names: Any = data.get("names")
    hint = "write 'names: {0: car, 1: person}'"
    if names is None and isinstance(data.get("nc"), int) and 0 < data["nc"] < 100_000:
        return tuple(f"class_{i}" for i in range(data["nc"]))
    values = names.values() if isinstance(names, dict) else names if isinstance(names, list) else ()
    if not values:
        raise UsageError(f"{path}: 'names' is missing or empty", hint)
    if data.get("nc") is not None and not _is_count(data["nc"], len(values)):
        raise UsageError(
            f"{path}: nc is {data['nc']!r:.40}, but names has {len(values)}: Ultralytics rejects such a file",
            "name every class, or remove nc",
        )
    if any(isinstance(name, (dict, list)) for name in values):
        raise UsageError(f"{path}: names: a class name must be text", hint)
    if isinstance(names, list):
        return tuple(str(name) for name in names)
    try:
        by_id = {int(key): str(value) for key, value in names.items()}
    except (TypeError, ValueError):
        raise UsageError(f"{path}: names: class ids must be whole numbers", hint) from None
    if min(by_id) < 0 or max(by_id) >= 100_000:
        raise UsageError(f"{path}: names: class ids must be 0 or more, and under 100000", "number them from 0")
    return tuple(by_id.get(i, f"unused{i}") for i in range(max(by_id) + 1))


def _is_count(value: Any, count: int) -> bool:
    try:
        return float(value) == count  # Ultralytics also takes '10' and 10.0
    except (TypeError, ValueError, OverflowError):
        return False


def _keypoints(data: dict[str, Any], path: Path) -> tuple[int, int] | None:
    shape = data.get("kpt_shape")
    if shape is None:
        return None
    if isinstance(shape, list) and [type(n) for n in shape] == [int, int] and shape[0] > 0 and shape[1] in (2, 3):
        return shape[0], shape[1]
    raise UsageError(
        f"{path}: kpt_shape: {shape!r} is not [number of points, 2 or 3]", "for example kpt_shape: [17, 3]"
    )


def _root(data: dict[str, Any], path: Path) -> Path:
    """The folder that split paths are relative to: the key `path` if absolute, else looked up in up to three places."""
    written = data.get("path")
    if not written:
        return path.parent
    if not isinstance(written, str):
        raise UsageError(f"{path}: path: must be text", "remove the key: splits are then relative to the data.yaml")
    if Path(written).is_absolute():
        return Path(written)
    candidates = [Path.cwd() / written, path.parent / written]
    if (datasets := _ultralytics_datasets()) is not None:
        candidates.append(datasets / written)
    existing = list(dict.fromkeys(place.resolve() for place in candidates if place.is_dir()))
    if not existing:
        tried = ", ".join(str(place) for place in candidates)
        raise UsageError(
            f"{path}: path: '{written}' does not exist (tried {tried})", "make it absolute, or remove the key"
        )
    # With `path: .` the working directory always exists, so prefer folders that have the splits.
    roots = [place for place in existing if _has_splits(place, data)] or existing
    if len(roots) > 1:
        raise UsageError(
            f"{path}: path: '{written}' could be {roots[0]} or {roots[1]}", "make it absolute, or remove the key"
        )
    return roots[0]


def _has_splits(root: Path, data: dict[str, Any]) -> bool:
    values = [data[split] for split in ("train", "val") if data.get(split)]
    items = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return all((root / item).exists() for item in items if isinstance(item, str))


def _ultralytics_datasets() -> Path | None:
    """`datasets_dir` of Ultralytics' settings file, read without importing Ultralytics."""
    folder = Path(os.environ.get("YOLO_CONFIG_DIR") or Path.home() / ".config" / "Ultralytics")
    try:
        value = json.loads((folder / "settings.json").read_text("utf-8")).get("datasets_dir")
    except (OSError, ValueError, AttributeError):
        return None
    return Path(value) if isinstance(value, str) else None


def _places(value: Any, root: Path, path: Path, split: str) -> Iterator[Path]:
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, str):
            raise UsageError(f"{path}: {split}: must be a path or a list of paths", "for example train: images/train")
        place = root / item
        if not place.exists() and "\\" in item:  # written on Windows
            item = item.replace("\\", "/")
            place = root / item
        if not place.exists() and item.startswith("../") and (root / item[3:]).exists():
            place = root / item[3:]  # as Ultralytics does, for exports whose paths point one folder too high
        if not place.exists():
            raise UsageError(f"{path}: {split}: {place} does not exist", "check 'path:' and the split's own path")
        yield Path(os.path.abspath(place))


def _images(place: Path, root: Path) -> list[tuple[str, str]]:
    """(image, folder it was found below), sorted by path, as Ultralytics finds them."""
    if place.is_dir():
        return [(image, str(place)) for image in images_below(place)]
    try:
        lines = read_regular(place).decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{place}: cannot read the list of images: {why(error)}", "it must be text, one path per line"
        ) from None
    images = []
    for number, line in enumerate((line.strip() for line in lines), 1):
        if "\0" in line:
            raise UsageError(f"{place}:{number}: a path contains a zero byte", "it must be text, one path per line")
        if line and is_image(os.path.basename(line.replace("\\", "/"))):
            images.append(_listed(line, place.parent, root))
    if images and not any(map(os.path.lexists, images)):
        raise UsageError(
            f"{place}: none of its {len(images)} images exists; the first would be {images[0]}",
            f"write paths relative to {place.parent}, starting with './', or absolute paths",
        )
    common = os.path.commonpath([os.path.dirname(image) for image in images]) if images else str(place.parent)
    return [(image, common) for image in sorted(images)]


def _listed(line: str, beside: Path, root: Path) -> str:
    """The image that a line names: from the list's own folder after './', else from the working directory.

    Those are Ultralytics' rules. If there is no such file, the list's own folder and the dataset's are tried too, and
    Windows separators are converted: nothing else can be meant then.
    """
    first = image = os.path.abspath(beside / line[2:] if line.startswith("./") else line)
    if os.path.lexists(image):
        return image
    line = line.replace("\\", "/")
    for folder in (beside, root, Path.cwd()):
        image = os.path.abspath(folder / line)
        if os.path.lexists(image):
            return image
    return first


def _label_of(image: str) -> str:
    """The image's label file, whether it exists or not: beside the image's path, or beside the file that a linked path
    leads to.

    Ultralytics follows links in the path of a split and then looks there only; datasets that are linked together keep their
    labels at either end.
    """
    label = label_path(image)
    if not os.path.lexists(label):
        folder, _, name = image.rpartition(os.sep)
        real = os.path.realpath(image) if os.path.islink(image) else f"{_real(folder)}{os.sep}{name}"
        if real != image and os.path.lexists(there := label_path(real)):
            return there
    return label


@lru_cache(maxsize=4096)  # many images lie in few folders
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def label_path(image: str) -> str:
    """Where Ultralytics looks for an image's labels: the last folder called `images` becomes `labels`."""
    start = image.rfind(os.sep) + 1
    return f"{_label_folder(image[:start])}{os.path.splitext(image[start:])[0]}.txt"


@lru_cache(maxsize=4096)  # many images lie in few folders
def _label_folder(folder: str) -> str:
    sep = os.sep
    head, found, tail = folder.rpartition(f"{sep}images{sep}")
    return f"{head}{sep}labels{sep}{tail}" if found else folder
