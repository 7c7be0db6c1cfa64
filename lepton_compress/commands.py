"""The commands around a run: what it would do, what a model is, where to start, what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lepton_compress.boundary import working
from lepton_compress.options import (
    WORKSPACE,
    AsJson,
    Kind,
    ModelPath,
    OneOfKinds,
    PluginName,
    RecipePath,
    TrustPickle,
    Workspace,
    complete_model,
    deliver,
)

Weights = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Weights to load into what a factory makes.")
]

looking = typer.Typer()


@looking.command(epilog="Example: `lepton-compress plan recipes/digits-cnn.yaml`")
def plan(recipe: RecipePath, workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """Show what a run would do, and what is kept already.

    Loads the data, which is part of what identifies a result; builds no model, writes nothing.
    """
    with working(quiet=as_json) as stage:
        from lepton_compress import plan as planning
        from lepton_compress.report import plan as view

        deliver(stage, planning.plan(recipe, workspace=workspace), view.show, as_json=as_json)


@looking.command(
    epilog="Example: `lepton-compress inspect model.py:Net --shape 'image=float32[1,3,224,224]'`"
)
def inspect(
    model: ModelPath,
    weights: Weights = None,
    args: Annotated[
        str, typer.Option(metavar="JSON", help="Keyword arguments of a factory.")
    ] = "{}",
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT",
            help="An input of a factory's model, as name=dtype[batch,dim,...]; needed to count "
            "operators and MACs. Give one for each input.",
        ),
    ] = None,
    trust_pickle: TrustPickle = False,
    as_json: AsJson = False,
) -> None:
    """Show operators, parameters, MACs and shapes of a model.

    MODEL is an .onnx, .pt2 or .safetensors file, path.py:factory, a run's folder or result.json,
    a run's saved ranges, or a folder of the workspace's store.
    """
    with working(quiet=as_json) as stage:
        from lepton_compress.inspect import subject
        from lepton_compress.report import inspect as view

        found = subject.inspect(
            model,
            args=args,
            weights=weights,
            shapes=tuple(shape or ()),
            trust_pickle=trust_pickle,
        )
        deliver(stage, found, view.show, as_json=as_json)


@looking.command(
    epilog="Example: `lepton-compress init model.py:Net --data data.py:load --out recipe.yaml`"
)
def init(
    model: ModelPath,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The recipe to write.")] = Path(
        "recipe.yaml"
    ),
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="path.py:load, or an .npz file.")
    ] = None,
    weights: Weights = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented recipe to start from.

    MODEL is an .onnx or .pt2 file, or path.py:factory. The recipe is valid as it is; what only
    you know is marked FILL IN.
    """
    with working(quiet=as_json) as stage:
        from lepton_compress import scaffold
        from lepton_compress.report import draft as view

        written = scaffold.write(
            model,
            out=out,
            data=data,
            weights=str(weights) if weights else None,
            force=force,
        )
        deliver(stage, written, view.show, as_json=as_json)


