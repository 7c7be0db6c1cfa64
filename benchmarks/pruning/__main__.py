"""Pruning of the reference models: `LEPTON_DATA=... python -m benchmarks.pruning latency`.

`latency` prunes each to a share of its time and compares what was predicted with what was measured,
by the step and by the run. Names of models behind it take
those alone. Writes benchmarks/results/pruning_latency.json and .md.
"""

from __future__ import annotations

import logging
import sys

from benchmarks.pruning import latency

COMMANDS = {"latency": latency.main}


def main() -> None:
    """Run one of the commands."""
    logging.disable(logging.WARNING)
    name, *given = sys.argv[1:] or [""]
    if name not in COMMANDS:
        raise SystemExit(f"usage: python -m benchmarks.pruning {'|'.join(COMMANDS)} [MODEL...]")
    COMMANDS[name](given)


if __name__ == "__main__":
    main()
