"""The command line: parse, call, render, exit code. Nothing heavy is imported before a command
needs it."""

from __future__ import annotations

import copy
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
from lepton_compress.place_command import placing
from lepton_compress.reporting import reporting
from lepton_compress.sensitivity_command import sensing
from lepton_compress.split_command import splitting_app

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
    sys.exit(guarded(lambda: _about(sys.argv[1:])(standalone_mode=False)))


def _about(words: list[str]) -> typer.Typer:
    """The program with no more than the command that is asked for: making all takes longer than
    many of them run. All of it where the first word is none."""
    groups = [each.typer_instance for each in app.registered_groups if each.name not in _NAMED]
    held = [each for one in (app, *groups) if one is not None for each in one.registered_commands]
    asked = [each for each in held if each.callback and words[:1] == [each.callback.__name__]]
    if not asked:
        return app
    alone = copy.copy(app)
    alone.registered_commands, alone.registered_groups = asked, []
    return alone


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
    from lepton_compress import launched
    from lepton_compress.errors import EXIT_GATE

    with working(quiet=as_json or launched.rank() > 0) as stage:
        from lepton_compress import pipeline, tracking
        from lepton_compress.placing import read_placement
        from lepton_compress.report import folder, placement, terminal

        if mlflow is not None:
            tracking.check(mlflow)
        result = pipeline.run(
            recipe,
            out=out,
            workspace=workspace,
            trust_pickle=trust_pickle,
            observer=stage.observer,
        )
        if launched.rank():  # the first of those started together tells of it
            return
        if result.folder is not None:
            keep_log(stage.log, result.folder)
        if mlflow is not None:
            with stage.observer.work("log to MLflow"):
                tracking.log(result, mlflow)
        if as_json:
            stage.out.print(folder.to_json(result), markup=False, highlight=False)
        else:
            terminal.show(result, stage.out)
        planned = read_placement(result.folder) if result.folder else None
        if planned is not None and not as_json:
            placement.show(planned, stage.out)
    if not result.passed or (planned is not None and not planned.feasible):
        raise typer.Exit(EXIT_GATE)


@app.command(
    short_help="Check a recipe without loading what it names.",
    epilog="Example: `lepton-compress validate recipes/digits-cnn.yaml`",
)
def validate(recipe: RecipePath, as_json: AsJson = False) -> None:
    """Check a recipe's keys, values and plug-in parameters, without loading anything it names."""
    from lepton_compress import recipe as recipes
    from lepton_compress import serving

    source = recipes.read(recipe)
    notes = serving.remarks(source.recipe)
    if as_json:
        held = {"recipe": source.recipe.name, "digest": source.recipe.digest(), "valid": True}
        emit({**held, "notes": notes})
    else:
        many = len(source.recipe.variants)
        typer.echo(f"{recipe}: valid ({many} variant{'' if many == 1 else 's'})")
        for note in notes:
            typer.echo(f"note: {note}")


@app.command(epilog="Example: `lepton-compress schema > recipe.schema.json`")
def schema(
    fleet: Annotated[bool, typer.Option("--fleet", help="Of fleet files instead.")] = False,
    as_json: AsJson = True,
) -> None:
    """Print the JSON schema of recipes, for editors."""
    if fleet:
        from lepton_compress.place.fleet import json_schema as fleet_schema

        emit(fleet_schema())
        return
    from lepton_compress.recipe import json_schema

    emit(json_schema())


app.add_typer(looking)
app.add_typer(gating)
app.add_typer(asking)
app.add_typer(reporting)
app.add_typer(sensing)
app.add_typer(placing)
app.add_typer(splitting_app)
_NAMED = {"plugins": naming, "cache": caching, "targets": targeting}
for _name, _typer in _NAMED.items():
    app.add_typer(_typer, name=_name)


if __name__ == "__main__":
    main()
