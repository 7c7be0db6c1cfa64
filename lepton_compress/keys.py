"""Keys of the stages behind the steps, so that what is kept can be looked up without running."""

from __future__ import annotations

from lepton_compress import evaluate, registry, verify
from lepton_compress.branches import Node
from lepton_compress.job import Job, Metric
from lepton_compress.provenance import code_digest
from lepton_compress.recipe import ExporterUse
from lepton_compress.store import key


def export_key(node: Node, use: ExporterUse) -> str:
    """Of the artifact that an exporter writes from a node."""
    return key(
        "export",
        node=node.key,
        exporter=use.name,
        parameters=use.bound().model_dump(mode="json"),
        code=code_digest(registry.get("exporter", use.name).function),
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
    )


def evaluate_key(job: Job, sha256: str, metric: Metric) -> str:
    """Of a metric on the artifact with that SHA-256."""
    return key(
        "evaluate",
        artifact=sha256,
        metric=metric.mark,
        code=code_digest(evaluate.score),
        data=job.data.fingerprint,
    )
