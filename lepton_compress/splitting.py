"""Cutting an artifact in two: where that pays, and the two files.

    enumerate the cuts, weigh what crosses     place/cutting.py
    estimate both sides by the profiler        explain/time.py
    make, compare and measure the best few     place/comparing.py, profile/turns.py

Estimates share out the time of a call of the whole by the runtime's own profile. What is measured
are the halves themselves, in turns, each in a process of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compress import placements, registry
from lepton_compress.artifacts import Observer, Split
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.halving import CLOUD, EDGE, RUNTIME, halves, named, runner, write
from lepton_compress.place.cuts import Cut, Cuts, Halves, winners
from lepton_compress.recipe import Source, TargetSpec
from lepton_compress.registry import nearest
from lepton_compress.weighing import Opened, ends, estimate, feeds, open_artifact, weighed

if TYPE_CHECKING:
    import numpy as np

    from lepton_compress.profile.turns import Taken
    from lepton_compress.weighing import Found

    Feeds = Mapping[str, np.ndarray]

MEASURED = 4
"""Cuts that are made and measured, unless told otherwise."""
ROUNDS, CAP = 10, 6.0
HALVES = Path("halves")
"""Where a cut is written, unless told otherwise."""
_HERE = TargetSpec(name="here", runtime=RUNTIME)


def split(
    artifact: str,
    *,
    at: str | None,
    out: Path | None,
    recipe_path: Path | None,
    data: Path | None,
    edge: str | None,
    cloud: str | None,
    measured: int,
    observer: Observer,
) -> Cuts:
    """The cuts of an artifact, and one of them made.

    Args:
        artifact: an .onnx file, or `run folder:candidate`.
        at: the cut to make, as `halves` takes it; nothing is measured then but that one.
        out: where to write it; `halves` by default.
        recipe_path, data: where real samples come from; neither for a run that knows its recipe.
        edge, cloud: names of the recipe's targets.
        measured: as `cuts`.

    Raises:
        UserError: something given cannot be used.
    """
    if out is not None and at is None:
        raise RecipeError("goes with --at", where="--output", mend="name the cut to make")
    path, samples, source, notes = _given(artifact, recipe_path, data)
    sides = [_target(source, name) for name in (edge, cloud)]
    found = cuts(
        path,
        samples,
        edge=sides[0],
        cloud=sides[1],
        measured=measured,
        only=at,
        observer=observer,
        folder=source.folder if source else Path(),
    )
    made = None if at is None else halves(path, found.cuts[0], samples, out or HALVES)
    return replace(found, halves=made, notes=(*notes, *found.notes))


def _given(
    artifact: str, recipe_path: Path | None, data: Path | None
) -> tuple[Path, Split, Source | None, tuple[str, ...]]:
    """The file, samples for it, the recipe they are from, and notes."""
    from lepton_compress import recipe
    from lepton_compress.explain import subject
    from lepton_compress.load.model import read_onnx_file
    from lepton_compress.report.folder import kept_recipe

    if recipe_path and data:
        raise RecipeError("goes with --data or --recipe, not with both", where="split")
    found = subject.find(artifact)
    model = read_onnx_file(found.path)
    samples, _, notes = subject.samples_of(found, model, recipe_path, data)
    source = recipe.read(recipe_path) if recipe_path else None
    if source is None and found.run is not None and found.run.folder is not None:
        source = kept_recipe(found.run)
    return found.path, subject.named(model, samples), source, notes


def _target(source: Source | None, name: str | None) -> TargetSpec:
    """The recipe's target of that name; without one its first that runs ONNX graphs, or this
    machine."""
    targets = source.recipe.targets if source else []
    if name is None:
        held = (each for each in targets if _runs_graphs(each) and each.batch == 1)
        return next(held, _HERE)
    for each in targets:
        if each.name == name:
            return each
    known = [each.name for each in targets]
    mend = nearest(name, known) if known else "give the recipe that has it, with --recipe"
    raise RecipeError(f"unknown target {name!r}", where="split", mend=mend)


def cuts(
    artifact: Path,
    samples: Split,
    *,
    observer: Observer,
    edge: TargetSpec = _HERE,
    cloud: TargetSpec | None = None,
    measured: int = MEASURED,
    only: str | None = None,
    cap: float = CAP,
    seed: int = 0,
    folder: Path = Path(),
) -> Cuts:
    """Where an ONNX artifact can be cut, and what each side then takes.

    Of all cuts those are told that no earlier one makes useless, by letting fewer bytes cross. The
    most promising of them (see `cuts.winners`) are made, compared with the whole and measured.

    Args:
        artifact: an .onnx file; preprocessing that was built into it stays on the edge.
        samples: real ones, their inputs as the artifact takes them.
        observer: where to report progress.
        edge, cloud: targets, each (batch 1) for a runtime that loads .onnx files; the cloud is the
            edge's by default.
        measured: how many cuts to measure; 0 leaves estimates alone.
        only: the one cut to tell of, whatever it lets cross: the name of a cut, of a layer to cut
            behind, or of a tensor.
        cap: seconds of measuring.
        seed: of the order of turns.
        folder: that paths in targets are relative to.

    Raises:
        InputError: the file is no ONNX graph, is a step model, or has no place to cut.
        LeptonError: a half cannot be measured.
    """
    opened, cloud = open_artifact(artifact, samples), cloud or edge
    for target in (edge, cloud):
        _check_target(target)
    with observer.work("cutting"):
        found = weighed(opened)
        input_bytes, output_bytes = ends(opened)
        if only is None:
            found = _worth(found, input_bytes)
        else:
            name = named(found, only, artifact)
            found = {name: found[name]}
    if not found:
        raise InputError(
            "has no place to cut with up to three tensors crossing", where=str(artifact)
        )
    with observer.work("estimating"):
        whole = estimate(opened, found)
    promising = _promising(found, input_bytes)
    for name in promising:
        found[name] = (replace(found[name][0], promising=True), found[name][1])
    chosen = list(found)[: min(measured, 1)] if only else promising[:measured]
    seconds = {edge.name: whole, cloud.name: whole}
    notes: list[str] = []
    if chosen:
        with observer.work("measuring the halves"), tempfile.TemporaryDirectory() as place:
            parts, made = _made(opened, found, chosen, Path(place), notes)
            taken = _measure(opened, parts, edge, cloud, cap, seed, folder)
        for name, each in made.items():
            cut = _with_times(each.cut, taken[name, "edge"], taken[name, "cloud"])
            found[name] = (cut, found[name][1])
        seconds = {each.name: taken["", each.name].seconds for each in (edge, cloud)}
    return Cuts(
        artifact=str(artifact),
        input_bytes=input_bytes,
        output_bytes=output_bytes,
        edge=edge.name,
        cloud=cloud.name,
        edge_whole=seconds[edge.name],
        cloud_whole=seconds[cloud.name],
        cuts=tuple(cut for cut, _ in found.values()),
        notes=tuple(notes),
    )


def _with_times(cut: Cut, edge: Taken, cloud: Taken) -> Cut:
    return replace(
        cut,
        edge_seconds=edge.seconds,
        edge_interval=edge.interval,
        cloud_seconds=cloud.seconds,
        cloud_interval=cloud.interval,
        edge_quantiles=edge.quantiles,
        cloud_quantiles=cloud.quantiles,
        edge_idle=edge.idle,
        cloud_idle=cloud.idle,
        edge_memory=edge.memory,
        provenance="measured",
    )


def planned(found: Cuts, candidate: str, *, result: str = "") -> tuple[placements.Cut, ...]:
    """The cuts of a candidate's ONNX artifact as the planner takes them.

    Args:
        found: by `cuts`.
        candidate, result: whose artifact it is.
    """
    return tuple(
        placements.Cut(
            candidate=candidate,
            format="onnx",
            name=cut.name,
            bytes=cut.bytes,
            edge_target=found.edge,
            cloud_target=found.cloud,
            edge_seconds=cut.edge_quantiles or (cut.edge_seconds,),
            cloud_seconds=cut.cloud_quantiles or (cut.cloud_seconds,),
            edge_idle=cut.edge_idle,
            cloud_idle=cut.cloud_idle,
            edge_bytes=cut.edge_bytes,
            edge_memory=cut.edge_memory,
            provenance=cut.provenance,
            result=result,
        )
        for cut in found.cuts
    )


def _runs_graphs(target: TargetSpec) -> bool:
    runtime = registry.get("runtime", target.runtime)
    return not runtime.simulates and "onnx" in runtime.formats


def _check_target(target: TargetSpec) -> None:
    if not _runs_graphs(target):
        raise InputError(
            f"{target.runtime} runs no ONNX graph on a processor",
            where=f"target {target.name}",
            mend="name a target whose runtime does, such as onnxruntime-cpu",
        )


def _worth(found: Found, input_bytes: int) -> Found:
    """Those with fewer bytes than every earlier one, and the same among those where only features
    cross, which privacy may ask for at any price in bytes."""
    kept: Found = {}
    least, least_features = input_bytes, float("inf")
    for name, (cut, partition) in found.items():
        better = cut.bytes < least
        if better or (cut.features and cut.bytes < least_features):
            kept[name] = (cut, partition)
        least = min(least, cut.bytes)
        if cut.features:
            least_features = min(least_features, cut.bytes)
    return kept


def _promising(found: Found, input_bytes: int) -> list[str]:
    """Names, the widest range of bandwidths first: of those that beat sending the input, then of
    those that win where only features may cross."""
    names: list[str] = []
    for raw in (True, False):
        held = [cut for cut, _ in found.values() if raw or cut.features]
        points = [(cut.edge_seconds, float(cut.bytes)) for cut in held]
        if raw:
            points.append((0.0, float(input_bytes)))
        names += [held[index].name for index in winners(points) if index < len(held)]
    return list(dict.fromkeys(names))


def _made(
    opened: Opened, found: Found, chosen: Sequence[str], place: Path, notes: list[str]
) -> tuple[dict[str, Path], dict[str, Halves]]:
    """Folders and halves of the cuts that compose; of others a note."""
    parts, made = {}, {}
    for number, name in enumerate(chosen):
        folder = place / str(number)
        folder.mkdir()
        try:
            made[name] = write(opened, *found[name], folder)
            parts[name] = folder
        except InputError as error:
            notes.append(f"{name}: {error.problem}")
            found.pop(name)
    return parts, made


def _measure(
    opened: Opened,
    parts: Mapping[str, Path],
    edge: TargetSpec,
    cloud: TargetSpec,
    cap: float,
    seed: int,
    folder: Path,
) -> dict[tuple[str, str], Taken]:
    """By name of the cut and side; the whole by an empty name and the target's."""
    from lepton_compress.place.comparing import outputs
    from lepton_compress.profile.turns import Part, turns

    given = feeds(opened, opened.batch)
    keys: list[tuple[str, str]] = []
    asked: list[Part] = []

    def ask(key: tuple[str, str], path: Path, target: TargetSpec, takes: Feeds) -> None:
        keys.append(key)
        asked.append(Part(" of ".join(filter(None, key[::-1])), path, target, takes))

    for target in {each.name: each for each in (edge, cloud)}.values():
        ask(("", target.name), opened.path, target, given)
    for name, place in parts.items():
        ask((name, "edge"), place / EDGE, edge, given)
        halfway = {**given, **outputs(runner(place / EDGE), given)}
        wanted = [spec.name for spec in runner(place / CLOUD).inputs]
        ask((name, "cloud"), place / CLOUD, cloud, {each: halfway[each] for each in wanted})
    names = {part.name: key for key, part in zip(keys, asked, strict=True)}
    taken = turns(asked, rounds=ROUNDS, cap=cap, seed=seed, folder=folder)
    return {names[name]: each for name, each in taken.items()}
