"""The tables of docs/models.md and docs/first-night.md that are written from models.yaml and costs.json."""

from __future__ import annotations

import json
from typing import Any

from diffgen.models.aliases import PACKAGE, aliases
from diffgen.models.pipelines import SPECS
from scripts.docs.costs import ARCHITECTURES, passes, seconds
from scripts.docs.noise import noise_table
from scripts.docs.tables import with_table

SCRIPT = "scripts.docs.check"

# (what the GPU has, alias, its GPU in costs.json, what it does to driving frames, link to its recipe).
CHOICES = [
    (
        "none", "pocket", None,
        "plain night, dusk and fog; snow lies but hardly falls; rain is dull light and wet roads", "no-gpu",
    ),
    (
        "8 GB", "sd15", "RTX 4060 (8 GB)",
        "fog, rain and dusk, held by a ControlNet; night and snow are weaker", "8-gb",
    ),
    (
        "8 GB", "instruct-pix2pix", "RTX 4060 (8 GB)",
        "snow, fog and night by instruction; used so in a paper (arXiv 2505.08228)", "8-gb-by-instruction",
    ),
    ("16 GB", "flux2-klein", "RTX 4080 (16 GB)", "all four by instruction, in 4 steps", "16-gb"),
    (
        "24 GB", "longcat-image-edit-turbo", "RTX 4090 (24 GB)",
        "all four by instruction; made to leave the layout as it is", "24-gb",
    ),
    ("80 GB", "qwen-image-edit-lightning", "H100 (80 GB)", "all four, lamps and reflections too", "80-gb"),
    (
        "80 GB", "flux1-kontext-dev", "H100 (80 GB)",
        "all four; the licence forbids commercial use of the model", "80-gb-gated",
    ),
]  # fmt: skip

NIGHT_HEAD = (
    "| GPU memory | model | GB to fetch | GB on a GPU | native size, px | seconds a picture | pictures in 8 h | recipe |\n"
    "|---|---|---|---|---|---|---|---|\n"
)
NIGHT = 8 * 3600  # seconds
CHOICE_HEAD = (
    "| GPU memory | model | on driving frames | seconds a picture | licence | gated | recipe |\n"
    "|---|---|---|---|---|---|---|\n"
)
HEAD = (
    "| name | model | editor | class | licence | gated | GB to fetch | GB on a GPU | steps | guidance | native | batches |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|\n"
)


def models_page(page: str) -> str:
    """`page`, docs/models.md as it is, with its tables written again."""
    choices = CHOICE_HEAD + "".join(_choice(*row) for row in CHOICES)
    names = HEAD + "".join(_row(name) for name in aliases())
    tables = {"choices": choices, "short names": names, "noise": noise_table()}
    for name, table in tables.items():
        page = with_table(page, name, table, SCRIPT)
    return page


def night_page(page: str) -> str:
    """`page`, docs/first-night.md as it is, with its table written again."""
    rows = [_night(memory, name, gpu, anchor) for memory, name, gpu, _, anchor in CHOICES if gpu is not None]
    return with_table(page, "a night", NIGHT_HEAD + "".join(rows), SCRIPT)


def facts(name: str) -> dict[str, Any]:
    """What models.yaml says of a short name, and for a model in the package its own files."""
    entry = aliases()[name]
    if "hub" in entry:
        return entry
    folder = PACKAGE / entry["path"]
    own, index = (json.loads((folder / file).read_text("utf-8")) for file in ("diffgen.json", "model_index.json"))
    return {"pipeline": index["_class_name"], **own, **entry}


def _choice(memory: str, name: str, gpu: str | None, effect: str, anchor: str) -> str:
    entry = facts(name)
    if gpu is None:
        speed = f"{entry['cpu_seconds_per_mpx']:.1f} a megapixel, two cores (measured)"
    else:
        speed = f"≈ {_rounded(seconds(ARCHITECTURES[name], passes(entry), gpu))}, {gpu.partition(' (')[0]}"
    gated = "yes" if entry.get("gated") else "no"
    return f"| {memory} | `{name}` | {effect} | {speed} | {entry['licence']} | {gated} | [recipe](#{anchor}) |\n"


def _night(memory: str, name: str, gpu: str, anchor: str) -> str:
    entry = facts(name)
    each = seconds(ARCHITECTURES[name], passes(entry), gpu)
    cells = [
        memory, f"`{name}`", f"{entry['size_mb'] / 1000:.1f}", f"{entry['memory_gb']:g}", f"{entry['native']}²",
        f"≈ {_rounded(each)}, {gpu.partition(' (')[0]}", f"≈ {float(f'{NIGHT / each:.2g}'):,.0f}",
        f"[recipe](models.md#{anchor})",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


def _rounded(value: float) -> str:
    return f"{value:.1f}" if value < 3 else f"{value:.0f}"


def _row(name: str) -> str:
    entry = facts(name)
    place = f"[{entry['hub']}](https://huggingface.co/{entry['hub']})" if "hub" in entry else "in the package"
    place += "".join(
        f" + LoRA [{lora['hub']}](https://huggingface.co/{lora['hub']})" for lora in entry.get("loras", ())
    )
    cells = [
        f"`{name}`", place, entry["editor"], f"`{entry['pipeline']}`", entry["licence"], "yes" if entry.get("gated") else "",
        f"{entry['size_mb'] / 1000:.1f}" if "hub" in entry else "0", f"{entry['memory_gb']:g}", entry["steps"],
        f"{entry['guidance']:g}", f"{entry['smallest']} to {entry['native']}" if "smallest" in entry else entry["native"],
        "yes" if SPECS[entry["pipeline"]].batches else "one picture a call",
    ]  # fmt: skip
    return f"| {' | '.join(str(cell) for cell in cells)} |\n"
