"""`lepton-compress gate`: judge an existing result, for people and for CI."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_compress.boundary import working
from lepton_compress.options import AsJson, complete_recipe, complete_result, deliver

if TYPE_CHECKING:
    from lepton_compress.boundary import Stage
    from lepton_compress.judgements import Judgement

SUMMARY = "GITHUB_STEP_SUMMARY"
"""The environment variable in which GitHub names the file for a job's summary."""

gating = typer.Typer()


@gating.command(
    short_help="Judge an existing result by a budget.",
    epilog="Example: `lepton-compress gate runs/digits-cnn --budget budget.yaml --junit gates.xml`",
)
def gate(
    result: Annotated[
        Path,
        typer.Argument(
            metavar="RESULT",
            help="The folder of a run, or its result.json.",
            autocompletion=complete_result,
        ),
    ],
    budget: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Gates in YAML, as in a recipe; the run's own verdicts by default.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="RESULT",
            help="An earlier result, on the same evaluation data, to be no worse than.",
            autocompletion=complete_result,
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure latency again here, with the run's artifacts."),
    ] = False,
    candidate: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Judge this instead of what was chosen. May repeat."),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the verdicts as JUnit XML.")
    ] = None,
    sarif: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the verdicts as SARIF.")
    ] = None,
    github: Annotated[
        bool,
        typer.Option("--github", help="Annotate a GitHub workflow and write its job's summary."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Judge what a run chose by a budget, or against an earlier result.

    Exit code 1 if a gate fails, is inconclusive, or asks for something that was not measured.
    """
    from lepton_compress.errors import EXIT_GATE, RecipeError

    if measure and budget is None and against is None:
        raise RecipeError(
            "--measure needs limits to hold the times to",
            where="gate",
            mend="give --budget or --against",
        )
    with working(quiet=as_json) as stage:
        from lepton_compress.judging import judge_result
        from lepton_compress.report import gate as view

        made = judge_result(
            result,
            budget=budget,
            against=against,
            measure=measure,
            candidates=tuple(candidate or ()),
            observer=stage.observer,
        )
        _write(made, junit, sarif)
        deliver(stage, made, view.show, as_json=as_json)
        if github:
            _annotate(made, stage, as_json=as_json)
    if not made.passed:
        raise typer.Exit(EXIT_GATE)


def _write(made: Judgement, junit: Path | None, sarif: Path | None) -> None:
    import json

    from lepton_compress.store import write_atomically

    if junit is not None:
        from lepton_compress.report import junit as xml

        write_atomically(junit, xml.junit(made))
    if sarif is not None:
        from lepton_compress.report import sarif as alerts

        write_atomically(sarif, json.dumps(alerts.sarif(made), indent=1) + "\n")


def _annotate(made: Judgement, stage: Stage, *, as_json: bool) -> None:
    """Annotations beside the output for people, or on stderr, where they do not spoil the JSON."""
    from lepton_compress.report import github
    from lepton_compress.store import writing

    console = stage.err if as_json else stage.out
    for line in github.commands(made):
        console.print(line, markup=False, highlight=False)
    place = os.environ.get(SUMMARY)
    if place:
        with writing(Path(place)), Path(place).open("a", encoding="utf-8") as file:
            file.write(github.summary(made))
