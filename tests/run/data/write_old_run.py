"""Write `old_run/` beside this file: a recipe, its dataset and its run folder as commit dcb522e left them.

Written once and committed, for tests/run/test_old_run.py. To write it again, with that commit's code and fake editor:

    git worktree add /somewhere/old dcb522e
    cd /somewhere/old && PYTHONPATH=. python THIS_FILE
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from diffgen.recipe import load_recipe
from diffgen.run import export, run
from tests.fakes import FakeEditor, fake_worker, make_dataset, put, write_recipe

PLACE = Path(__file__).resolve().parent / "old_run"


def main() -> None:
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()
    os.environ["DIFFGEN_CACHE"] = str(PLACE / "cache")
    make_dataset(PLACE / "data", counts=(2, 1), size=(32, 24))
    recipe = write_recipe(PLACE / "recipe.yaml", Path("data/data.yaml"), Path("out"), image={"quality": 75})
    run(load_recipe(recipe), make_worker=lambda: fake_worker(FakeEditor()))
    rows = [json.loads(line) for line in (PLACE / "out/dataset/manifest.jsonl").read_text().splitlines()[1:]]
    rejected = next(row["job"] for row in rows if row.get("condition") == "fog")
    review = put(PLACE / "review.yaml", f"{rejected}: reject\n")
    export(load_recipe(recipe), review)
    review.unlink()
    shutil.rmtree(PLACE / "cache")
    shutil.rmtree(PLACE / "out/images/.tmp", ignore_errors=True)
    for derived in ("lock", "report.html"):
        (PLACE / "out" / derived).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
