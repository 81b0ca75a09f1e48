"""`diffgen init`: find a dataset, and write a commented recipe, a Makefile fragment, and jobs for CI and clusters."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import yaml

from diffgen.commands.layouts import Found, datasets, hint_for
from diffgen.errors import UsageError, why

_TEMPLATES = {
    "diffgen.yaml": ".yaml",
    "diffgen.mk": ".mk",
    "diffgen-github.yml": "-github.yml",
    "diffgen-gitlab.yml": "-gitlab.yml",
}  # and how the names of copies end
CLUSTERS = {
    "slurm": ("diffgen.slurm", ".slurm"),
    "k8s": ("diffgen-k8s.yaml", "-k8s.yaml"),
    "sky": ("diffgen-sky.yaml", "-sky.yaml"),
}

Choose = Callable[[list[str]], int]  # the number of the line that a person chose


def write_starter(
    place: Path,
    recipe: Path = Path("diffgen.yaml"),
    choose: Choose | None = None,
    clusters: Sequence[str] = (),
    shards: int = 8,
    notify: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Write the recipe for the dataset at `place`, and the other files beside it; returns their paths. `clusters` are those
    of CLUSTERS to write a job for, each with this many `shards`.

    In the files, paths are as seen from the working directory, but those in the recipe, which are relative to it. Of
    several datasets, `choose` picks one. Raises UsageError, writing nothing, if one of the files exists, or when there is no
    dataset or, without `choose`, more than one.
    """
    if not place.exists():
        raise UsageError(f"{place} does not exist", "give the folder of your dataset, or its data.yaml")
    templates = {**_TEMPLATES, **dict(CLUSTERS[name] for name in clusters)}
    targets = [recipe.with_name(f"{recipe.stem}{end}") for end in templates.values()]
    if existing := [path for path in targets if path.exists()]:
        raise UsageError(
            f"{existing[0]} exists already", "move it away, or choose another file with -o; nothing was written"
        )
    found = _one_dataset(place, choose)
    notify(f"found {found.text}")
    folder = recipe.absolute().parent
    key = "val_from_train: 0.1               # the dataset has no val split: this share of train becomes val"
    # A name that needs no quotes in make, YAML and shells, whatever the recipe is called.
    slug = re.sub(r"[^\w.-]+", "-", recipe.stem).strip("-.") or "diffgen"
    name = shlex.quote(str(recipe))
    fields = {
        "name": name,
        "name_in_make": name.replace("$", "$$"),
        "slug": slug,
        "dataset": _as_yaml(found, folder),
        "classes": ", ".join(_quoted(name) for name in found.classes[:3]),
        "output": _quoted(_from(folder, Path("runs", slug).absolute())),
        "runs": f"runs/{slug}",
        "shards": shards,
        "dns": re.sub(r"[^a-z0-9]+", "-", slug.lower()).strip("-")[:50].strip("-") or "diffgen",
        **{key: shlex.quote(str(recipe.with_name(f"{recipe.stem}{end}"))) for key, (_, end) in CLUSTERS.items()},
        "val": "" if found.has_val else f"\n{key}\n",
    }
    shipped = files("diffgen.commands") / "templates"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, template in zip(targets, templates, strict=True):
            path.write_text((shipped / template).read_text("utf-8").format(**fields), "utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: cannot write there: {why(error)}", "choose another file with -o") from None
    return targets


def _one_dataset(place: Path, choose: Choose | None) -> Found:
    try:
        found = datasets(place)
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot read this folder: {why(error)}", "check its permissions") from None
    if not found:
        hint = (
            hint_for(place) if place.is_dir() else "give a data.yaml, a COCO instances file, or a folder that has one"
        )
        raise UsageError(f"{place}: found no dataset that can be used as is", hint)
    if len(found) == 1:
        return found[0]
    lines = [
        f"{one.form}: {next(iter(one.splits.values()))['annotations'] if one.splits else one.path}" for one in found
    ]
    if choose is None:
        raise UsageError(f"{place}: found {len(found)} datasets: {'; '.join(lines)}", "give the path of one of them")
    return found[choose(lines)]


def _as_yaml(found: Found, folder: Path) -> str:
    """The `dataset` of a recipe in `folder`, with what goes before it on its line."""
    if found.form == "yolo":
        return f" {_quoted(_from(folder, found.path))}"
    rows = [f"format: {found.form}"]
    for split, paths in found.splits.items():
        parts = (f"{key}: {_quoted(_from(folder, path))}" for key, path in paths.items())
        rows.append(f"{split}: {{{', '.join(parts)}}}")
    return "\n  " + "\n  ".join(rows)


def _from(folder: Path, path: Path) -> str:
    return Path(os.path.relpath(path.absolute(), folder)).as_posix()


def _quoted(text: object) -> str:
    """Text as a YAML value, quoted if needed; also valid in a flow mapping."""
    plain = str(text)
    if re.fullmatch(r"[\w./-]+( [\w./-]+)*", plain) and yaml.safe_load(plain) == plain:
        return plain
    return json.dumps(plain, ensure_ascii=not plain.isprintable())
