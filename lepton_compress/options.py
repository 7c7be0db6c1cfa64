"""Options and arguments that several commands share, and what the shell completes them with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from lepton_compress.boundary import Stage

WORKSPACE = Path(".lepton")
_RECIPES = (".yaml", ".yml")
_MODELS = (".onnx", ".pt2", ".safetensors", ".py", ".json")


def _files(incomplete: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Folders, and files of these kinds, that a started path can become."""
    folder, _, start = incomplete.rpartition("/")
    for each in sorted(Path(folder or ("/" if incomplete.startswith("/") else ".")).glob("*")):
        if not each.name.startswith(start) or (each.name.startswith(".") and not start):
            continue
        name = f"{folder}/{each.name}" if "/" in incomplete else each.name
        if each.is_dir():
            yield name + "/"
        elif each.suffix in suffixes:
            yield name


def complete_recipe(incomplete: str) -> list[str]:
    """Recipes below the current folder."""
    return list(_files(incomplete, _RECIPES))


def complete_model(incomplete: str) -> list[str]:
    """Files that hold models, or the Python that makes one."""
    return list(_files(incomplete, _MODELS))


def complete_result(incomplete: str) -> list[str]:
    """Folders of runs, and results."""
    return list(_files(incomplete, (".json",)))


def complete_kind(incomplete: str) -> list[str]:
    """Kinds of plug-ins."""
    from lepton_compress.registry import KINDS

    return [kind for kind in KINDS if kind.startswith(incomplete)]


def complete_name(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the plug-ins of the kind in front."""
    from lepton_compress.registry import names

    kind = str(ctx.params.get("kind", ""))
    return [name for name in names(kind) if name.startswith(incomplete)]


def complete_target(incomplete: str) -> list[str]:
    """Names of the targets that come with the tool, with packages and with `LEPTON_TARGETS`."""
    from lepton_compress.catalogue import listed

    return [name for name in sorted(listed()) if name.startswith(incomplete)]


RecipePath = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe file.", autocompletion=complete_recipe)
]
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
Kind = Annotated[
    str, typer.Argument(metavar="KIND", help="Such as step.", autocompletion=complete_kind)
]
OneOfKinds = Annotated[
    str | None,
    typer.Argument(metavar="[KIND]", help="Only this kind.", autocompletion=complete_kind),
]
PluginName = Annotated[
    str, typer.Argument(metavar="NAME", help="Its name.", autocompletion=complete_name)
]
ResultPaths = Annotated[
    list[Path],
    typer.Argument(
        metavar="RESULT...",
        help="Folders of runs, or their result.json.",
        autocompletion=complete_result,
    ),
]
_ONE_RESULT = "Folder of a run, or one candidate in it, as runs/digits-cnn:int8."
FirstResult = Annotated[
    str, typer.Argument(metavar="FIRST", help=_ONE_RESULT, autocompletion=complete_result)
]
SecondResult = Annotated[
    str, typer.Argument(metavar="SECOND", help=_ONE_RESULT, autocompletion=complete_result)
]
ModelPath = Annotated[str, typer.Argument(metavar="MODEL", autocompletion=complete_model)]


def deliver(
    stage: Stage, value: Any, show: Callable[[Any, Console], None], *, as_json: bool
) -> None:
    """Print what a command found: as JSON, or as `show` draws it for people."""
    import json

    from lepton_compress.report.folder import plain

    if as_json:
        text = json.dumps(plain(value), indent=1, allow_nan=False)
        stage.out.print(text, markup=False, highlight=False)
    else:
        show(value, stage.out)
