"""`python -m benchmarks.placement PART`, where PART is a module of this folder."""

from __future__ import annotations

import importlib
import sys

PARTS = ("link", "plans")

if __name__ == "__main__":
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    if part not in PARTS:
        raise SystemExit(f"name one of: {', '.join(PARTS)}")
    importlib.import_module(f"benchmarks.placement.{part}").main()
