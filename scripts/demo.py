"""The demo: a small labelled dataset from photographs that installed packages bring, a run on it, and one contact sheet.

    python scripts/demo.py dataset   # writes demo/dataset
    diffgen run configs/quickstart.yaml
    python scripts/demo.py sheet     # writes demo/sheet.png

`make demo` does the three. The two street photographs are Ultralytics' own assets, the portrait is matplotlib's sample
picture (public domain, US Navy); none of them is part of this repository. The labels are ours.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent / "demo"
NAMES = {0: "person", 1: "bus", 2: "tie"}
# (split, package, path below it) -> label rows
PICTURES = {
    ("train", "ultralytics", "assets/bus.jpg"): """\
1 0.4930 0.4436 0.9784 0.4635
0 0.1773 0.6036 0.2381 0.4672
0 0.3508 0.5873 0.1508 0.4182
0 0.9139 0.5893 0.1723 0.4492
0 0.0432 0.6613 0.0860 0.2941
""",
    ("train", "ultralytics", "assets/zidane.jpg"): """\
0 0.3273 0.6340 0.4610 0.7240
0 0.7409 0.5225 0.3128 0.9287
2 0.3773 0.7993 0.0719 0.3930
""",
    ("val", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg"): """\
0 0.5000 0.5200 0.9800 0.9500
""",
}


def write_dataset(folder: Path) -> Path:
    """Write images, labels and data.yaml below `folder`; returns the data.yaml."""
    for (split, package, name), rows in PICTURES.items():
        spec = find_spec(package)  # finds the package without importing it
        if spec is None or spec.origin is None:
            sys.exit(f"error: the package {package} is not installed\nhint: make setup")
        picture = Path(spec.origin).parent / name
        image = folder / "images" / split / picture.name
        label = folder / "labels" / split / f"{picture.stem}.txt"
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        if not image.exists():
            shutil.copyfile(picture, image)
        if not label.exists() or label.read_text() != rows:
            label.write_text(rows)
    data = folder / "data.yaml"
    names = "".join(f"  {i}: {name}\n" for i, name in NAMES.items())
    data.write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    return data


def write_sheet(recipe: Path, target: Path) -> None:
    """One contact sheet of a finished run."""
    from diffgen import open_run

    open_run(recipe).sheet().save(target)


def main() -> None:
    if sys.argv[1:] == ["dataset"]:
        print(f"demo dataset  {write_dataset(DEMO / 'dataset')}")
    elif sys.argv[1:2] == ["sheet"] and len(sys.argv) in (2, 4):
        recipe, target = (sys.argv[2], sys.argv[3]) if len(sys.argv) == 4 else (DEMO / "run", DEMO / "sheet.png")
        write_sheet(Path(recipe), Path(target))
        print(f"contact sheet {target}")
    else:
        sys.exit(f"usage: {sys.argv[0]} dataset | sheet [RUN_FOLDER PNG]")


if __name__ == "__main__":
    main()
