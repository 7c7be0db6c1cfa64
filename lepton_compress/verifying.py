"""Each artifact compared with what it was made from, link by link, and kept in the store."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lepton_compress import registry, verify
from lepton_compress.artifacts import Artifact, Model, Observer, Parity
from lepton_compress.behaving import Held
from lepton_compress.branches import Branches, Node
from lepton_compress.errors import InputError
from lepton_compress.job import Job
from lepton_compress.keys import links, verify_key
from lepton_compress.load import forms
from lepton_compress.store import Entry

_SAMPLES = 8
"""To look for the layer that an artifact parts at."""


@dataclass(frozen=True)
class Exported:
    """An artifact with its file in the store and the node it was written from; `narrowed` if it
    was written with weights that the node's model does not have."""

    artifact: Artifact
    file: Path
    node: Node
    narrowed: bool = False

    @property
    def held(self) -> Held:
        """Without the node."""
        return Held(self.artifact, self.file)


def parities(job: Job, made: Branches, exported: Exported) -> list[Parity]:
    """Each link of the chain from the user's model to the artifact."""
    found = []
    for source, lowered in links(exported.node):
        found += _checked(job, made, exported, source, lowered)
    if job.around and exported.file.suffix == ".onnx":
        return found + _whole(job, made, exported, exported.node)
    return found + _checked(job, made, exported, exported.node)


def _checked(
    job: Job,
    made: Branches,
    exported: Exported,
    source: Node,
    lowered: Node | None = None,
) -> list[Parity]:
    """One link: the graph `lowered` from `source`, or the artifact written from it."""
    artifact = exported.artifact
    mark = verify_key(job, source, lowered.key if lowered else artifact.sha256)

    def build(folder: Path) -> dict[str, Any]:
        from lepton_compress.export.comparable import comparable

        reference = made.model(source)
        # What stands around the model is in the artifact; the reference has its Python originals.
        run, around = _caller(reference), job.around and not lowered
        subject = _caller(made.model(lowered)) if lowered else _runner(exported)
        names = [spec.name for spec in reference.inputs]
        compare: Callable[..., tuple[Parity, ...]] = verify.verify
        if not lowered and exported.narrowed:
            # What that costs is what the evaluation measures, as of any quantisation.
            compare = functools.partial(verify.agree, classes=False)
        elif not lowered and rounds(reference, exported.file):
            compare = verify.agree
        elif not lowered and (both := comparable(exported.file, reference)) is not None:
            subject, run = both  # of a step artifact, which rounds each frame for itself
        with made.observer.work(f"verify {artifact.candidate}"):
            found = compare(
                subject,
                (lambda feeds: job.around.finish(run(feeds))) if around else run,
                job.data.evaluation.named(names),
                given=job.given.evaluation.named(names) if around else None,
                candidate=artifact.candidate,
                format=artifact.format,
                against=reference.form,
            )
            if not lowered and not all(each.holds for each in found):
                found = _placed(job, made.observer, exported, reference, found)
        return _kept(found)

    return _restored(artifact, made.store.make(mark, "verify", build))


def _placed(
    job: Job, observer: Observer, exported: Exported, source: Model, found: Sequence[Parity]
) -> tuple[Parity, ...]:
    """Comparisons, those that do not hold with the first layer that computes something else."""
    from lepton_compress import layers
    from lepton_compress.explain import divergence, parting

    held = layers.read(exported.file)
    if held is None or not held.operators:
        return tuple(found)
    if job.around:
        from lepton_compress.preprocess.attach import attach

        source = attach(source, job.around)
    names = [spec.name for spec in source.inputs]
    samples = job.given.evaluation.named(names)
    try:
        gaps, _, _ = divergence.compare(exported.file, held, source.value, samples, _SAMPLES)
    except InputError as error:
        observer.note(f"the layers of {exported.artifact.path} cannot be compared: {error}")
        return tuple(found)
    layer = parting.first(gaps)
    return tuple(each if each.holds else replace(each, layer=layer) for each in found)


def rounds(graph: Model, file: Path) -> bool:
    """Whether the artifact computes in integers that another runtime than the graph's rounds."""
    if file.suffix == ".onnx" or graph.form != "graph":
        return False
    from lepton_compress.graph import integers

    return integers(graph.value)


def _whole(job: Job, made: Branches, exported: Exported, source: Node) -> list[Parity]:
    """The last link where something stands around the model: what is before it against the Python
    original, and the artifact's answers against the graph's on those very values."""
    artifact = exported.artifact
    mark = verify_key(job, source, artifact.sha256)

    def build(folder: Path) -> dict[str, Any]:
        from lepton_compress.preprocess import surrounded

        with made.observer.work(f"verify {artifact.candidate}"):
            found = surrounded.verify(
                exported.file,
                made.model(source),
                job.around,
                job.given.evaluation,
                job.data.evaluation,
                candidate=artifact.candidate,
                format=artifact.format,
            )
        return _kept(found)

    return _restored(artifact, made.store.make(mark, "verify", build))


def _kept(parities: Sequence[Parity]) -> dict[str, Any]:
    return {
        "parities": [
            [p.against, p.metric, p.value, p.limit, p.batch, p.samples, p.layer] for p in parities
        ]
    }


def _restored(artifact: Artifact, entry: Entry) -> list[Parity]:
    return [
        Parity(
            artifact.candidate,
            artifact.format,
            *kept,
        )
        for kept in entry.details["parities"]
    ]


def _caller(model: Model) -> verify.Run:
    return lambda feeds: forms.call(model, feeds)


def _runner(exported: Exported) -> verify.Run:
    runtime = registry.get("exporter", exported.artifact.format).evaluates
    runner = registry.get("runtime", runtime).function(exported.file, 1)
    names = [spec.name for spec in runner.outputs]
    return lambda feeds: dict(zip(names, runner.run(feeds), strict=True))
