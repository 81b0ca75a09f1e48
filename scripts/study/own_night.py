"""Does `diffgen tune` come nearer to a condition on pictures that it has not seen? The table of docs/your-own-night.md.

    python -m scripts.study.own_night --driving driving --weights yolo26n.pt --other yolo11n.pt --out runs/tune --write

For each condition half of the real pictures, by hash, are the target, and the other half is unseen. The recipe is the preset
over the day frames; the limit on the objects found again is what the preset keeps of the sources that tune uses. Then preset
and tuned recipe are run over the same day frames that tune did not use, and both are compared with the unseen pictures in
features that the search did not use: the backbone of the other detector. It goes on where it was stopped.

`--pairs` writes pairs of one source by preset and tuned recipe, left or right by hash, beside unseen pictures, to be judged
blind: OUT/pairs/night-00.png …. own_night_marks.txt has what was preferred (a line `night-00: l`, `r` or `=` for each).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import yaml

from diffgen import load_recipe, open_run, run_recipe
from diffgen.commands.tune.bench import FULL
from diffgen.commands.tune.distance import Yardstick
from diffgen.commands.tune.features import Embed, features, load_backbone
from diffgen.commands.tune.tune import TuneRequest, tune
from diffgen.dataset.images import decode
from diffgen.editing.levers.match import matched
from diffgen.output.contact_sheet import Tile, contact_sheet
from diffgen.types import unit
from scripts.docs.tables import measured, write_table
from scripts.study.night import linked, nights

# Trials for each condition, and its pictures: only night and fog have a word for whether it was enough.
BUDGETS = {"night": 200, "fog": 60, "snow": 40, "rain": 40}
TUNED, HELD = 24, 60  # sources that tune tries on, and others; its finalists are of twice as many
LONG_SIDE = 768  # px
MARKS = Path(__file__).with_name("own_night_marks.txt")
UNSEEN = 3  # pictures on a sheet
METHODS = ("histogram", "reinhard", "fourier")


def halves(driving: Path, condition: str) -> tuple[list[Path], list[Path]]:
    """(target, unseen). Of the nights only those of the study's tuning half."""
    if condition == "night":
        tuning = nights(driving / "night/data.yaml")["tuning"]
        return tuning[::2], tuning[1::2]
    folder = driving / condition / "images"
    found = sorted((p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".png")), key=lambda p: unit(p.name))
    return found[::2], found[1::2]


def recipe_of(args: argparse.Namespace, condition: str, place: Path) -> Path:
    path = place / f"{condition}.yaml"
    fields = {
        "dataset": str((args.driving / "day/data.yaml").resolve()),
        "output": condition,
        "conditions": [condition],
        "detector": str(args.weights.resolve()),
        "resolution": {"long_side": LONG_SIDE},
    }
    path.write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")
    return path


def truth_of(folder: Path, used: Container[str] = ()) -> tuple[int, int]:
    """(objects found again, objects), of all images that were made, without those of the sources that were used."""
    hits = [
        a or b
        for image in open_run(folder).images
        if image.source.name not in used
        for a, b in zip(image.facts.get("found", ()), image.facts.get("found_matched", ()), strict=True)
    ]
    return sum(hits), len(hits)


def made(recipe: Path, output: Path, more: int = HELD) -> Path:
    """The run folder of the recipe over as many sources as tune uses, and `more`."""
    loaded = load_recipe(recipe, [f"select.max={FULL * TUNED + more}", f"output={output}", "require.accepted=0"])
    if summary := run_recipe(loaded).stopped:
        sys.exit(f"stopped: {summary}")
    return output


def accepted_of(folder: Path, used: set[str]) -> dict[str, Path]:
    """Name of the source -> accepted image, without the sources that were used."""
    images = (image for image in open_run(folder).images if image.accepted and image.source.name not in used)
    return {image.source.name: image.path for image in images if image.path is not None}


