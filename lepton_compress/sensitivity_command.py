"""The command that tells how much each group of channels matters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lepton_compress.boundary import working
from lepton_compress.options import (
    WORKSPACE,
    AsJson,
    RecipePath,
    TrustPickle,
    Workspace,
    deliver,
)

sensing = typer.Typer()


@sensing.command(
    short_help="Draw what pruning each group of channels alone loses.",
    epilog="Example: `lepton-compress sensitivity recipes/digits-cnn.yaml --plot groups.svg`",
)
def sensitivity(
    recipe: RecipePath,
    variant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Take its step `prune`, and carry out the steps before that; by default the first "
            "variant that has one.",
        ),
    ] = None,
    ratios: Annotated[
        str,
        typer.Option(metavar="LIST", help="Shares of a group's channels to remove."),
    ] = "0.25,0.5,0.75",
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the recipe; its first by default.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=8, help="Evaluate on at most this many training samples.")
    ] = 512,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a picture too, .svg or .png (extra `plot`)."),
    ] = None,
    workspace: Workspace = WORKSPACE,
    trust_pickle: TrustPickle = False,
    as_json: AsJson = False,
) -> None:
    """Show what each group of channels is worth: pruned alone at several ratios, and evaluated on
    samples that no gate looks at.

    Results are kept in the workspace. `prune: {scope: sensitivity}` takes most from the groups
    that lose least.
    """
    with working(quiet=as_json) as stage:
        from lepton_compress import sensing as finding
        from lepton_compress.report import sensitivity as view

        wanted = view.numbers(ratios)
        kind = view.kind_of(plot) if plot is not None else None
        found = finding.sensitivity(
            recipe,
            variant=variant,
            ratios=wanted,
            metric=metric,
            samples=samples,
            workspace=workspace,
            trust_pickle=trust_pickle,
            observer=stage.observer,
        )
        if plot is not None and kind is not None:
            from lepton_compress.joined import write
            from lepton_compress.report.sensitivity_figure import figure

            write(figure(found, kind=kind), plot)
        deliver(stage, found, view.show, as_json=as_json)
