"""The command that decides where models run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_compress.boundary import working
from lepton_compress.options import AsJson, complete_recipe, complete_result, deliver

if TYPE_CHECKING:
    from lepton_compress.boundary import Stage
    from lepton_compress.placements import Cut, Placement

placing = typer.Typer()


@placing.command(
    short_help="Decide where models run: edge, cloud, cascade or split.",
    epilog="Example: `lepton-compress place runs/digits-cnn --fleet fleet.yaml --html plan.html`",
)
def place(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RESULT...",
            help="Folders of runs, or their result.json.",
            autocompletion=complete_result,
        ),
    ] = None,
    fleet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Sites, links, workloads and what is asked, in YAML.",
            autocompletion=complete_recipe,
        ),
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Print a commented fleet file: image or speech."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page to open anywhere.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw what is chosen over round trip and bandwidth, .png or .svg (extra `plot`).",
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the plans as folders with artifacts and runners, to try them.",
        ),
    ] = None,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate", help="Confirm latencies by discrete events (extra `placement`)."
        ),
    ] = False,
    split: Annotated[
        bool,
        typer.Option(
            "--split",
            help="Cut the ONNX artifacts in two, measure the halves here, plan with them.",
        ),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out where the answer would change.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn at random.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Decide for each workload of a fleet where its model runs, from what runs measured.

    Considered are the edge, the cloud with as many replicas as waiting asks for, a cascade and a
    split. Exit code 1 if nothing meets the demands; then it says what would have to give.
    """
    from lepton_compress.errors import EXIT_GATE

    if example is not None:
        with working(quiet=True) as stage:
            from lepton_compress.placing import example as text_of

            text = text_of(example)
            stage.out.print(text, end="", markup=False, highlight=False, soft_wrap=True)
        return
    _check(results, fleet, plot)
    with working(quiet=as_json) as stage:
        from lepton_compress import placing as planning
        from lepton_compress.report import placement as view

        held = list(results or ())
        cuts = _cuts(held, fleet or Path(), stage) if split else []
        made = planning.place(
            held,
            fleet or Path(),
            cuts=cuts,
            sensitivity=not quick,
            maps=plot is not None or (html is not None and not quick),
            simulate=simulate,
            seed=seed,
            observer=stage.observer,
        )
        _write(made, html, plot)
        if export is not None and made.feasible:
            planning.export(made, list(results or ()), export)
        if as_json:
            stage.out.print(planning.to_json(made), end="", markup=False, highlight=False)
        else:
            deliver(stage, made, view.show, as_json=False)
    if not made.feasible:
        raise typer.Exit(EXIT_GATE)


def _check(results: list[Path] | None, fleet: Path | None, plot: Path | None) -> None:
    """What the options of this command need of each other."""
    from lepton_compress.errors import RecipeError

    if not results:
        raise RecipeError("no result is given", where="place", mend="name a run's folder")
    if fleet is None:
        mend = "give one; `lepton-compress place --example image` prints one to start from"
        raise RecipeError("no fleet is given", where="--fleet", mend=mend)
    if plot is not None and plot.suffix.lower() not in (".png", ".svg"):
        raise RecipeError(f"cannot draw {plot.name!r}", where="--plot", mend="name a .png or .svg")


def _cuts(results: list[Path], fleet: Path, stage: Stage) -> list[Cut]:
    """What can be split, found out after the fleet was checked against the results."""
    from lepton_compress import crossing
    from lepton_compress import placing as planning
    from lepton_compress.place.fleet import read_fleet
    from lepton_compress.report.folder import read_result

    file = read_fleet(fleet)
    planning.check(file, [read_result(path) for path in results])
    return crossing.crossings(results, file.fleet, stage.observer)


def _write(made: Placement, html: Path | None, plot: Path | None) -> None:
    from lepton_compress import placing as planning
    from lepton_compress.store import write_atomically

    if html is not None:
        write_atomically(html, planning.page(made))
    if plot is not None and made.maps:
        from lepton_compress.joined import write
        from lepton_compress.report.placement_figure import figure

        write(figure(made, kind="svg" if plot.suffix.lower() == ".svg" else "png"), plot)
