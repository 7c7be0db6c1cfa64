"""Calling graphs to compare them: a step graph takes whole sequences, as what it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from lepton_compress.artifacts import Json, Model
from lepton_compress.export.unrounded import unrounded
from lepton_compress.load import forms
from lepton_compress.targets import frames

if TYPE_CHECKING:
    import numpy as np

    Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def steps(model: onnx.ModelProto) -> dict[str, Json] | None:
    """What a graph says of its steps, see `targets.frames`; None unless it is a step graph."""
    found: dict[str, Json] | None = frames.read({e.key: e.value for e in model.metadata_props})
    return found


def caller(model: Model, about: dict[str, Json] | None = None) -> Run:
    """A graph, loaded once: inputs by name to outputs by name.

    Args:
        about: of its steps, in place of what it says itself.
    """
    about = about or steps(model.value)
    run = forms.opened(model)
    if about is None:
        return lambda feeds: dict(zip(model.outputs, run(feeds), strict=True))
    names = [each["name"] for each in about["outputs"]]
    stepped = frames.Stepped(run, model.outputs, about)
    return lambda feeds: dict(zip(names, stepped.run(feeds), strict=True))


def comparable(file: Path, reference: Model) -> tuple[Run, Run] | None:
    """A step artifact and the graph that it was written from, both without the rounding of
    activations, which is another for each frame; None of any other artifact."""
    if file.suffix != ".onnx":
        return None
    graph = onnx.load(file, load_external_data=False)
    if steps(graph) is None:
        return None
    made = Model("graph", graph, *forms.signature(graph))
    return caller(unrounded(made)), caller(unrounded(reference))
