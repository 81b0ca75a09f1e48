"""The files of docs/ci-and-make.md and docs/clusters.md, as `diffgen init` writes them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from PIL import Image

from diffgen.commands.init import CLUSTERS, write_starter
from scripts.docs.tables import with_table

SCRIPT = "scripts.docs.check"

# Page -> what a file's name ends with -> its language.
PAGES: dict[str, dict[str, str]] = {
    "docs/ci-and-make.md": {".mk": "make", "-github.yml": "yaml", "-gitlab.yml": "yaml"},
    "docs/clusters.md": {".slurm": "bash", "-k8s.yaml": "yaml", "-sky.yaml": "yaml"},
}


def jobs_page(name: str, page: str) -> str:
    """`page`, the page of that name as it is, with the files written again."""
    for end, language in PAGES[name].items():
        page = with_table(page, f"winter{end}", f"```{language}\n{starter()[f'winter{end}']}```\n", SCRIPT)
    return page


@cache
def starter() -> Mapping[str, str]:
    """What `diffgen init data/street -o configs/winter.yaml --slurm --k8s --sky` writes, by the file's name."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for split in ("train", "val"):
                Path("data/street/images", split).mkdir(parents=True)
                Image.new("RGB", (32, 32)).save(f"data/street/images/{split}/1.png")
            Path("data/street/data.yaml").write_text("train: images/train\nval: images/val\nnames: [car]\n", "utf-8")
            paths = write_starter(Path("data/street"), Path("configs/winter.yaml"), clusters=list(CLUSTERS))
            return {path.name: path.read_text("utf-8") for path in paths}
        finally:
            os.chdir(before)
