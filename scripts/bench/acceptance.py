"""Does diffgen accept what a judge by eye would accept? Edits, sheets for two judges, and the score.

    python -m scripts.bench.acceptance pictures look --seed 27 --group day=driving/day:14 --group facade=photos/facade*:6 …
    diffgen run look/recipe.yaml
    python -m scripts.bench.acceptance sheets look
    python -m scripts.bench.acceptance score look --write

`pictures` copies random pictures of each group, puts bars around some of the first group's, and writes a recipe with each
preset of the embedded model, and again at a strength at which nothing happens ("faint-"). `sheets` writes pages of numbered
pairs, source and edit, with the condition that was asked for: for each judge in another order, without diffgen's verdict.
They write `judge1.json` and `judge2.json`: {"1": "there", "2": "not there", "3": "broken", …}. `score` compares them with
the verdicts of today's code. Tune on the pictures of one seed, and judge by those of another.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from PIL import Image, ImageDraw, ImageFont

from diffgen import Image as Made
from diffgen import open_run
from diffgen.dataset.images import decode
from diffgen.recipe.presets import presets
from scripts.docs.tables import measured, write_table

JUDGES = (1, 2)
ANSWERS = ("there", "not there", "broken")
BARS = [
    ((0, 0, 0), (16, 9)),
    ((114, 114, 114), (1, 1)),
    ((0, 0, 0), (4, 3)),
    ((114, 114, 114), (4, 3)),
    ((0, 0, 0), (1, 1)),
]
LARGEST = 1280  # px
FAINT = 0.02
ON_A_PAGE, WIDTH = 6, 560  # pairs; px of one picture


def pictures_below(pattern: str) -> list[Path]:
    """The pictures below a folder, or those that a pattern names."""
    folder, _, name = pattern.rpartition("/")
    found = sorted(Path(folder).glob(name)) if "*" in name else sorted(Path(pattern).rglob("*"))
    return [path for path in found if path.suffix.lower() in (".jpg", ".jpeg", ".png")]


def boxes_of(path: Path) -> str:
    """The rows of a YOLO label file with boxes, all of class 0; none without such a file."""
    label = Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt")
    rows = [line.split() for line in label.read_text("utf-8").splitlines()] if label.is_file() else []
    return "".join(f"0 {' '.join(row[1:])}\n" for row in rows if len(row) == 5)


def with_bars(picture: Image.Image, colour: tuple[int, int, int], shape: tuple[int, int]) -> Image.Image:
    """A picture of 960 × 540 px between uniform bars, in a frame of the given shape or, for 16:9, of cinema's 21:9."""
    if shape == (16, 9):
        inner = picture.resize((960, 411))
        frame = Image.new("RGB", (960, 540), colour)
    else:
        inner = picture.resize((960, 540))
        frame = Image.new("RGB", (960, 960 * shape[1] // shape[0]), colour)
    frame.paste(inner, (0, (frame.height - inner.height) // 2))
    return frame


def make_pictures(folder: Path, groups: Sequence[str], share: float, seed: int) -> None:
    """The dataset, of one class, and recipe.yaml."""
    rng = random.Random(seed)
    images, labels = folder / "data/images/train", folder / "data/labels/train"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    first: list[Path] = []
    for group in groups:
        name, _, rest = group.partition("=")
        pattern, _, count = rest.rpartition(":")
        found = pictures_below(pattern)
        chosen = rng.sample(found, min(int(count), len(found)))
        first = first or [path for path in found if path not in chosen]
        for i, path in enumerate(chosen):
            picture = Image.open(path).convert("RGB")
            picture.thumbnail((LARGEST, LARGEST))
            picture.save(images / f"{name}{i:02}.jpg", quality=95)
            (labels / f"{name}{i:02}.txt").write_text(boxes_of(path), encoding="utf-8")
    for i, (bars, path) in enumerate(zip(BARS, rng.sample(first, len(BARS)), strict=True)):
        with_bars(Image.open(path).convert("RGB"), *bars).save(images / f"bars{i:02}.jpg", quality=92)
    validation = folder / "data/images/val"  # a dataset must have one
    validation.mkdir()
    Image.new("RGB", (64, 64)).save(validation / "black.png")
    data = {"train": "images/train", "val": "images/val", "names": ["thing"]}
    (folder / "data/data.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    conditions: list[object] = [{name: {"share": share}} for name in presets()]
    conditions += [
        {"name": f"faint-{name}", "prompt": name.replace("-", " "), "strength": FAINT, "share": 0.03}
        for name in presets()
    ]
    recipe = {"dataset": "data/data.yaml", "output": "out", "conditions": conditions, "seed": seed}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def pair(source: Image.Image, edit: Image.Image, title: str) -> Image.Image:
    height = min(round(WIDTH * source.height / source.width), WIDTH)
    canvas = Image.new("RGB", (2 * WIDTH + 4, height + 24), "white")
    canvas.paste(source.resize((WIDTH, height)), (0, 24))
    canvas.paste(edit.resize((WIDTH, height)), (WIDTH + 4, 24))
    ImageDraw.Draw(canvas).text((4, 3), title, fill="black", font=ImageFont.load_default(size=16))
    return canvas


def make_sheets(folder: Path, seed: int) -> None:
    """`judge1/page01.png` … and `key1.json`, job id by number; the same for judge 2, in another order."""
    made = [image for image in open_run(folder / "out").images if image.path is not None]
    for judge in JUDGES:
        pages = folder / f"judge{judge}"
        pages.mkdir()
        order = random.Random(f"{seed} {judge}").sample(made, len(made))
        key = {number: image.job for number, image in enumerate(order, 1)}
        (folder / f"key{judge}.json").write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")
        for start in range(0, len(order), ON_A_PAGE):
            pairs = []
            for number, image in enumerate(order[start : start + ON_A_PAGE], start + 1):
                assert image.path is not None
                source = Image.fromarray(decode(image.source.read_bytes()))
                pairs.append(pair(source, Image.open(image.path), f"{number}: {asked(image)}"))
            columns = [pairs[0::2], pairs[1::2]]
            height = max(sum(one.height + 6 for one in column) for column in columns)
            page = Image.new("RGB", (2 * (2 * WIDTH + 12), height), (128, 128, 128))
            for x, column in enumerate(columns):
                y = 0
                for one in column:
                    page.paste(one, (x * (2 * WIDTH + 12), y))
                    y += one.height + 6
            page.save(pages / f"page{start // ON_A_PAGE + 1:02}.png")


def asked(image: Made) -> str:
    """The condition as a judge is told it."""
    return image.condition.removeprefix("faint-")


@dataclass(frozen=True, slots=True)
class Judged:
    image: Made
    answers: tuple[str, ...]

    @property
    def agreed(self) -> bool | None:
        """Whether both would accept it; None if one would."""
        wanted = {answer == "there" for answer in self.answers}
        return wanted.pop() if len(wanted) == 1 else None


def read_answers(folder: Path) -> dict[str, tuple[str, ...]]:
    """The answers of both judges by job id. Raises ValueError for answers that do not fit the sheets."""
    answers: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for judge in JUDGES:
        key = json.loads((folder / f"key{judge}.json").read_text(encoding="utf-8"))
        given = json.loads((folder / f"judge{judge}.json").read_text(encoding="utf-8"))
        if wrong := sorted(set(key) ^ set(given)) + [n for n, answer in given.items() if answer not in ANSWERS]:
            raise ValueError(f"judge {judge}: no answer, or one that is not {', '.join(ANSWERS)}: {', '.join(wrong)}")
        for number, job in key.items():
            answers[job] += (given[number],)
    return answers


def wrong(rows: Sequence[Judged]) -> list[Judged]:
    """Verdicts against both judges."""
    return [row for row in rows if row.agreed is not None and row.agreed != row.image.accepted]


def score_table(rows: Sequence[Judged]) -> str:
    """Markdown: a row for each condition, and for all."""
    head = "| condition | edits | both: there | both: not, or broken | judges differ | accepted wrongly | rejected wrongly |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    names = list(dict.fromkeys(row.image.condition for row in rows))
    names = [*presets(), *(["faint"] if any(name.startswith("faint-") for name in names) else [])]
    groups = {name: [row for row in rows if _group(row) == name] for name in names}
    for name, group in [*groups.items(), ("all", list(rows))]:
        agreed = Counter(row.agreed for row in group)
        accepted = Counter(row.image.accepted for row in wrong(group))
        cells = [name, len(group), agreed[True], agreed[False], agreed[None], accepted[True], accepted[False]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def _group(row: Judged) -> str:
    name = row.image.condition
    return "faint" if name.startswith("faint-") else name


def score(folder: Path, write: bool) -> int:
    answers = read_answers(folder)
    judged = [Judged(image, answers[image.job]) for image in open_run(folder / "out").images if image.job in answers]
    print(f"{len(wrong(judged))} of {len(judged)} wrong")
    for row in wrong(judged):
        image = row.image
        print(f"  {image.source.stem} {image.condition}: {image.verdict}, judges {row.answers} {image.job}")
    same = sum(len(set(row.answers)) == 1 for row in judged)
    gone = len(answers) - len(judged)
    print(f"judges: the same answer for {same} of {len(judged)}; {gone} judged edits are not planned")
    print(score_table(judged))
    if write:
        about = measured(f"{len(judged)} edits by pocket; the judges gave the same answer for {same}")
        write_table(
            Path("docs/fidelity.md"), "acceptance", f"{score_table(judged)}\n\n{about}", "scripts.bench.acceptance"
        )
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("pictures", "sheets", "score"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--group", action="append", default=[], metavar="NAME=FOLDER:COUNT")
    parser.add_argument("--share", type=float, default=0.25, help="of the pictures, for each condition")
    parser.add_argument("--seed", type=int, default=27)
    parser.add_argument("--write", action="store_true", help="the table into docs/fidelity.md")
    args = parser.parse_args(argv)
    if args.step == "pictures":
        make_pictures(args.folder, args.group, args.share, args.seed)
    elif args.step == "sheets":
        make_sheets(args.folder, args.seed)
    else:
        return score(args.folder, args.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
