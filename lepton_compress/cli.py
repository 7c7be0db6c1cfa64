"""The command line: parse, call, render, exit code. Nothing heavy is imported before a command
needs it."""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lepton_compress import __version__
from lepton_compress.aiming import targeting
from lepton_compress.asking import asking
from lepton_compress.boundary import guarded, keep_log, working
from lepton_compress.commands import caching, looking, naming
from lepton_compress.gate_command import gating
from lepton_compress.options import WORKSPACE, AsJson, RecipePath, TrustPickle, Workspace
from lepton_compress.reporting import reporting
from lepton_compress.sensitivity_command import sensing

app = typer.Typer(
    name="lepton-compress",
    help="Compress a trained model, prove what it costs and what it gains, choose what to ship.",
    no_args_is_help=True,
    # Plain: importing rich's Markdown would double the time of `--help`.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all demands met, 1 a gate failed or was not measured, 2 the input is "
    "wrong, 3 an unexpected error (its log is named), 130 interrupted (the same command goes on).",
)


def main() -> None:
    """Entry point of the program."""
    # Until a command works, there is nothing to collect; `working` turns it on again.
    gc.disable()
    # pydantic would look through every installed distribution for plug-ins of its own.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    sys.exit(guarded(lambda: app(standalone_mode=False)))


@app.callback()
def _global(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"lepton-compress {__version__}")
        raise typer.Exit


def emit(value: Any) -> None:
    """Print a JSON value."""
    typer.echo(json.dumps(value, indent=1, allow_nan=False))


@app.command(
    short_help="Run a recipe and choose what to ship.",
    epilog="Example: `lepton-compress run recipes/digits-cnn.yaml --out runs/today`",
)
def run(
    recipe: RecipePath,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; runs/NAME by default.")
    ] = None,
    workspace: Workspace = WORKSPACE,
    trust_pickle: TrustPickle = False,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Log the result to this MLflow store (extra `mlflow`)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe: compress, export, verify, evaluate, profile, judge and choose.

    Results are kept in the workspace: a second run measures again and recomputes nothing else.
    """
    from lepton_compress.errors import EXIT_GATE

    with working(quiet=as_json) as stage:
        from lepton_compress import pipeline, tracking
        from lepton_compress.report import folder, terminal

        if mlflow is not None:
            tracking.check(mlflow)
        result = pipeline.run(
            recipe,
            out=out,
            workspace=workspace,
            trust_pickle=trust_pickle,
            observer=stage.observer,
        )
        if result.folder is not None:
            keep_log(stage.log, result.folder)
        if mlflow is not None:
            with stage.observer.work("log to MLflow"):
                tracking.log(result, mlflow)
        if as_json:
            stage.out.print(folder.to_json(result), markup=False, highlight=False)
        else:
            terminal.show(result, stage.out)
    if not result.passed:
        raise typer.Exit(EXIT_GATE)


@app.command(
    short_help="Check a recipe without loading what it names.",
    epilog="Example: `lepton-compress validate recipes/digits-cnn.yaml`",
)
def validate(recipe: RecipePath, as_json: AsJson = False) -> None:
    """Check a recipe's keys, values and plug-in parameters, without loading anything it names."""
    from lepton_compress import recipe as recipes

    source = recipes.read(recipe)
    if as_json:
        emit({"recipe": source.recipe.name, "digest": source.recipe.digest(), "valid": True})
    else:
        typer.echo(f"{recipe}: valid ({len(source.recipe.variants)} variants)")


@app.command(epilog="Example: `lepton-compress schema > recipe.schema.json`")
def schema(as_json: AsJson = True) -> None:
    """Print the JSON schema of recipes, for editors."""
    from lepton_compress.recipe import json_schema

    emit(json_schema())


app.add_typer(looking)
app.add_typer(gating)
app.add_typer(asking)
app.add_typer(reporting)
app.add_typer(sensing)
app.add_typer(naming, name="plugins")
app.add_typer(caching, name="cache")
app.add_typer(targeting, name="targets")


if __name__ == "__main__":
    main()
