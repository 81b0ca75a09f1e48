"""The part of docs/models.md that is written from models.yaml: a table of the short names, and a recipe for each."""

from __future__ import annotations

import json
from typing import Any

from diffgen.models.aliases import PACKAGE, aliases
from diffgen.models.pipelines import SPECS

BEGIN = "<!-- written by `python -m scripts.docs.check --write` from diffgen/models/models.yaml -->\n"
END = "<!-- end of what is written from diffgen/models/models.yaml -->\n"

HEAD = (
    "| name | model | editor | class | licence | GB to fetch | GB on a GPU | steps | guidance | native | batches |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|\n"
)


def models_page(page: str) -> str:
    """`page`, docs/models.md as it is, with that part written again."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    recipes = "\n".join(f"```yaml\n{recipe_for(name)}```\n" for name in aliases())
    table = HEAD + "".join(_row(name) for name in aliases())
    text = f"## Short names\n\n{table}\n{FOOT}\n## A recipe for each\n\n{RECIPES}\n{recipes}"
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


FOOT = """\
Sizes and memory are estimates of the architectures in half precision, not measurements of ours; `memory:` below makes
less do. `native` is the long side in pixels that the model was trained at. Licences are the models' own: read them
before you sell what you make.
"""

RECIPES = """\
Each is whole: correct the first two lines, and `diffgen plan` it before anything is fetched. Models of flow matching
begin with less strength, those for inpainting need a task, and the largest a GPU to themselves or `memory:`.
"""


def facts(name: str) -> dict[str, Any]:
    """What models.yaml says of a short name, and for a model in the package its own files."""
    entry = aliases()[name]
    if "hub" in entry:
        return entry
    folder = PACKAGE / entry["path"]
    own, index = (json.loads((folder / file).read_text("utf-8")) for file in ("diffgen.json", "model_index.json"))
    return {"pipeline": index["_class_name"], **own, **entry}


def recipe_for(name: str) -> str:
    """A small recipe with this model, as YAML."""
    entry = facts(name)
    flow = entry["editor"] == "img2img" and SPECS[entry["pipeline"]].flow
    lines = ["dataset: ../datasets/street/data.yaml", f"output: ../runs/{name}", f"model: {name}"]
    if entry["memory_gb"] > 24:
        lines.append("memory: 16gb   # or leave it out on a GPU that has what the table says")
    if entry["editor"] == "inpaint":
        lines += ["conditions:", "  - night: {task: background}"]
    elif flow:
        lines += ["conditions:", "  - snow: {strength: 0.4}", "  - night: {strength: 0.5}"]
    else:
        lines.append("conditions: [snow, night]")
    return "\n".join(lines) + "\n"


def _row(name: str) -> str:
    entry = facts(name)
    place = f"[{entry['hub']}](https://huggingface.co/{entry['hub']})" if "hub" in entry else "in the package"
    cells = [
        f"`{name}`", place, entry["editor"], f"`{entry['pipeline']}`", entry["licence"],
        f"{entry['size_mb'] / 1000:.1f}" if "hub" in entry else "0", f"{entry['memory_gb']:g}", entry["steps"],
        f"{entry['guidance']:g}", f"{entry['smallest']} to {entry['native']}" if "smallest" in entry else entry["native"],
        "yes" if SPECS[entry["pipeline"]].batches else "one picture a call",
    ]  # fmt: skip
    return f"| {' | '.join(str(cell) for cell in cells)} |\n"
