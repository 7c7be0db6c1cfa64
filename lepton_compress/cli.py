"""The command line: parse, call, render, exit code. Nothing heavy is imported before a command
needs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_compress import __version__
from lepton_compress.boundary import Boundary

if TYPE_CHECKING:
    from lepton_compress.errors import RecipeError

app = typer.Typer(
    name="lepton-compress",
    help="Compress a trained model, prove what it costs and what it gains, choose what to ship.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all demands met, 1 a gate failed or was not measured, 2 the input is "
    "wrong, 3 an unexpected error (its log is named), 130 interrupted (the same command goes on).",
)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Workspace = Annotated[
    Path,
    typer.Option(
        envvar="LEPTON_WORKSPACE", help="Folder in which results are kept for reuse.", metavar="DIR"
    ),
]
TrustPickle = Annotated[
    bool,
    typer.Option("--trust-pickle", help="Load checkpoints that can run code. Only your own."),
]
WORKSPACE = Path(".lepton")


def main() -> None:
    """Entry point of the program."""
    Boundary().run(app)


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


if __name__ == "__main__":
    sys.exit(main())
