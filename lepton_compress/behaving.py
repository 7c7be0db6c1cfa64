"""What artifacts do beyond their scores: predictions that change, parts of the data that lose,
corrupted data, and how much of them runs in integers. All of it is kept in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress import behave, corrupt, evaluate, registry
from lepton_compress.artifacts import (
    Answered,
    Artifact,
    Behaviour,
    Corrupted,
    Coverage,
    Observer,
    Score,
    Split,
)
from lepton_compress.job import Job
from lepton_compress.keys import answer_key, behave_key, corrupt_key, cover_key
from lepton_compress.provenance import file_digest
from lepton_compress.report.folder import plain, restore
from lepton_compress.store import Store

if TYPE_CHECKING:
    import numpy as np

RUNTIME = "onnxruntime-cpu"
"""Computes what is looked at in ONNX graphs."""
SCORES = "scores.npz"


@dataclass(frozen=True)
class Held:
    """An artifact and its file in the store."""

    artifact: Artifact
    file: Path


class Predictor:
    """Outputs of artifacts for the evaluation samples; of each baseline and of the last artifact
    they are kept, because the next stage asks for the same ones."""

    def __init__(self, job: Job, baseline: str, observer: Observer) -> None:
        self.job, self.baseline, self.observer = job, baseline, observer
        self._kept: dict[str, dict[str, np.ndarray]] = {}
        self._bases: set[str] = set()

    def outputs(self, held: Held) -> dict[str, np.ndarray]:
        """Name to array (samples, ...), read-only."""
        mark = held.artifact.sha256
        if held.artifact.candidate == self.baseline:
            self._bases.add(mark)
        if mark not in self._kept:
            self._kept = {each: self._kept[each] for each in self._bases if each in self._kept}
            self._kept[mark] = self.run(held, self.job.given.evaluation)
        return self._kept[mark]

    def run(self, held: Held, split: Split) -> dict[str, np.ndarray]:
        """Outputs for other samples, not kept."""
        runtime = registry.get("exporter", held.artifact.format).evaluates
        runner = registry.get("runtime", runtime).function(held.file, self.job.recipe.threads)
        return evaluate.predict(runner, split, self.observer)


def behaviours(
    job: Job, store: Store, exported: Sequence[Held], scores: Sequence[Score], predictor: Predictor
) -> list[Behaviour]:
    """Of each artifact beside the baseline's of its format."""
    targets = job.given.evaluation.targets
    if targets is None:  # a dataset without labels to evaluate on was refused when it was made
        return []
    found = []
    for held in exported:
        base = _base(exported, held, predictor.baseline)
        pairs = list(_pairs(scores, base.artifact, held.artifact))

        def build(
            _: Path, held: Held = held, base: Held = base, pairs: Any = tuple(pairs)
        ) -> dict[str, Any]:
            made = behave.behaviour(
                predictor.outputs(held),
                predictor.outputs(base),
                targets,
                pairs,
                behave.masks(job.given.evaluation.slices),
                output=_output(job),
            )
            return plain(made)  # type: ignore[no-any-return]

        mark = behave_key(job, held.artifact.sha256, base.artifact.sha256)
        made = restore(Behaviour, store.make(mark, "behave", build).details)
        rows = tuple(_corrupted(job, store, held, base, predictor))
        one = held.artifact
        found.append(replace(made, candidate=one.candidate, format=one.format, corrupted=rows))
    return found


def answers(
    job: Job, store: Store, held: Held, predictor: Predictor
) -> Iterator[tuple[Answered, Path]]:
    """The class scores of an artifact, with the file in the store that holds them; nothing where
    its outputs predict no class."""
    targets = job.given.evaluation.targets
    if targets is None:  # a dataset without labels to evaluate on was refused when it was made
        return

    def build(folder: Path) -> dict[str, Any]:
        import numpy as np

        scores = behave.class_scores(predictor.outputs(held), targets, _output(job))
        if scores is None:
            return {"classes": 0}
        true = targets.astype(np.int64)
        np.savez_compressed(folder / SCORES, scores=scores, targets=true)
        return {"classes": scores.shape[1], "sha256": file_digest(folder / SCORES)}

    one = held.artifact
    entry = store.make(answer_key(job, one.sha256, _output(job)), "answer", build)
    about = entry.details
    if about["classes"]:
        path = f"answers/{one.format}/{one.candidate}.npz"
        samples, mark = len(targets), about["sha256"]
        made = Answered(one.candidate, one.format, path, mark, samples, about["classes"])
        yield made, entry.folder / SCORES


