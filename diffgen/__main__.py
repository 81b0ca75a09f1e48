"""`python -m diffgen`, and the `diffgen` script."""

from __future__ import annotations

import sys

from diffgen.cli import main


def run() -> None:
    sys.exit(main())


if __name__ == "__main__":
    run()
