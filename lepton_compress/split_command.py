"""The command that cuts an artifact in two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lepton_compress.boundary import working
from lepton_compress.options import AsJson, complete_model, deliver

splitting_app = typer.Typer()

_TARGET = "A target of the recipe, for the {}; its first one that runs ONNX graphs by default."


@splitting_app.command(
    short_help="Cut a model between an edge and a cloud.",
    epilog="Example: `lepton-compress split runs/resnet8-edge:int8 --at block2/Add`",
)
def split(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT",
            help="An .onnx file, or a candidate in the folder of a run, as runs/digits-cnn:int8.",
            autocompletion=complete_model,
        ),
    ],
    at: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Make this cut: a name that is listed, a layer, or a tensor."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where to write the halves; with --at, halves by default."
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Take samples and targets from this recipe."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take samples from this .npz file.")
    ] = None,
    edge: Annotated[str | None, typer.Option(metavar="TARGET", help=_TARGET.format("edge"))] = None,
    cloud: Annotated[
        str | None, typer.Option(metavar="TARGET", help=_TARGET.format("cloud"))
    ] = None,
    measured: Annotated[
        int,
        typer.Option(min=0, max=50, help="Measure at most this many cuts; estimate the others."),
    ] = 4,
    as_json: AsJson = False,
) -> None:
    """Cut a model between an edge and a cloud: where that pays, and the two files.

    Lists the cuts that let fewer bytes cross than every earlier one, estimates both sides by the
    runtime's profile, and makes, compares and measures the most promising. With --at it writes
    edge.onnx, cloud.onnx and split.json, whose outputs are the whole's on real samples.
    """
    with working(quiet=as_json) as stage:
        from lepton_compress import splitting
        from lepton_compress.report import split as view

        found = splitting.split(
            artifact,
            at=at,
            out=output,
            recipe_path=recipe,
            data=data,
            edge=edge,
            cloud=cloud,
            measured=measured,
            observer=stage.observer,
        )
        deliver(stage, found, view.show, as_json=as_json)
