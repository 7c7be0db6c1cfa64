"""What the postprocessing `classes` computes: by numpy, and as nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax

from lepton_compress.preprocess.classes import UNSURE
from lepton_compress.preprocess.nodes import Nodes


@dataclass(frozen=True)
class Plan:
    """What to do with scores (samples, classes), or one a sample.

    Attributes:
        activation: softmax, sigmoid or none.
        threshold: below which a probability is no answer.
        decided: name of the output with the class's number; empty for none.
        single: there is one score a sample, for the second of two classes.
    """

    activation: str
    threshold: float | None
    decided: str
    single: bool


def apply(plan: Plan, output: str, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Probabilities in the scores' dtype and shape, and int64 (samples,) classes if wanted."""
    made = scores
    if plan.activation == "softmax":
        made = softmax(scores.astype(np.float64), axis=-1).astype(scores.dtype)
    elif plan.activation == "sigmoid":
        made = expit(scores.astype(np.float64)).astype(scores.dtype)
    return {output: made, plan.decided: decide(plan, made)} if plan.decided else {output: made}


def decide(plan: Plan, probabilities: np.ndarray) -> np.ndarray:
    """The number of the class of each sample, int64 (samples,); -1 where none is likely enough."""
    if plan.single:
        limit = 0.5 if plan.threshold is None else plan.threshold
        return (probabilities.reshape(len(probabilities)) > np.float32(limit)).astype(np.int64)
    best: np.ndarray = probabilities.argmax(axis=-1)
    if plan.threshold is not None:
        best = np.where(probabilities.max(axis=-1) >= np.float32(plan.threshold), best, UNSURE)
    return best.astype(np.int64)


def build(plan: Plan, output: str, nodes: Nodes, name: str) -> dict[str, str]:
    """The same as nodes, from the scores' name; output names to names of values."""
    made = name
    if plan.activation == "softmax":
        made = nodes.add("Softmax", [name], axis=-1)
    elif plan.activation == "sigmoid":
        made = nodes.add("Sigmoid", [name])
    if not plan.decided:
        return {output: made}
    if plan.single:
        limit = nodes.constant(0.5 if plan.threshold is None else plan.threshold, np.float32)
        flat = nodes.add("Reshape", [made, nodes.constant([-1], np.int64)])
        return {output: made, plan.decided: nodes.add("Cast", [_more(nodes, flat, limit)], to=7)}
    best = nodes.add("ArgMax", [made], axis=-1, keepdims=0)
    if plan.threshold is not None:
        highest = nodes.add("ReduceMax", [made, nodes.constant([-1], np.int64)], keepdims=0)
        low = nodes.add("Less", [highest, nodes.constant(plan.threshold, np.float32)])
        best = nodes.add("Where", [low, nodes.constant(UNSURE, np.int64), best])
    return {output: made, plan.decided: best}


def _more(nodes: Nodes, values: str, limit: str) -> str:
    return nodes.add("Greater", [values, limit])
