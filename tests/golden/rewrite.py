"""Write the golden files anew: python -m tests.golden.rewrite. Read the diff before committing it.

A changed job id makes every image in every run folder anew: raise ID_SCHEMA or EDIT_VERSION and say so in the changelog.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.commands.test_help import COMMANDS, help_text
from tests.plan.test_job_ids import golden_jobs

HERE = Path(__file__).parent


def main() -> None:
    os.environ["COLUMNS"] = "80"
    ids = {name: job.id for name, job in golden_jobs().items()}
    (HERE / "job_ids.json").write_text(json.dumps(ids, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for command in ("", *COMMANDS):
        (HERE / "help" / f"{command.replace(' ', '-') or 'diffgen'}.txt").write_text(
            help_text(command), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