def matches(
    images: Sequence[tuple[Path, Path]], target: Sequence[Path], embed: Embed, yardstick: Yardstick
) -> dict[str, Any]:
    """Distances, in statistics and embedding, of day frames and of the preset's images, as they are and matched wholly by
    each method. `images` are pairs of day frame and image."""
    found: dict[str, Any] = {}
    light = [decode(path.read_bytes(), least=LONG_SIDE) for path in target]
    for method in (None, *METHODS):
        for name, paths in zip(("day", "preset"), zip(*images, strict=True), strict=True):
            with tempfile.TemporaryDirectory() as folder:
                changed = list(paths)
                if method is not None:
                    changed = [Path(folder) / f"{i}.png" for i in range(len(paths))]
                    for i, (path, place) in enumerate(zip(paths, changed, strict=True)):
                        other = light[int(unit("match", i) * len(light))]
                        pixels = matched(decode(path.read_bytes()), other, method, 1.0)
                        PIL.Image.fromarray(pixels).save(place, compress_level=1)
                made = features(changed, embed)
            found[f"{name}, {method or 'as it is'}"] = [yardstick.statistics(made), yardstick.embedding(made)]
    return found


def match_table(found: dict[str, Any]) -> str:
    lines = ["| | statistics: day frames, preset | CMMD: day frames, preset |", "|---|---|---|"]
    for method in ("as it is", *METHODS):
        rows = [found[f"{name}, {method}"] for name in ("day", "preset")]
        name = method if method == "as it is" else f"`match: {{method: {method}, amount: 1}}`"
        lines.append(f"| {name} | {' | '.join(f'{rows[0][i]:.2f}, {rows[1][i]:.2f}' for i in range(2))} |")
    return "\n".join([*lines, "", measured("nights, distances to unseen pictures")])


def look(args: argparse.Namespace, condition: str) -> dict[str, Any]:
    """What is found for a condition: of the preset and of the tuned recipe the distances to unseen pictures."""
    place = (args.out / condition).absolute()
    target, unseen = halves(args.driving, condition)
    folder = linked(place / "target", target)
    path = recipe_of(args, condition, place)
    before = made(path, place / "before")
    found, objects = truth_of(made(path, place / "limit", 0))
    recall = min(0.9, int(100 * found / objects) / 100)
    request = TuneRequest(
        load_recipe(path), folder, recall=recall, budget=args.budget or BUDGETS[condition], sources=TUNED
    )
    facts = tune(request, notify=lambda line: print(f"{condition}: {line}", file=sys.stderr, flush=True))
    if facts["exit_code"] not in (0, 3):
        sys.exit(facts["exit_code"])
    row: dict[str, Any] = {"condition": condition, "target": len(target), "unseen": len(unseen), "recall": recall}
    row |= {"budget": request.budget, "inside": None if facts["tuned"] is None else facts["tuned"]["ratio"]}
    if facts["tuned"] is None:
        return row
    after = made(Path(facts["recipe"]), place / "after")
    used = {image.source.name for image in open_run(place / f"{condition}-tune/default").images}
    embed = load_backbone(args.other, "cpu")
    yardstick = Yardstick(features(unseen, embed))
    for name, run in (("before", before), ("after", after)):
        pictures = [*accepted_of(run, used).values()]
        edited = features(pictures, embed)
        hits, of = truth_of(run, used)
        row[name] = {
            "images": len(pictures),
            "truth": hits / of,
            "statistics": yardstick.statistics(edited),
            "embedding": yardstick.embedding(edited),
        }
        floor = yardstick.target.of(range(0, len(unseen), 2)), yardstick.target.of(range(1, len(unseen), 2))
        row["floor"] = Yardstick(floor[0]).embedding(floor[1])
    if condition == "night":
        images = [(image.source, image.path) for image in open_run(before).images if image.accepted and image.path]
        pairs = [(source, path) for source, path in images if source.name not in used]
        row["match"] = matches(pairs, target, embed, yardstick)
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| | target, unseen | trials | limit; found again: preset, tuned | CMMD to unseen | less | statistics: less |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["condition"], f"{row['target']}, {row['unseen']}", str(row["budget"])]
        if "after" in row:
            b, a = row["before"], row["after"]
            cells += [
                f"{row['recall']:.2f}; {b['truth']:.2f}, {a['truth']:.2f}",
                f"{b['embedding']:.2f}, {a['embedding']:.2f}",
            ]
            cells += [f"{1 - a[key] / b[key]:.0%}" for key in ("embedding", "statistics")]
        else:
            cells += [f"{row['recall']:.2f}; none kept enough", "–", "–", "–"]
        lines.append(f"| {' | '.join(cells)} |")
    what = f"day frames (BDD100K), {HELD} that tune did not use; CMMD of a backbone that it did not use"
    return "\n".join([*lines, "", measured(what)])


