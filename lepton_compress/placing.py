"""`place`: where the models of results should run in a fleet, decided from what was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress.artifacts import Observer, RunResult
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.place.fleet import FleetFile, fleet_from_values, read_fleet
from lepton_compress.placements import Cut, Placement
from lepton_compress.registry import nearest
from lepton_compress.report.folder import read_result
from lepton_compress.report.plain import plain, restore
from lepton_compress.report.silent import Silent
from lepton_compress.store import write_atomically

if TYPE_CHECKING:
    from lepton_compress.recipe import Source

PLACEMENT = "placement.json"
PAGE = "placement.html"
VERSION = 1
EXAMPLES = Path(__file__).parent / "place" / "examples"
Results = RunResult | str | Path | Sequence[RunResult | str | Path]


def place(
    results: Results,
    fleet: str | Path | Mapping[str, Any],
    *,
    cuts: Sequence[Cut] = (),
    sensitivity: bool = True,
    maps: bool = False,
    simulate: bool = False,
    seed: int = 0,
    observer: Observer | None = None,
) -> Placement:
    """Decide for each workload of a fleet where its model runs: on the edge, in the cloud, in a
    cascade of both, or split between them.

    Args:
        results: of one run or several: values, or the paths of run folders or result.json.
        fleet: a fleet file, or what stands in one.
        cuts: of artifacts in two halves, for plans that split them.
        sensitivity: find where the answer would change, too.
        maps: find what would be chosen over round trip and bandwidth, too, for pictures.
        simulate: confirm the latencies by a discrete-event simulation (extra `placement`).
        seed: of the halves of the samples, and of the simulation.
        observer: told of progress.

    Returns:
        The plans; `placement.feasible` says whether all demands are met.

    Raises:
        RecipeError: the fleet is wrong, or names a target that was not profiled.
        InputError: a result cannot be read.
        MissingExtraError: simpy is not installed, and a simulation is asked for.
    """
    told = observer or Silent()
    given = [results] if isinstance(results, (RunResult, str, Path)) else list(results)
    file = fleet_from_values(fleet) if isinstance(fleet, Mapping) else read_fleet(Path(fleet))
    if simulate:
        from lepton_compress.place import simulation

        simulation.check()
    held = [each if isinstance(each, RunResult) else read_result(Path(each)) for each in given]
    check(file, held)
    from lepton_compress.place.planning import Planner

    planner = Planner(file.fleet, held, cuts, seed)
    with told.work("plan"):
        made = planner.place()
    if made.feasible and (sensitivity or maps):
        from lepton_compress.place import sensitivity as turning

        if sensitivity:
            made = replace(made, changes=turning.changes(planner, told))
        if maps:
            made = replace(made, maps=turning.maps(planner, told))
    if not made.feasible:
        from lepton_compress.place import relief

        made = replace(made, reliefs=relief.reliefs(planner, told))
    if simulate and made.feasible:
        made = replace(made, simulated=simulation.confirm(planner, seed, told))
    names = tuple(str(each.folder or each.recipe) for each in held)
    return replace(made, results=names)


def export(placement: Placement, results: Sequence[str | Path], folder: Path) -> list[Path]:
    """Write the plans as folders to try; see `deploying.export`.

    Raises:
        UserError: as there, or a result cannot be read.
    """
    from lepton_compress import deploying

    return deploying.export(placement, [read_result(Path(each)) for each in results], folder)


def check(file: FleetFile, results: Sequence[RunResult]) -> None:
    """Find out whether the fleet and the results know each other.

    Raises:
        RecipeError: the fleet names a target, a result or a metric that the results do not have.
        InputError: two results are of recipes of one name.
    """
    names = [result.recipe for result in results]
    for name in names:
        if names.count(name) > 1:
            mend = "give one of them, or rename a recipe"
            raise InputError(f"two results are of recipes named {name!r}", mend=mend)
    known = list(dict.fromkeys(p.target for result in results for p in result.profiles))
    found = [*_unprofiled(file, known), *_unknown(file, results)]
    if found:
        first, *others = found
        raise RecipeError(first.problem, where=first.where, mend=first.mend, others=tuple(others))


def _unprofiled(file: FleetFile, known: list[str]) -> Iterator[RecipeError]:
    """Sites whose target has no profile, nor one to estimate it from."""
    for index, site in enumerate(file.fleet.sites):
        if site.target in known:
            continue
        if site.estimate_from is None:
            mend = f"{nearest(site.target, known)}, or say which to estimate it from, as in "
            mend += f"`estimate_from: {{target: {known[0] if known else 'edge'}, factor: 3x}}`"
            where = file.where("sites", index, "target")
            yield RecipeError(f"no result was profiled on {site.target!r}", where=where, mend=mend)
        elif site.estimate_from.target not in known:
            target = site.estimate_from.target
            where = file.where("sites", index, "estimate_from")
            problem = f"no result was profiled on {target!r}"
            yield RecipeError(problem, where=where, mend=nearest(target, known))


def _unknown(file: FleetFile, results: Sequence[RunResult]) -> Iterator[RecipeError]:
    """Results and metrics that workloads name and that are not there."""
    names = [result.recipe for result in results]
    for index, workload in enumerate(file.fleet.workloads):
        for number, name in enumerate(workload.results):
            if name not in names:
                where = file.where("workloads", index, "results", number)
                yield RecipeError(
                    f"no result is of a recipe named {name!r}",
                    where=where,
                    mend=nearest(name, names),
                )
        wanted = [r for r in results if not workload.results or r.recipe in workload.results]
        metrics = list(dict.fromkeys(score.metric for r in wanted for score in r.scores))
        if workload.metric is not None and workload.metric not in metrics:
            where = file.where("workloads", index, "metric")
            mend = nearest(workload.metric, metrics)
            yield RecipeError(
                f"no result has the metric {workload.metric!r}", where=where, mend=mend
            )


def fleet_of(source: Source) -> FleetFile | None:
    """The fleet that a recipe names, checked against its targets before anything is run.

    Raises:
        RecipeError: it is wrong, or has a target that the recipe does not.
    """
    if source.recipe.place is None:
        return None
    path = source.folder / source.recipe.place
    if not path.is_file():
        mend = "write the path relative to the recipe"
        problem = f"no file {source.recipe.place!r}"
        raise RecipeError(problem, where=source.where("place"), mend=mend)
    file = read_fleet(path)
    wrong = list(_unprofiled(file, [target.name for target in source.recipe.targets]))
    if wrong:
        raise wrong[0]
    return file


def after(result: RunResult, file: FleetFile, observer: Observer) -> Placement:
    """Plan a fleet at the end of a run, and leave what was found in its folder."""
    made = place(result, file.path, maps=True, observer=observer)
    if result.folder is not None:
        write_atomically(result.folder / PLACEMENT, to_json(made))
        write_atomically(result.folder / PAGE, page(made))
    return made


def page(placement: Placement) -> str:
    """The placement as one HTML file that needs nothing else."""
    from lepton_compress.report.placement_page import html

    return html(placement)


def to_json(placement: Placement) -> str:
    """The text of `placement.json`."""
    return json.dumps({"schema": VERSION, **plain(placement)}, indent=1, allow_nan=False) + "\n"


def read_placement(path: Path) -> Placement | None:
    """What a run that planned left in its folder; None where it did not plan."""
    file = path / PLACEMENT
    if not file.is_file():
        return None
    body = json.loads(file.read_text(encoding="utf-8"))
    del body["schema"]
    return restore(Placement, body)


def json_schema() -> dict[str, Any]:
    """The JSON schema of `placement.json`."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Placement).json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "lepton-compress placement"
    schema["properties"]["schema"] = {"const": VERSION}
    return schema


def example(kind: str) -> str:
    """The text of a commented fleet file, for `image` or `speech`.

    Raises:
        RecipeError: there is none of that kind.
    """
    known = sorted(file.stem for file in EXAMPLES.glob("*.yaml"))
    if kind not in known:
        mend = f"write {' or '.join(known)}"
        raise RecipeError(f"no example {kind!r}", where="--example", mend=mend)
    return (EXAMPLES / f"{kind}.yaml").read_text(encoding="utf-8")
