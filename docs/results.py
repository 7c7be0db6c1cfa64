"""Run the shipped recipes and write docs/results.md: `python -m docs.results [NAME...]`.

Every recipe whose data is at hand is run in full and measured now; the rows of the others, and of
those that were not named, stay as they were. Data that does not ship is looked for in the folder
that the environment variable LEPTON_DATA names.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lepton_compress import provenance
from lepton_compress.artifacts import RunResult
from lepton_compress.errors import UserError
from lepton_compress.pipeline import run
from lepton_compress.report import table

ROOT = Path(__file__).resolve().parent.parent
PAGE, HELD = ROOT / "docs" / "results.md", ROOT / "docs" / "results.json"
HEAD = """# What the recipes reach

Each shipped recipe, run in full by `python -m docs.results` (`make results`). Accuracy is on
samples that neither training nor calibration saw; latency is a ratio to the original's in the same
run, one call of one sample, what stands before and behind the model included.
"""
HEADINGS = ("recipe", "techniques", "original", "chosen", "drop (95 %)", "latency", "size", "gates")


def main() -> None:
    """Run the recipes that are named, or all."""
    recipes = {path.stem: path for path in sorted(ROOT.glob("recipes/*.yaml"))}
    asked = sys.argv[1:] or list(recipes)
    if unknown := [name for name in asked if name not in recipes]:
        raise SystemExit(f"no recipe {unknown[0]}; there are {', '.join(recipes)}")
    held: dict[str, Any] = json.loads(HELD.read_text()) if HELD.exists() else {}
    for name in asked:
        with tempfile.TemporaryDirectory() as folder:
            try:
                made = run(recipes[name], out=Path(folder) / "run", workspace=ROOT / ".lepton")
            except UserError as error:
                print(f"{name}: not run ({error})", flush=True)
                continue
        held[name] = list(rows(made))
        print(f"{name}: {'passed' if made.passed else 'FAILED'}, {made.seconds:.0f} s", flush=True)
    HELD.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page(held))


def rows(result: RunResult) -> Iterator[dict[str, str]]:
    """One for each target."""
    scores = {each.candidate: each for each in result.scores if each.metric == first(result)}
    for choice in result.chosen:
        base = result.artifact(result.baseline, str(choice.format))
        chosen = next(row for row in table.rows(result, choice.target) if row.chosen)
        picked = str(choice.candidate)
        share = result.artifact(picked, base.format).bytes / base.bytes
        steps = [
            record.step
            for each in result.candidates
            for record in each.history
            if record.step != "lower"
        ]
        yield {
            "target": choice.target,
            "techniques": ", ".join(dict.fromkeys(steps)),
            "original": f"{table.in_unit(scores[result.baseline], scores[result.baseline].value)} "
            f"{scores[picked].metric.replace('_', ' ')}",
            "chosen": picked,
            "drop": chosen.drop,
            "ratio": chosen.ratio,
            "size": f"{share:.2f}x, {chosen.size}",
            "gates": chosen.verdict,
            "processor": str(result.environment["cpu"]["name"]),
        }


def first(result: RunResult) -> str:
    """The metric that the gates look at."""
    return result.scores[0].metric


def page(held: dict[str, Any]) -> str:
    """The text of docs/results.md."""
    lines = [HEAD, f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
    processors = set()
    for name, found in sorted(held.items()):
        for row in found:
            link = f"[{name}](../recipes/{name}.yaml)" + f" on {row['target']}" * (len(found) > 1)
            cells = [link, row["techniques"], row["original"], row["chosen"], row["drop"]]
            lines.append(f"| {' | '.join([*cells, row['ratio'], row['size'], row['gates']])} |")
            processors.add(row["processor"])
    versions = provenance.environment()["libraries"]
    told = ", ".join(f"{each} {version}" for each, version in versions.items())
    lines += ["", f"Measured on {', '.join(sorted(processors))}; {told}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
