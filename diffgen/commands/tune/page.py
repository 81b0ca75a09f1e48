"""What was found, as text for a terminal, as a page, and as a sheet of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffgen.commands.tune.bench import Made
from diffgen.dataset.targets import Target
from diffgen.files import shown, write_atomically
from diffgen.output.contact_sheet import Tile, contact_sheet, png, source_shapes, source_tile
from diffgen.output.outcome import Entry
from diffgen.output.report.plain import plain_page

ROWS = 6  # of the sheet
WIDTH, HEIGHT, EDGE = 560, 300, 40  # px of the curve


def tune_text(facts: Mapping[str, Any]) -> str:
    """The result for a terminal."""
    if facts["stopped"] is not None:
        return f"stopped   {facts['stopped']}; run the same command again to resume"
    default, tuned = facts["default"], facts["tuned"]
    lines = [
        f"tune      {facts['pictures']} pictures of the target, {len(facts['trials'])} trials on {facts['sources']} "
        "sources"
    ]
    lines.append(f"before    distance 1.00, {default['truth']:.2f} found again, {default['accepted']:.0%} accepted")
    if tuned is None:
        most = facts["found_again"]
        found = "" if most is None else f" (at most {most:.2f}; with a lower --recall the trials are reused)"
        nothing = f"nothing   no setting nearer than the recipe keeps {facts['recall']:g} of the objects{found}"
        return "\n".join([*lines, nothing, _page(facts)])
    low, high = tuned["interval"]
    lines.append(
        f"tuned     distance {tuned['ratio']:.2f} ({low:.2f} to {high:.2f}), {tuned['truth']:.2f} found again, "
        f"{tuned['accepted']:.0%} accepted"
    )
    lines += [f"          {part['share']:.0%} {part['condition']}" for part in facts["chosen"]]
    lines += [f"next      diffgen run {shown(facts['recipe'])}", f"recipe    {shown(facts['recipe'])}", _page(facts)]
    return "\n".join(lines)


def _page(facts: Mapping[str, Any]) -> str:
    return f"page      {shown(facts['folder'])}/report.html"


def write_page(path: Path, facts: Mapping[str, Any]) -> None:
    """Write the page. It loads the sheet beside it, and nothing else."""
    best = facts.get("chosen", ())
    points = [one for one in facts["trials"] if one["ratio"] < 10]
    far = max([1.2, *(one["ratio"] for one in points)])
    least = min([facts["least_small"] - 0.1, *(one["truth"] for one in points)])

    def at(one: Mapping[str, Any]) -> tuple[float, float]:
        x = EDGE + (one["truth"] - least) / (1 - least) * (WIDTH - 2 * EDGE)
        return round(x, 1), round(HEIGHT - EDGE - one["ratio"] / far * (HEIGHT - 2 * EDGE), 1)

    curve = {
        "width": WIDTH, "height": HEIGHT, "edge": EDGE, "points": [at(one) for one in points],
        "best": [at(one) for one in best], "limit": at({"truth": facts["least_small"], "ratio": 0})[0],
        "before": at(next(iter(points), {"truth": least, "ratio": 1.0})), "least": least, "far": far,
    }  # fmt: skip
    write_atomically(path, plain_page("diffgen.commands.tune", "tune.html.j2", facts=facts, curve=curve))


def write_sheet(path: Path, before: Made, tuned: Sequence[Made], targets: Sequence[Target]) -> None:
    """A row for each of the first sources: the source, its image before tuning, its tuned images, and a picture of
    the target."""
    made: dict[str, list[tuple[Path, Entry]]] = {}
    for one in tuned:
        for entry in one.entries:
            made.setdefault(entry.item.source.key, []).append((one.outcome.image(entry), entry))
    old = {entry.item.source.key: before.outcome.image(entry) for entry in reversed(before.entries)}
    dataset, rows = before.outcome.dataset, []
    for i, key in enumerate([key for key in old if key in made][:ROWS]):
        source = made[key][0][1].item.source
        target = targets[i * len(targets) // ROWS]
        rows.append([
            source_tile(source, source_shapes(source, dataset)),
            Tile(old[key], "as before"),
            *(Tile(picture, f"tuned: {entry.item.job.settings.condition}") for picture, entry in made[key][:1]),
            Tile(Path(target.path), f"target\n{Path(target.path).name}"),
        ])  # fmt: skip
    if rows:
        write_atomically(path, png(contact_sheet(rows, dataset.names)))
