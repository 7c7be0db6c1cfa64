"""One or several results as one HTML file that needs nothing else: no network, no other file.

Everything that comes from a user or a library is escaped by the templates, and a content security
policy lets nothing run but the script that stands in the file.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lepton_compress.artifacts import RunResult
from lepton_compress.report import behaviour, costs, details, sections, table
from lepton_compress.report.chart import Chart, charts
from lepton_compress.report.drawing import draw

TEMPLATES = Path(__file__).parent / "templates"
WIDE, NARROW = (860.0, 440.0), (400.0, 380.0)
"""Pictures for a screen and for a phone, so that letters keep their size."""

_ALL_TEXT, _ALL_ROWS, _ALL_FLIPS = 100_000, 600, 2500
_ALL_PARTS, _ALL_OPERATORS = 160, 160
"""Characters of raw statistics, rows of layers, samples, parts of the data and operators in one
file: many variants of a deep model must not make it too large to send."""


def html(
    results: Sequence[RunResult], recipes: Sequence[str | None] = (), notes: Sequence[str] = ()
) -> str:
    """The whole page.

    Args:
        results: of one run, or of several that are put beside each other.
        recipes: the text of each run's recipe, or None where it is not known.
        notes: what a reader must know to compare the runs.
    """
    import jinja2
    from markupsafe import Markup

    loader = jinja2.FileSystemLoader(TEMPLATES)
    world = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    texts = list(recipes) or [None] * len(results)
    pairs = zip(results, texts, strict=True)
    steps = sum(len(one.history) for result in results for one in result.candidates)
    share = 1 / max(1, steps)
    costed = max(1, sum(len(result.profiles) for result in results))
    runs = [
        _run(number, result, recipe, share, costed) for number, (result, recipe) in enumerate(pairs)
    ]
    return world.get_template("report.html.j2").render(
        title=", ".join(dict.fromkeys(result.recipe for result in results)),
        passed=all(result.passed for result in results),
        runs=runs,
        overview=_overview(results) if len(results) > 1 else None,
        notes=notes,
        profiled=costs.PROFILED,
        # Both are files of this package, and the only texts that are not escaped.
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    """As a content security policy wants it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _run(
    number: int, result: RunResult, recipe: str | None, share: float, costed: int
) -> dict[str, Any]:
    """A run; `share` is what each step may take of the room for details, `costed` how many
    profiles share the room for theirs."""
    text = min(details.MOST_TEXT, int(_ALL_TEXT * share))
    rows = min(details.MOST_LAYERS, max(4, int(_ALL_ROWS * share)))
    flips = min(details.MOST_FLIPS, max(10, int(_ALL_FLIPS * share)))
    parts = min(behaviour.MOST_PARTS, max(3, _ALL_PARTS // costed))
    operators = min(costs.MOST_OPERATORS, max(3, _ALL_OPERATORS // costed))
    looked_at = list(behaviour.parts(result, parts))
    samples = list(details.samples(result, flips))
    if any(group.kind == "class" for each in result.behaviours for group in each.groups):
        samples = [replace(each, classes=None) for each in samples]
    targets = [choice.target for choice in result.chosen]
    metrics = {score.metric for score in result.scores}
    place = result.environment.get("recipe.yaml")
    return {
        "id": f"run-{number}",
        "result": result,
        "targets": [
            {
                "name": choice.target,
                "choice": choice,
                "figures": list(sections.figures(result, choice)),
                "table": sections.candidates(result, choice.target),
                "noise": sections.noise(result, choice.target),
                "charts": [_chart(each) for each in charts(result, choice.target)],
            }
            for choice in result.chosen
        ],
        "axes": _axes(result, targets),
        "controls": sections.controls(result),
        "sparse": sections.sparse(result),
        "scores": sections.scores(result) if len(metrics) > 1 else None,
        "verdicts": sections.verdicts(result),
        "candidates": [
            {
                "about": candidate,
                "steps": details.steps(candidate, text),
                "layers": list(details.layers(candidate, rows)),
            }
            for candidate in result.candidates
        ],
        "samples": samples,
        "overview": behaviour.overview(result),
        "parts": looked_at,
        "corrupted": list(behaviour.corrupted(result)),
        "operators": list(costs.operators(result, operators)),
        "callers": costs.callers(result),
        "loads": costs.loads(result),
        "rests": costs.rests(result),
        "tunings": list(costs.tunings(result)),
        "devices": list(sections.devices(result)),
        "environment": sections.environment(result),
        "recipe": recipe,
        "command": f"lepton-compress run {shlex.quote(place)}" if isinstance(place, str) else None,
    }


def _axes(result: RunResult, targets: Sequence[str]) -> list[tuple[str, str]]:
    """The costs that some target has a chart of, and what they are called."""
    found = {each.axis: each.x_title for target in targets for each in charts(result, target)}
    return list(found.items())


def _chart(chart: Chart) -> dict[str, Any]:
    return {
        "chart": chart,
        "pictures": [("wide", draw(chart, *WIDE)), ("narrow", draw(chart, *NARROW))],
    }


def _overview(results: Sequence[RunResult]) -> sections.Table:
    """What each run chose, one row a target."""
    headings = ("run", "target", "chosen", "score", "drop", "size", "p50", "ratio", "verdict")
    rows = []
    for number, result in enumerate(results):
        for choice in result.chosen:
            row = next((r for r in table.rows(result, choice.target) if r.chosen), None)
            cells = [row.score, row.drop, row.size, row.latency, row.ratio] if row else [""] * 5
            met = choice.met and result.passed
            rows.append(
                (
                    sections.Cell(f"{number + 1}. {result.recipe}", result.started),
                    sections.Cell(choice.target, sections.processor(result)),
                    sections.Cell(choice.candidate or "nothing", state="chosen"),
                    *(sections.number(cell) for cell in cells),
                    sections.Cell("passed" if met else "FAILED", state="good" if met else "bad"),
                )
            )
    return sections.Table("What each run chose", headings, tuple(rows))
