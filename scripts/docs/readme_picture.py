"""Make docs/sheet.jpg, the README's picture, and docs/levers.jpg, what the levers do, with the embedded model.

    python -m scripts.docs.readme_picture PATH/TO/china.jpg

The photograph is `sklearn/datasets/images/china.jpg` of scikit-learn (danielbuechele, CC BY 2.0): unzip it from the wheel,
scikit-learn need not be installed.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from diffgen import load_recipe, open_run, run_recipe
from diffgen.commands.preview import preview
from diffgen.commands.sweeps import PreviewRequest, read_sweep

DOCS = Path(__file__).resolve().parents[2] / "docs"
LEVERS = ("objects.strength=0.65,0.25", "objects.detail=0,0.8")
RECIPE = """
dataset: data.yaml
output: run
conditions: [snow, night, fog, rain, dusk]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photograph", type=Path, help="china.jpg")
    photograph = parser.parse_args().photograph
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split in ("train", "val"):
            (folder / "images" / split).mkdir(parents=True)
            (folder / "labels" / split).mkdir(parents=True)
            shutil.copyfile(photograph, folder / "images" / split / "pagoda.jpg")
            (folder / "labels" / split / "pagoda.txt").write_text("0 0.327 0.525 0.455 0.918\n")
        (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [pagoda]\n")
        (folder / "recipe.yaml").write_text(RECIPE)
        loaded = load_recipe(folder / "recipe.yaml")
        run_recipe(loaded)
        open_run(loaded.output).sheet(columns=3).save(DOCS / "sheet.jpg", quality=88)
        shown = preview(loaded, PreviewRequest(1, ("snow",), tuple(map(read_sweep, LEVERS))))
        assert shown.path is not None
        with Image.open(shown.path) as picture:
            picture.convert("RGB").save(DOCS / "levers.jpg", quality=88)


if __name__ == "__main__":
    main()
