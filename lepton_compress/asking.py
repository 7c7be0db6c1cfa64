"""The command that asks an artifact."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_compress.boundary import Stage, working
from lepton_compress.options import AsJson, complete_model, deliver

if TYPE_CHECKING:
    from lepton_compress.predictions import Heard

asking = typer.Typer()


@asking.command(epilog="Example: `lepton-compress predict runs/mnist-cnn-edge seven.png`")
def predict(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT",
            help="An .onnx or .tflite file, a run's folder (what it chose), or "
            "runs/NAME:CANDIDATE.",
            autocompletion=complete_model,
        ),
    ],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Pictures, WAV files, texts in quotes, or .npy and .npz files; `-` with --stream "
            "is PCM of 16 bits from a pipe.",
        ),
    ],
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Classes to tell of each; 5, or 1 with --stream, by default."),
    ] = None,
    convert: Annotated[
        bool,
        typer.Option(
            "--convert",
            help="Bring pictures of other modes and sizes, and sound of other rates and widths, "
            "to what the artifact takes.",
        ),
    ] = False,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="That a call may use.")] = 1,
    format: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a run's artifacts, which to ask, as `litert`."),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Listen window by window; tells the real-time factor.")
    ] = False,
    hop: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="With --stream: from window to window, as `250 ms`."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask an artifact about pictures, sound or text.

    What was attached by `preprocess` and `postprocess` in the recipe is inside the artifact, so
    that the answer is what the device will give.
    """
    with working(quiet=as_json) as stage:
        from lepton_compress import predicting
        from lepton_compress.report import predict as view

        if stream:
            how = (hop, top or 1, convert, threads, format)
            _listen(stage, artifact, inputs, *how, as_json=as_json)
            return
        _refuse_hop(hop)
        made = predicting.predict(
            artifact, inputs, top=top or 5, convert=convert, threads=threads, format=format
        )
        deliver(stage, made, view.show, as_json=as_json)


def _refuse_hop(hop: str | None) -> None:
    from lepton_compress.errors import RecipeError

    if hop is not None:
        raise RecipeError("--hop goes with --stream", where="predict", mend="drop it")


def _listen(
    stage: Stage,
    artifact: str,
    inputs: list[str],
    hop: str | None,
    top: int,
    convert: bool,
    threads: int,
    format: str | None,
    *,
    as_json: bool,
) -> None:
    from lepton_compress import predicting
    from lepton_compress.errors import RecipeError
    from lepton_compress.predict.streaming import PIPE
    from lepton_compress.report import predict as view

    if len(inputs) != 1:
        raise RecipeError("--stream takes one stream", where="predict", mend="give one")

    def told(heard: Heard) -> None:
        if not as_json:
            stage.out.print(view.heard(heard))

    source = sys.stdin.buffer if inputs[0] == PIPE else Path(inputs[0])
    made = predicting.listen(
        artifact,
        source,
        hop=_seconds(hop) if hop is not None else None,
        top=top,
        convert=convert,
        threads=threads,
        format=format,
        told=told,
    )
    deliver(stage, made, view.listening, as_json=as_json)


def _seconds(text: str) -> float:
    from pydantic import TypeAdapter, ValidationError

    from lepton_compress.errors import RecipeError
    from lepton_compress.units import Duration

    try:
        return float(TypeAdapter(Duration).validate_python(text))
    except ValidationError as error:
        raise RecipeError(
            f"{text!r} is no time", where="--hop", mend="write it as `250 ms`"
        ) from error