def coverages(
    job: Job, store: Store, exported: Sequence[Held], observer: Observer
) -> list[Coverage]:
    """How much of each ONNX artifact runs in integers. What cannot be told is noted, and then not
    measured for the gates."""
    from lepton_compress.explain import coverage

    found = []
    for held in exported:
        one = held.artifact
        if held.file.suffix != ".onnx":
            continue

        def build(_: Path, held: Held = held) -> dict[str, Any]:
            split = job.given.evaluation.named([spec.name for spec in held.artifact.inputs])
            return dict(coverage.counts(held.file, next(split.batches(_batch(held.artifact)))))

        try:
            details = store.make(cover_key(job, one.sha256), "cover", build).details
        except Exception as error:  # a graph that the runtime takes and this does not know
            observer.note(f"what of {one.candidate} runs in integers is not known ({error})")
            continue
        found.append(Coverage(one.candidate, one.format, RUNTIME, **details))
    return found


def _batch(artifact: Artifact) -> int:
    """The batch that an artifact fixes, or one sample."""
    first = artifact.inputs[0].shape[0] if artifact.inputs and artifact.inputs[0].shape else 1
    return first if isinstance(first, int) else 1


def _base(exported: Sequence[Held], held: Held, baseline: str) -> Held:
    wanted = (baseline, held.artifact.format)
    return next(e for e in exported if (e.artifact.candidate, e.artifact.format) == wanted)


def _pairs(scores: Sequence[Score], base: Artifact, now: Artifact) -> Iterator[tuple[Score, Score]]:
    """The two artifacts' scores in each metric."""
    held = {(each.candidate, each.format, each.metric): each for each in scores}
    for each in scores:
        if (each.candidate, each.format) == (now.candidate, now.format):
            yield held[base.candidate, base.format, each.metric], each


def _output(job: Job) -> str | None:
    """The output that the first metric looks at."""
    named = job.recipe.metrics[0].parameters.get("output")
    return str(named) if named is not None else None


def _corrupted(
    job: Job, store: Store, held: Held, base: Held, predictor: Predictor
) -> Iterator[Corrupted]:
    asked = job.recipe.robustness
    if asked is None:
        return
    for corruption in dict.fromkeys(asked.corruptions):
        for severity in sorted(set(asked.severities)):
            now, then = (
                _scores_under(job, store, each, corruption, severity, predictor)
                for each in (held, base)
            )
            for score, reference in zip(now, then, strict=True):
                drop, interval = evaluate.drop_of(reference, score)
                yield Corrupted(
                    corruption,
                    severity,
                    score.metric,
                    score.samples,
                    score.value,
                    drop,
                    interval,
                )


def _scores_under(
    job: Job, store: Store, held: Held, corruption: str, severity: int, predictor: Predictor
) -> list[Score]:
    """An artifact's score in each metric on corrupted samples."""

    def build(_: Path) -> dict[str, Any]:
        asked, split = job.recipe.robustness, job.given.evaluation
        where = job.source.where("robustness")
        name = corrupt.pick_input(split, asked.input if asked else None, [corruption], where)
        spoilt = corrupt.corrupted(split, name, corruption, severity, job.recipe.seed)
        outputs = predictor.run(held, spoilt)
        return {"scores": [plain(_score(job, each, outputs, held)) for each in job.metrics]}

    mark = corrupt_key(job, held.artifact.sha256, corruption, severity)
    made = store.make(mark, f"evaluate {corruption} {severity}", build)
    return [restore(Score, each) for each in made.details["scores"]]


def _score(job: Job, metric: Any, outputs: Mapping[str, np.ndarray], held: Held) -> Score:
    measure: Callable[..., Any] = metric.measure
    targets: Any = job.given.evaluation.targets  # they are there, or nothing would be evaluated
    return evaluate.score(
        measure,
        outputs,
        targets,
        candidate=held.artifact.candidate,
        format=held.artifact.format,
        metric=metric.name,
    )