def write_pairs(args: argparse.Namespace, condition: str, count: int) -> None:
    """Sheets of two rows: unseen pictures, and the pair. Which is which stands only in pairs.json."""
    place = (args.out / condition).absolute()
    used = {image.source.name for image in open_run(place / f"{condition}-tune/default").images}
    before, after = (accepted_of(place / name, used) for name in ("before", "after"))
    _, unseen = halves(args.driving, condition)
    names = sorted(before.keys() & after.keys(), key=lambda name: unit("pair", name))[:count]
    folder, key = args.out / "pairs", {}
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        swapped = unit("side", condition, name) < 0.5
        pair = [before[name], after[name]][:: -1 if swapped else 1]
        real = [unseen[(i * UNSEEN + j) % len(unseen)] for j in range(UNSEEN)]
        rows = [[Tile(path, "") for path in row] for row in (real, pair)]
        contact_sheet(rows, ()).save(folder / f"{condition}-{i:02}.png")
        key[f"{condition}-{i:02}"] = "l" if swapped else "r"  # where the tuned one is
    (folder / f"{condition}.json").write_text(json.dumps(key, indent=1), encoding="utf-8")


def counted(args: argparse.Namespace) -> str:
    """A line: how often the tuned one was preferred."""
    key: dict[str, str] = {}
    for path in sorted((args.out / "pairs").glob("*.json")):
        key |= json.loads(path.read_text("utf-8"))
    marks = dict(line.split(": ") for line in MARKS.read_text("utf-8").splitlines())
    words = Counter(
        "tie" if mark == "=" else "tuned" if mark == key[name] else "preset" for name, mark in marks.items()
    )
    return f"{len(marks)} blind pairs: tuned {words['tuned']}, preset {words['preset']}, ties {words['tie']}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driving", type=Path, required=True, help="a folder with day, night, fog, snow, rain")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--other", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--conditions", default=",".join(BUDGETS))
    parser.add_argument("--budget", type=int)
    parser.add_argument("--pairs", type=int, metavar="N")
    parser.add_argument("--write", action="store_true", help="the table into docs/your-own-night.md")
    args = parser.parse_args(argv)
    rows = []
    for condition in args.conditions.split(","):
        results = args.out / condition / "found.json"
        if not results.is_file():
            row = look(args, condition)
            results.write_text(json.dumps(row, indent=1), encoding="utf-8")
        rows.append(json.loads(results.read_text("utf-8")))
        if args.pairs:
            write_pairs(args, condition, args.pairs)
    text = table(rows)
    if MARKS.is_file():
        text += f"\n\n{counted(args)}."
    print(text)
    if args.write:
        write_table(Path("docs/your-own-night.md"), "measured", text, "scripts.study.own_night")
        for row in rows:
            if "match" in row:
                write_table(
                    Path("docs/your-own-night.md"), "match", match_table(row["match"]), "scripts.study.own_night"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
