"""Keys of the stages behind the steps, so that what is kept can be looked up without running."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from lepton_compress import behave, corrupt, evaluate, registry, verify
from lepton_compress.branches import Node
from lepton_compress.job import Job, Metric
from lepton_compress.preprocess.around import Around
from lepton_compress.provenance import code_digest, cpu, digest
from lepton_compress.registry import Params
from lepton_compress.store import key


def export_key(node: Node, exporter: str, parameters: Params, around: Around) -> str:
    """Of the artifact that an exporter writes from a node, with what stands around it."""
    return key(
        "export",
        node=node.key,
        exporter=exporter,
        parameters=parameters.model_dump(mode="json"),
        code=code_digest(registry.get("exporter", exporter).function),
        processor=cpu()["machine"],  # the layout depends on it
        **({"around": around.mark} if around else {}),
    )


def links(node: Node) -> list[tuple[Node, Node]]:
    """The lowerings on the way to a node, each with what it was lowered from."""
    return [(each.parent, each) for each in node.path() if each.parent and each.step is None]


def verify_key(job: Job, source: Node, subject: str) -> str:
    """Of a comparison with `source`. `subject` is a lowered node's key, or a file's SHA-256."""
    return key(
        "verify",
        source=source.key,
        subject=subject,
        code=code_digest(verify.verify),
        data=job.data.fingerprint,
        **({"around": job.around.mark} if job.around else {}),
    )


def evaluate_key(job: Job, sha256: str, metric: Metric) -> str:
    """Of a metric on the artifact with that SHA-256."""
    return key(
        "evaluate",
        artifact=sha256,
        metric=metric.mark,
        code=_own_code(evaluate.score),
        data=job.data.fingerprint,
    )


@functools.cache
def _own_code(function: Callable[..., Any]) -> str:
    """Of the tool's own code, which is read once: what runs does not change while it runs."""
    return code_digest(function)


def behave_key(job: Job, sha256: str, base: str) -> str:
    """Of the behaviour of an artifact beside the baseline's, both by SHA-256."""
    slices = {name: column.tolist() for name, column in job.given.evaluation.slices.items()}
    return key(
        "behave",
        artifact=sha256,
        baseline=base,
        metrics=[metric.mark for metric in job.metrics],
        code=[_own_code(behave.behaviour), _own_code(evaluate.score)],
        data=job.data.fingerprint,
        slices=digest(slices),
    )


def answer_key(job: Job, sha256: str, output: str | None) -> str:
    """Of the class scores that an artifact gives the evaluation samples."""
    return key(
        "answer",
        artifact=sha256,
        output=output,
        code=_own_code(behave.class_scores),
        data=job.data.fingerprint,
    )


def corrupt_key(job: Job, sha256: str, corruption: str, severity: int) -> str:
    """Of an artifact's scores on corrupted evaluation samples."""
    asked = job.recipe.robustness
    return key(
        "corrupt",
        artifact=sha256,
        metrics=[metric.mark for metric in job.metrics],
        corruption=[corruption, severity, asked.input if asked else None, job.recipe.seed],
        code=[_own_code(corrupt.corrupted), _own_code(evaluate.score)],
        data=job.data.fingerprint,
    )


def cover_key(job: Job, sha256: str) -> str:
    """Of how much of an artifact runs in integers, which its processor has a say in."""
    from lepton_compress.explain import coverage

    return key(
        "cover",
        artifact=sha256,
        code=_own_code(coverage.counts),
        data=job.data.fingerprint,
        processor=[cpu()["machine"], cpu()["extensions"]],
    )
