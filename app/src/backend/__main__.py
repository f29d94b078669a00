"""`python -m backend` is the same program as the `backend` script."""

from __future__ import annotations

import sys

from backend.cli import main

if __name__ == "__main__":
    sys.exit(main())