@looking.command(
    epilog="Example: `lepton-compress explain runs/digits-cnn:int8`",
)
def explain(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT",
            help="An .onnx file (with --layers a .tflite file), or a candidate in the folder of a "
            "run, as runs/digits-cnn:int8.",
            autocompletion=complete_model,
        ),
    ],
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Its float counterpart (with --layers the graph that it was written from); found "
            "in its run by default.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Take samples from this recipe's data."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take samples from this .npz file.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An .npz of what it was calibrated on, with --data."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Run at most this many samples.")] = 64,
    cpu: Annotated[
        str | None,
        typer.Option(
            metavar="EXTENSIONS",
            help="Vector extensions of the processor to judge for, such as avx2; this machine's "
            "by default.",
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every node.")] = False,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Compare a LiteRT artifact with the graph that it was written from, layer by "
            "layer, and name the first layer that computes something else.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Explain what an artifact lost, node by node, and why.

    Each node with its ranges, its error on real samples, its share of the time, and whether it
    really runs in int8.
    """
    if layers:
        for given, name in ((calibration, "--calibration"), (cpu, "--cpu")):
            if given is not None:
                raise typer.BadParameter("does not go with --layers", param_hint=name)
        _layers(artifact, against, recipe, data, samples, as_json=as_json)
        return
    with working(quiet=as_json) as stage:
        from lepton_compress.explain import subject
        from lepton_compress.report import explain as view

        found = subject.explain(
            artifact,
            against=against,
            recipe_path=recipe,
            data=data,
            calibration=calibration,
            samples=samples,
            extensions=cpu,
            observer=stage.observer,
        )
        deliver(stage, found, view.show_all if every else view.show, as_json=as_json)


def _layers(
    artifact: str,
    against: Path | None,
    recipe: Path | None,
    data: Path | None,
    samples: int,
    *,
    as_json: bool,
) -> None:
    with working(quiet=as_json) as stage:
        from lepton_compress.explain import parting
        from lepton_compress.report import parting as view

        found = parting.divergence(
            artifact,
            against=against,
            recipe_path=recipe,
            data=data,
            samples=samples,
            observer=stage.observer,
        )
        deliver(stage, found, view.show, as_json=as_json)


@looking.command(epilog="Example: `lepton-compress doctor --host pi@raspberry`")
def doctor(
    workspace: Workspace = WORKSPACE,
    host: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Check another machine, `user@device` as ssh takes it."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Of its SSH server.")] = None,
    identity: Annotated[
        str | None, typer.Option(metavar="FILE", help="A private key for it.")
    ] = None,
    ssh_config: Annotated[
        str | None, typer.Option(metavar="FILE", help="To use in place of ~/.ssh/config.")
    ] = None,
    python: Annotated[
        str | None, typer.Option(metavar="PATH", help="The interpreter there.")
    ] = None,
    directory: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where to make a private folder there.")
    ] = None,
    runtime: Annotated[
        str, typer.Option(metavar="NAME", help="The runtime to look for there.")
    ] = "onnxruntime-cpu",
    as_json: AsJson = False,
) -> None:
    """Check Python, libraries, processor, plug-ins and disk.

    Exit code 1 if something that every run needs is missing or of another version. With --host,
    check another machine: exit code 1 if nothing can be measured there.
    """
    from lepton_compress.errors import EXIT_GATE, RecipeError

    reach = {
        "port": port,
        "identity": identity,
        "ssh_config": ssh_config,
        "python": python,
        "directory": directory,
    }
    given = {name: value for name, value in reach.items() if value is not None}
    if given and host is None:
        name = next(iter(given)).replace("_", "-")
        raise RecipeError("goes with --host", where=f"--{name}", mend="give one, or drop it")
    with working(quiet=as_json) as stage:
        found: tuple[str, ...]
        if host is not None:
            from lepton_compress import devices
            from lepton_compress.report import device as device_view

            about = devices.examine_device({"host": host, "runtime": runtime, **given})
            deliver(stage, about, device_view.show, as_json=as_json)
            found = about.problems
        else:
            from lepton_compress import doctor as doctors
            from lepton_compress.report import doctor as view

            checkup = doctors.examine(workspace)
            deliver(stage, checkup, view.show, as_json=as_json)
            found = checkup.problems
    if found:
        raise typer.Exit(EXIT_GATE)


caching = typer.Typer(
    no_args_is_help=True,
    help="List and prune the results that are kept.",
    epilog="Example: `lepton-compress cache list`",
)


@caching.command("list", epilog="Example: `lepton-compress cache list`")
def cache_list(workspace: Workspace = WORKSPACE, as_json: AsJson = False) -> None:
    """List what the workspace keeps, most recently used first."""
    with working(quiet=as_json) as stage:
        from lepton_compress import cache
        from lepton_compress.report import cache as view

        deliver(stage, cache.listing(workspace), view.show_listing, as_json=as_json)


@caching.command(
    "prune", epilog="Example: `lepton-compress cache prune --older-than '7 d' --to-size '500 MB'`"
)
def cache_prune(
    older_than: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Remove what was not used for so long, such as '7 d'."),
    ] = None,
    to_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Remove until this much is left, such as '500 MB'."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    workspace: Workspace = WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Remove kept results, the least recently used first.

    What is being made just now stays. A run that is under way may miss what you remove.
    """
    with working(quiet=as_json) as stage:
        from lepton_compress import cache, units
        from lepton_compress.report import cache as view

        pruned = cache.prune(
            workspace,
            older_than=_quantity(units.Duration, older_than, "--older-than"),
            to_size=_quantity(units.Size, to_size, "--to-size"),
            everything=everything,
            dry_run=dry_run,
        )
        deliver(stage, pruned, view.show_pruned, as_json=as_json)


def _quantity(kind: Any, text: str | None, option: str) -> Any:
    """A quantity with its unit, from the command line."""
    from pydantic import TypeAdapter, ValidationError

    from lepton_compress.errors import RecipeError

    if text is None:
        return None
    try:
        return TypeAdapter(kind).validate_python(text)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise RecipeError(said, where=option) from error


class _ListByDefault(TyperGroup):
    """`plugins`, `plugins step` and `plugins --json` are short for `plugins list ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


naming = typer.Typer(
    cls=_ListByDefault,
    help="List what a recipe can name: steps, metrics and others.",
    epilog="Example: `lepton-compress plugins step`",
)


@naming.command("list", epilog="Example: `lepton-compress plugins step`")
def plugins_list(kind: OneOfKinds = None, as_json: AsJson = False) -> None:
    """List the plug-ins, or those of one kind."""
    with working(quiet=as_json) as stage:
        from lepton_compress import plugins
        from lepton_compress.report import plugins as view

        deliver(stage, plugins.listing(kind), view.show_listing, as_json=as_json)


@naming.command("show", epilog="Example: `lepton-compress plugins show step prune`")
def plugins_show(kind: Kind, name: PluginName, as_json: AsJson = False) -> None:
    """Show a plug-in's parameters."""
    with working(quiet=as_json) as stage:
        from lepton_compress import plugins
        from lepton_compress.report import plugins as view

        deliver(stage, plugins.page(kind, name), view.show_page, as_json=as_json)
