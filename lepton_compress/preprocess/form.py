"""What a preprocessing or a postprocessing is: one function in Python, which is the original, and
the same as nodes of a graph, which is what runs on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compress.artifacts import Json, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from lepton_compress.preprocess.nodes import Nodes

METADATA = "lepton_compress"
"""Key of the JSON in an artifact's metadata that says what stands around its model."""


@dataclass(frozen=True)
class Preprocessing:
    """What stands before one input of a model.

    A plug-in of kind `preprocessing` is a function `(params, raw, folder) -> Preprocessing`, where
    `raw` is the TensorSpec of the samples as the loader gives them.

    Attributes:
        apply: the original: raw samples (samples, ...) to what the model takes, (samples, ...).
        build: adds the nodes that compute the same from the raw input's name, and gives the name
            of what the model takes; None if it is done before the artifact, on the host.
        raw: name, dtype and shape of the artifact's own input; where `build` is None, of what
            the model takes.
        about: what `predict` needs to make the raw input out of a file, as JSON.
        files: that travel with the artifact.
        notes: what there is to tell the user of raw samples (samples, ...).
    """

    apply: Callable[[np.ndarray], np.ndarray]
    build: Callable[[Nodes, str], str] | None
    raw: TensorSpec
    about: dict[str, Json]
    files: tuple[Path, ...] = ()
    notes: Callable[[np.ndarray], tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Postprocessing:
    """What stands behind one output of a model.

    A plug-in of kind `postprocessing` is a function `(params, made, folder) -> Postprocessing`,
    where `made` is the TensorSpec of the model's output.

    Attributes:
        apply: the original: the output (samples, ...) to what the artifact gives by name, the
            output's own name first.
        build: adds the nodes that compute the same from the output's name, and gives the names of
            the same, in that order.
        about: what `predict` needs to tell the answer, as JSON.
    """

    apply: Callable[[np.ndarray], dict[str, np.ndarray]]
    build: Callable[[Nodes, str], dict[str, str]]
    about: dict[str, Json] = field(default_factory=dict)
