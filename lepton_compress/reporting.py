"""The commands on runs that are over: joined into one report, and put beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lepton_compress.boundary import working
from lepton_compress.options import AsJson, FirstResult, ResultPaths, SecondResult, deliver

reporting = typer.Typer()


@reporting.command(
    epilog="Example: `lepton-compress report runs/today runs/yesterday --out both.html`"
)
def report(
    results: ResultPaths,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Where to write; its suffix chooses what is written. By default Markdown and "
            "JSON are printed, all else becomes report.SUFFIX in this folder.",
        ),
    ] = None,
    as_html: Annotated[bool, typer.Option("--html", help="One file to open anywhere.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="For a pull request.")] = False,
    as_json: AsJson = False,
    as_png: Annotated[bool, typer.Option("--png", help="The front, for a slide.")] = False,
    as_svg: Annotated[bool, typer.Option("--svg", help="The same, to scale.")] = False,
) -> None:
    """Join the results of one or several runs into one report."""
    asked = {
        "html": as_html,
        "markdown": as_markdown,
        "json": as_json,
        "png": as_png,
        "svg": as_svg,
    }
    with working(quiet=True) as stage:
        from lepton_compress import joined

        kind = _one_of(asked) or joined.kind_of(out)
        printed = out is None and kind in ("markdown", "json")
        file = None if printed else joined.place(out, kind)  # before any work
        content = joined.report(results, kind)
        if file is None:
            stage.out.print(content.decode(), end="", markup=False, highlight=False, soft_wrap=True)
        else:
            joined.write(content, file)
            stage.err.print(f"written to {file}", highlight=False, markup=False)


@reporting.command(epilog="Example: `lepton-compress compare runs/yesterday runs/today`")
def compare(
    first: FirstResult,
    second: SecondResult,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="For a pull request.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what changed from one run to another.

    Candidates are paired by name, drops by sample where both runs kept outcomes on the same data.
    Other hardware, data or versions are told.
    """
    with working(quiet=True) as stage:
        from lepton_compress import compare as comparing
        from lepton_compress.report import compare as view

        _one_of({"markdown": as_markdown, "json": as_json})
        found = comparing.compare(first, second)
        if as_markdown:
            text = view.markdown(found)
            stage.out.print(text, end="", markup=False, highlight=False, soft_wrap=True)
        else:
            deliver(stage, found, view.show, as_json=as_json)


def _one_of(asked: dict[str, bool]) -> Any:
    """Which of some options that exclude each other was given."""
    from lepton_compress.errors import RecipeError

    given = [name for name, is_so in asked.items() if is_so]
    if len(given) > 1:
        raise RecipeError(f"--{given[0]} and --{given[1]} exclude each other", mend="give one")
    return given[0] if given else None
