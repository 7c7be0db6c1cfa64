"""An artifact with something around its model, taken apart to be checked.

What comes out of the nodes before the model is compared with the Python original. Behind them the
artifact must answer as the graph does on those very values: the last bits, in which the nodes and
the original differ, can turn the rounding of an integer model, which is no fault of either. A step
model goes through whole sequences here, and rounds no activations: each frame has its own rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from lepton_compress.artifacts import Json, Model, Parity, Split
from lepton_compress.export.comparable import caller, steps
from lepton_compress.export.unrounded import unrounded
from lepton_compress.load import forms
from lepton_compress.preprocess.around import Around
from lepton_compress.preprocess.attach import inputs_of, prefix
from lepton_compress.preprocess.nodes import Nodes
from lepton_compress.targets import frames
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
    about = steps(graph)
    built = _built(reference, around)
    tapped = _tapped(whole, list(built.values()), about)
    if about is not None:
        whole, reference = unrounded(whole), unrounded(reference)
    names = [spec.name for spec in reference.inputs]
    given, prepared = given.named(names), prepared.named(names)
    answer, model = caller(whole), caller(reference)
    found = []
    for batch in BATCHES:
        rows = [index % len(given) for index in range(batch)]
        feeds = {name: array[rows] for name, array in given.inputs.items()}
        wanted = {name: array[rows] for name, array in prepared.inputs.items()}
        size = min(batch, len(given))
        values = feeds
        if built:
            told = about and {**about, "outputs": _frames(tapped, about, built, feeds, wanted)}
            found_before = caller(tapped, told)(feeds)
            made = {name: found_before[inside] for name, inside in built.items()}
            values = {**wanted, **made}
            value = difference({name: wanted[name] for name in made}, made)
            found.append(Parity(candidate, format, ORIGINAL, METRIC, value, LIMIT, batch, size))
        value = difference(around.finish(model(values)), answer(feeds))
        found.append(Parity(candidate, format, reference.form, METRIC, value, LIMIT, batch, size))
    return tuple(found)


def _built(reference: Model, around: Around) -> dict[str, str]:
    """Inputs that nodes stand before, with the name of what these give."""
    named = zip((spec.name for spec in reference.inputs), inputs_of(reference, around), strict=True)
    found = {}
    for name, given in named:
        build = around.before[given].build if given is not None else None
        if build is not None:
            found[name] = build(Nodes(prefix(name)), name)
    return found


def _tapped(whole: Model, taken: list[str], about: dict[str, Json] | None) -> Model:
    """The artifact's graph, which gives what the nodes before the model make, and its states."""
    graph = onnx.ModelProto()
    graph.CopyFrom(whole.value)
    states = {each["output"] for each in about["states"]} if about else set()
    kept = [value for value in graph.graph.output if value.name in states]
    del graph.graph.output[:]
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in taken)
    graph.graph.output.extend(kept)
    return whole.replace(value=graph, outputs=(*taken, *(value.name for value in kept)))


def _frames(
    tapped: Model, about: dict[str, Json], built: Mapping[str, str], feeds: Values, wanted: Values
) -> list[dict[str, Json]]:
    """Where the frames are in what is tapped: along the axis that is as long as a sequence."""
    held = forms.call(tapped, frames.first(feeds, about))
    found = []
    for name, inside in built.items():
        sides = zip(held[inside].shape, wanted[name].shape, strict=True)
        axis = next((place for place, (one, all_) in enumerate(sides) if one != all_), None)
        found.append({"name": inside, "axis": axis})
    return found
