"""Docs generated from the code: writes them with `--write`, else fails when they are stale.

    python -m scripts.docs.check --write

docs/recipe.md (every key, from the recipe's own model), docs/conditions.md (the presets), docs/cli.md (the commands), the
reference in docs/api.md, the tables of models in docs/models.md and docs/first-night.md, those of docs/licences.md, and the
files that `diffgen init` writes in docs/ci-and-make.md and docs/clusters.md. It also fails when the newest changelog entry
is not this version, or the README lacks a command.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from pydantic import BaseModel

from diffgen import __version__
from diffgen.cli import app
from diffgen.recipe.presets import presets
from diffgen.recipe.schema import Recipe
from diffgen.recipe.sections import Camera, Condition, Control, Lamps, Matching, TextToImage
from scripts.docs import jobs_page
from scripts.docs.api_page import api_page
from scripts.docs.cli_page import cli_page
from scripts.docs.licences import licences_page
from scripts.docs.models_page import models_page, night_page

ROOT = Path(__file__).resolve().parents[2]

INTRO = """# Recipe reference

Every key of a recipe, from `diffgen schema`. Paths are relative to the recipe file, and `${NAME}` is replaced by the
environment variable. `--set key=value` overrides a key (the value is YAML); `--set conditions.night.strength=0.5`
addresses a condition by its name. An unknown key is an error that names the line and the closest known key.

A condition is a preset's name (`- snow`), a preset with changes (`- night: {strength: 0.5}`), or your own mapping with
at least `name` and `prompt`. `diffgen conditions` lists the presets.

A dataset is a YOLO `data.yaml` as Ultralytics reads it, or one of these:

```yaml
dataset:
  format: coco                  # instances: boxes, or polygons for all objects when one has a polygon; crowd left out
  train: {images: train2017, annotations: annotations/instances_train2017.json}
  val: {images: val2017, annotations: annotations/instances_val2017.json}
```

```yaml
dataset:
  format: voc
  one_based: true               # pixels start at 1 and a box includes its last pixel; often false outside of VOC itself
  train: {images: JPEGImages, annotations: Annotations, list: ImageSets/Main/train.txt}   # list: optional
  val: {images: JPEGImages, annotations: Annotations, list: ImageSets/Main/val.txt}
```
"""


CONDITIONS = """# Conditions

The presets. `{objects}` is replaced by the image's own classes, most frequent first. Pictures that look as `skip_if` says do
not get the condition, because they show it already or it would not show in them; `plan` and `run` count them, and
`skip_if: []` in a condition edits them anyway. This check decodes each picture once, which takes about a minute for 10,000
pictures of a megapixel on two cores.

- `dark`: mean luminance under .2. Nights, most dark halls, and dark water from above.
- `foggy`: pale and without fine detail.
- `snowy`: most of the ground is white. A cleared street between heaps of snow does not count.
- `no-sky`: the upper third is too dark to contain a daylight sky, where overcast, dawn and glare would show.

| name | strength | skip_if | prompt (img2img) | instruction (instruct) |
|---|---|---|---|---|
"""


MATCH = """\
Colour and tone from your own unlabelled pictures. Each edit moves towards those of one picture, chosen by hash; edges stay
where they are. The content of the pictures is part of the job id.
"""

LIGHTS = """\
For nights. The heading of a vehicle is guessed from its tail lamp glass, its position and the shape of its box. Vehicles far
to the side count as parked and stay dark. A traffic light glows in the colour that the source shows. The lamps are drawn on
the finished edit and assume right-hand traffic. Street lamps and windows have no labels and are left to the model.
"""


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from rows(kind, f"{prefix}{name}.")
            continue
        default = "required" if field.is_required() else f"`{json.dumps(field.default)}`"
        yield f"| `{prefix}{name}` | {default} | {field.description or ''} |"


def recipe_page() -> str:
    head = "| key | default | meaning |\n|---|---|---|\n"
    condition = "\n".join(rows(Condition, "conditions[]."))
    control = "\n".join(rows(Control, "controls[]."))
    matching = "\n".join(rows(Matching, "conditions[].match."))
    lamps = "\n".join(rows(Lamps, "conditions[].lights."))
    camera = "\n".join(rows(Camera, "conditions[].sensor."))
    imagined = "\n".join(rows(TextToImage, "text2img."))
    return (
        f"{INTRO}\n{head}" + "\n".join(rows(Recipe)) + f"\n\n## A condition\n\n{head}{condition}\n"
        f"\n## A control\n\nHow to use them: [ControlNet](controlnet.md).\n\n{head}{control}\n"
        f"\n## Match\n\n{MATCH}\n{head}{matching}\n"
        f"\n## Lights\n\n{LIGHTS}\n{head}{lamps}\n"
        f"\n## Sensor\n\nEach key is a number, or a range `[low, high]` that each image draws from.\n\n{head}{camera}\n"
        "\n## Without a dataset\n\nLabels are less reliable this way: [Without photographs](text-to-image.md).\n\n"
        f"{head}{imagined}\n"
    )


def conditions_page() -> str:
    return CONDITIONS + "".join(
        f"| `{name}` | {p['strength']} | {', '.join(p.get('skip_if', ())) or '–'} | {p['prompt']} | {p['instruction']} |\n"
        for name, p in presets().items()
    )


# Pages that are written as a whole, and those of which a part is: these get the page as it is.
PAGES = {
    "docs/recipe.md": recipe_page,
    "docs/conditions.md": conditions_page,
    "docs/cli.md": cli_page,
}
PARTS: dict[str, Callable[[str], str]] = {
    "docs/api.md": api_page,
    "docs/models.md": models_page,
    "docs/first-night.md": night_page,
    "docs/licences.md": licences_page,
    **{name: partial(jobs_page.jobs_page, name) for name in jobs_page.PAGES},
}


def fresh(name: str) -> str:
    """The page as it should be."""
    return PAGES[name]() if name in PAGES else PARTS[name]((ROOT / name).read_text("utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the pages instead of comparing them")
    write = parser.parse_args().write
    problems = []
    for name in [*PAGES, *PARTS]:
        path, page = ROOT / name, fresh(name)
        if write:
            path.write_text(page, "utf-8")
        elif not path.is_file() or path.read_text("utf-8") != page:
            problems.append(f"{name} is stale: run python -m scripts.docs.check --write")
    entries = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    if entries[entries[:1] == ["Unreleased"] :][:1] != [__version__]:
        problems.append(f"CHANGELOG.md: the newest released entry is not {__version__}")
    readme = (ROOT / "README.md").read_text("utf-8")
    names = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
    for name in [*names, *(str(group.name) for group in app.registered_groups)]:
        if f"diffgen {name}" not in readme:
            problems.append(f"README.md does not name the command 'diffgen {name}'")
    sys.exit("\n".join(problems) or None)


if __name__ == "__main__":
    main()
