"""An artifact with something around its model, taken apart to be checked.

What comes out of the nodes before the model is compared with the Python original. Behind them the
artifact must answer as the graph does on those very values: the last bits, in which the nodes and
the original differ, can turn the rounding of an integer model, which is no fault of either.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from lepton_compress.artifacts import Model, Parity, Split
from lepton_compress.load import forms
from lepton_compress.preprocess.around import Around
from lepton_compress.preprocess.attach import inputs_of, prefix
from lepton_compress.preprocess.nodes import Nodes
from lepton_compress.verify import BATCHES, LIMIT, METRIC, difference

if TYPE_CHECKING:
    import numpy as np

    Values = Mapping[str, np.ndarray]

ORIGINAL = "preprocessing"
"""What the values before the model are compared with: the Python original."""


def verify(
    file: Path,
    reference: Model,
    around: Around,
    given: Split,
    prepared: Split,
    *,
    candidate: str,
    format: str,
) -> tuple[Parity, ...]:
    """Compare both parts at two batch sizes.

    Args:
        file: the artifact.
        reference: the graph that it was written from.
        given, prepared: the same samples as the artifact and as the model takes them.
        candidate, format: what to write into the result.
    """
    graph = onnx.load(file, load_external_data=False)
    folder = file.parent if reference.folder is not None else None
    whole = Model("graph", graph, *forms.signature(graph), folder)
    tapped = _tapped(whole, reference, around)
    names = [spec.name for spec in reference.inputs]
    given, prepared = given.named(names), prepared.named(names)
    found = []
    for batch in BATCHES:
        rows = [index % len(given) for index in range(batch)]
        feeds = {name: array[rows] for name, array in given.inputs.items()}
        wanted = {name: array[rows] for name, array in prepared.inputs.items()}
        size = min(batch, len(given))
        values = feeds
        if tapped.outputs:
            made = dict(zip(_built(reference, around), _run(tapped, feeds), strict=True))
            values = {**wanted, **made}
            value = difference({name: wanted[name] for name in made}, made)
            found.append(Parity(candidate, format, ORIGINAL, METRIC, value, LIMIT, batch, size))
        value = difference(around.finish(forms.call(reference, values)), forms.call(whole, feeds))
        found.append(Parity(candidate, format, reference.form, METRIC, value, LIMIT, batch, size))
    return tuple(found)


def _run(model: Model, feeds: Values) -> list[np.ndarray]:
    return list(forms.call(model, feeds).values())


def _built(reference: Model, around: Around) -> dict[str, str]:
    """Inputs that nodes stand before, with the name of what these give."""
    named = zip((spec.name for spec in reference.inputs), inputs_of(reference, around), strict=True)
    found = {}
    for name, given in named:
        build = around.before[given].build if given is not None else None
        if build is not None:
            found[name] = build(Nodes(prefix(name)), name)
    return found


def _tapped(whole: Model, reference: Model, around: Around) -> Model:
    """The artifact's graph, which gives what the nodes before the model make."""
    graph = onnx.ModelProto()
    graph.CopyFrom(whole.value)
    taken = list(_built(reference, around).values())
    del graph.graph.output[:]
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in taken)
    return whole.replace(value=graph, outputs=tuple(taken))
