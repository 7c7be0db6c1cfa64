"""Saved ranges in place of a calibration."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

import onnx

from lepton_compress.artifacts import Model
from lepton_compress.compress.calibration import Calibration, tensors
from lepton_compress.errors import InputError
from lepton_compress.ranges import read_ranges

_SHOWN = 3


def model_digest(graph: onnx.ModelProto) -> str:
    """SHA-256 of what a graph computes: its nodes, constants, inputs and outputs; not of who wrote
    it, nor of the shapes that it records."""
    mark = hashlib.sha256()
    body = graph.graph
    for part in (body.node, body.initializer, body.input, body.output, graph.opset_import):
        for each in part:
            mark.update(each.SerializeToString(deterministic=True))
        mark.update(b"|")
    return mark.hexdigest()


def load(
    path: Path, model: Model, operators: Collection[str], keep: Collection[str]
) -> Calibration:
    """The ranges that a document holds of the activations that `operators` take and give.

    Args:
        model: the float graph to be quantised.
        keep: nodes that stay in float.

    Raises:
        InputError: it is no such document, was made for another model, or lacks a tensor.
    """
    held = read_ranges(path)
    if held.model != model_digest(model.value):
        raise InputError(
            "its ranges were made for another model",
            where=str(path),
            mend="calibrate this one: drop `ranges`",
        )
    wanted, passed = tensors(model.value, operators, keep)
    missing = [name for name in (*wanted, *passed) if name not in held.ranges]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise InputError(
            f"has no range for {', '.join(missing[:_SHOWN])}{more}",
            where=str(path),
            mend="add it, or calibrate again with the same nodes in `keep`",
        )
    return Calibration(held.calibrator, held.samples, dict(held.ranges), dict(held.seen), ())
