"""What answers to a blind look come to: how many are right, which conditions were taken for which, what looks broken.

    python -m scripts.pocket.blind_score look/key.json judge1.json judge2.json

Answers are written as {"1": {"condition": "snow", "look": "fine", "why": ""}, …}; `look` is fine, slight or broken.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

LOOKS = ("fine", "slight", "broken")


def score(key: dict[str, str], answers: dict[str, dict[str, str]]) -> str:
    """A table in Markdown, a row for each condition with how often it was taken for each, and the broken ones by number.

    Raises ValueError for answers that do not fit the key.
    """
    if missing := sorted(set(key) ^ set(answers), key=int):
        raise ValueError(f"pictures without an answer, or answers without a picture: {', '.join(missing)}")
    names = list(dict.fromkeys(key.values()))
    said = Counter((key[number], answer["condition"]) for number, answer in answers.items())
    columns = names + sorted({answer for _, answer in said} - set(names))
    lines = ["| made | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {made} | " + " | ".join(str(said[made, name] or "") for name in columns) + " |" for made in names]
    looks = Counter(answer["look"] for answer in answers.values())
    if unknown := set(looks) - set(LOOKS):
        raise ValueError(f"looks are {', '.join(LOOKS)}, not {', '.join(sorted(unknown))}")
    right = sum(said[name, name] for name in names)
    lines += ["", f"{right} of {len(key)} right; " + ", ".join(f"{looks[look]} {look}" for look in LOOKS)]
    broken = {int(number): answer for number, answer in answers.items() if answer["look"] == "broken"}
    lines += [f"- {number} ({key[str(number)]}): {broken[number].get('why', '')}" for number in sorted(broken)]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("key", type=Path)
    parser.add_argument("answers", type=Path, nargs="+")
    args = parser.parse_args(argv)
    key = json.loads(args.key.read_text(encoding="utf-8"))
    for path in args.answers:
        try:
            print(f"{path}\n\n{score(key, json.loads(path.read_text(encoding='utf-8')))}\n")
        except ValueError as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
