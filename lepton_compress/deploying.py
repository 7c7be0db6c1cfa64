"""From a placement to what can be tried: a deployment for each workload at each of its sites."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compress.artifacts import Profile, RunResult
from lepton_compress.errors import InputError, OutputError
from lepton_compress.place import exporting
from lepton_compress.place.deployment import Deployment, Part, Rule
from lepton_compress.placements import Placed, Placement, Plan, Variant

if TYPE_CHECKING:
    import numpy as np

SAMPLES = 200
"""Evaluation samples that go with a deployment, to measure it with."""


def export(placement: Placement, results: Sequence[RunResult], folder: Path) -> list[Path]:
    """Write what was chosen: a folder for each workload at each site.

    Args:
        placement: with a plan for every case.
        results: that it was made from, read from their folders.
        folder: where to; it must not be there, or be empty.

    Raises:
        InputError: nothing was chosen, or a result lacks a file.
        OutputError: the folder cannot be written.
    """
    chosen = [each for each in placement.placed if each.plan is not None]
    if not chosen:
        raise InputError("there is no plan to export", where=placement.fleet)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError("is there already", where=str(folder), mend="name a new folder")
    found = []
    with tempfile.TemporaryDirectory(prefix="lepton-") as held:
        for number, each in enumerate(chosen):
            scratch = Path(held) / str(number)
            name = re.sub(r"[^\w.-]", "_", f"{each.workload}-{each.site}")
            made = deployment(each, placement, results, scratch)
            place = exporting.export(made, folder / name)
            _samples(_result(results, _variant(each.plan)), made, place / "samples.npz")
            found.append(place)
    return found


def deployment(
    placed: Placed, placement: Placement, results: Sequence[RunResult], scratch: Path
) -> Deployment:
    """The plan of one case as it is written for its sites.

    Args:
        scratch: a folder of this one's own, for the halves of a split.

    Raises:
        InputError: there is no plan, or a result lacks what it needs.
    """
    plan = placed.plan
    if plan is None:
        raise InputError(f"{placed.workload} has no plan at {placed.site}", where=placement.fleet)
    name = f"{placed.workload} at {placed.site}, {plan.name}"
    replicas = _workers(placement, plan)
    if plan.kind == "split":
        return _split(plan, name, results, replicas, scratch)
    edge, cloud = (_part(results, each) if each else None for each in (plan.edge, plan.cloud))
    labels = _labels((edge or cloud or _missing(plan)).path)
    rule = _rule(plan, results) if plan.cascade else None
    return Deployment(
        plan.kind, name, edge=edge, cloud=cloud, rule=rule, labels=labels, replicas=replicas
    )


def _missing(plan: Plan) -> Part:
    raise InputError(f"{plan.name} names no artifact")


def _variant(plan: Plan | None) -> Variant:
    found = plan and (plan.edge or plan.cloud)
    if not found:
        raise InputError("the plan names no artifact")
    return found


def _result(results: Sequence[RunResult], variant: Variant) -> RunResult:
    for each in results:
        if each.recipe == variant.result and each.folder is not None:
            return each
    raise InputError(f"there is no run folder of {variant.result!r}", mend="give its folder")


def _part(results: Sequence[RunResult], variant: Variant) -> Part:
    run = _result(results, variant)
    artifact = run.artifact(variant.candidate, variant.format)
    profile = _profile(run, variant)
    folder = run.folder or Path()
    return Part(
        folder / artifact.path,
        profile.runtime,
        profile.threads,
        tuple(folder / each for each in artifact.beside),
    )


def _profile(run: RunResult, variant: Variant) -> Profile:
    key = (variant.candidate, variant.format, variant.target)
    return next(p for p in run.profiles if (p.candidate, p.format, p.target) == key)


def _workers(placement: Placement, plan: Plan) -> int:
    """Calls at the same time on one replica."""
    for pool in placement.pools:
        if pool.site == plan.cloud_site and pool.variant in (plan.cloud, plan.edge):
            return max(1, pool.servers // max(1, pool.replicas))
    return 1


def _rule(plan: Plan, results: Sequence[RunResult]) -> Rule:
    """As the planner reads the edge's scores."""
    import numpy as np

    from lepton_compress.report.folder import kept_recipe

    assert plan.cascade is not None  # noqa: S101 - of a cascade
    variant = _variant(plan)
    run = _result(results, variant)
    wanted = (variant.candidate, variant.format)
    held = next((a for a in run.answers if (a.candidate, a.format) == wanted), None)
    if held is None or run.folder is None:
        raise InputError(f"{variant.name} has no recorded scores", mend="run its recipe again")
    with np.load(run.folder / held.path, allow_pickle=False) as file:
        scores = file["scores"].astype(np.float64)
    sums = np.exp(scores).sum(axis=1)
    source = kept_recipe(run)
    named = source.recipe.metrics[0].parameters.get("output") if source else None
    return Rule(
        plan.cascade.threshold,
        plan.cascade.temperature,
        str(named or ""),
        "probabilities" if np.allclose(sums, 1, atol=1e-2) else "logits",
    )


def _split(
    plan: Plan, name: str, results: Sequence[RunResult], replicas: int, scratch: Path
) -> Deployment:
    from lepton_compress.explain import subject
    from lepton_compress.halving import CLOUD, EDGE, halves
    from lepton_compress.load.model import read_onnx_file

    assert plan.cut is not None  # noqa: S101 - of a split
    variant = _variant(plan)
    whole = _part(results, variant)
    model = read_onnx_file(whole.path)
    run = _result(results, variant)
    given = subject.Subject(whole.path, variant.candidate, run)
    samples, _, _ = subject.samples_of(given, model, None, None)
    made = halves(whole.path, plan.cut.name, subject.named(model, samples), scratch)
    profile = {
        side: next((p for p in run.profiles if p.target == target), None)
        for side, target in ((EDGE, plan.cut.edge_target), (CLOUD, plan.cut.cloud_target))
    }
    parts = {
        side: Part(scratch / side, held.runtime if held else whole.runtime, whole.threads)
        for side, held in profile.items()
    }
    return Deployment(
        "split",
        name,
        edge=parts[EDGE],
        cloud=parts[CLOUD],
        outputs=made.outputs,
        crossing=made.crossing,
        passed=made.passed,
        early=made.early,
        stacks=made.cut.stacks,
        labels=_labels(whole.path),
        replicas=replicas,
    )


def _labels(path: Path) -> tuple[str, ...]:
    """Names of the classes, where the artifact knows them."""
    from lepton_compress.predict import manual

    for about in manual.read(path).outputs.values():
        if about.get("labels"):
            return tuple(map(str, about["labels"]))
    return ()


def _samples(run: RunResult, made: Deployment, path: Path) -> None:
    """Evaluation samples as the artifacts take them, with the true classes."""
    import numpy as np

    from lepton_compress.job import artifact_data
    from lepton_compress.report.folder import kept_recipe

    source = kept_recipe(run)
    if source is None:
        return  # whoever measures brings their own
    split = artifact_data(source).evaluation
    whole = made.edge or made.cloud
    names = exporting.inputs_of(whole) if whole else ()
    named = split.named(names) if made.kind != "split" or not made.passed else split
    rows = np.unique(np.linspace(0, len(named) - 1, min(SAMPLES, len(named))).astype(int))
    held: Mapping[str, np.ndarray] = {n: np.asarray(a[rows]) for n, a in named.inputs.items()}
    if named.targets is not None and np.asarray(named.targets).ndim == 1:
        held = {**held, "labels": np.asarray(named.targets)[rows]}
    np.savez_compressed(path, **dict(held))  # type: ignore[arg-type]
