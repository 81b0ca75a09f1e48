"""`python -m diffgen`, and the `diffgen` script."""

from __future__ import annotations

import sys

from diffgen.cli import main
from diffgen.streams import secure_streams


def run() -> None:
    secure_streams()
    sys.exit(main())


if __name__ == "__main__":
    run()
