"""An artifact opened to be cut, and what crosses each cut, by running it on real samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress.artifacts import Model, Split
from lepton_compress.errors import InputError
from lepton_compress.place.cuts import Crossing, Cut

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from lepton_compress.place.cutting import Cutting, Partition

    Feeds = Mapping[str, np.ndarray]
    Found = dict[str, tuple[Cut, Partition]]


@dataclass(frozen=True)
class Opened:
    """An artifact that can be cut.

    Attributes:
        folder: of a large graph, where the files of its tensors lie; else None.
        samples: with inputs named as the graph has them.
        batch: of a call: what the graph is fixed to, or 1.
        stacks: whether it takes any batch.
    """

    path: Path
    model: onnx.ModelProto
    folder: Path | None
    cutting: Cutting
    samples: Split
    batch: int
    stacks: bool


def open_artifact(artifact: Path, samples: Split) -> Opened:
    """An ONNX graph with samples for it.

    Raises:
        InputError: it is none, is a step model, or takes other inputs.
    """
    from lepton_compress.load.external import is_large
    from lepton_compress.load.forms import signature
    from lepton_compress.load.model import read_onnx_file
    from lepton_compress.place.cutting import Cutting
    from lepton_compress.targets.frames import METADATA

    if artifact.suffix == ".tflite":
        mend = "cut the .onnx artifact of the same candidate"
        raise InputError("only ONNX graphs are cut", where=str(artifact), mend=mend)
    if not artifact.is_file():
        raise InputError("no such file", where=str(artifact), mend="give an .onnx file")
    model = read_onnx_file(artifact)
    if any(each.key == METADATA for each in model.metadata_props):
        raise InputError(
            "is a step model, whose states would cross with every frame",
            where=str(artifact),
            mend="cut what is exported with `recurrent: sequence`",
        )
    specs, _ = signature(model)
    try:
        named = samples.named([spec.name for spec in specs])
    except ValueError as error:
        raise InputError(str(error), where="data") from error
    fixed = {spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], int)}
    folder = artifact.parent if is_large(model) else None
    batch = max(fixed, default=1)
    return Opened(artifact, model, folder, Cutting(model), named, batch, not fixed)


def feeds(opened: Opened, batch: int) -> Feeds:
    """Inputs of one call, samples repeated where there are too few."""
    import numpy as np

    rows = np.arange(batch) % len(opened.samples)
    return {
        name: np.ascontiguousarray(array[rows]) for name, array in opened.samples.inputs.items()
    }


def ends(opened: Opened) -> tuple[int, int]:
    """Bytes of a sample of the inputs and outputs."""
    from lepton_compress.load.forms import opened as load
    from lepton_compress.load.forms import signature

    specs, names = signature(opened.model)
    given = feeds(opened, opened.batch)
    outputs = load(Model("graph", opened.model, specs, names, opened.folder))(given)
    sizes = [sum(each.nbytes for each in arrays) for arrays in (given.values(), outputs)]
    return sizes[0] // opened.batch, sizes[1] // opened.batch


def weighed(opened: Opened) -> Found:
    """Every cut by its name, with the bytes that cross on a real sample."""
    from lepton_compress.graph import macs_by_node
    from lepton_compress.place.cutting import macs

    cutting = opened.cutting
    partitions = cutting.partitions()
    tensors = list(dict.fromkeys(name for each in partitions for name in each.crossing))
    shapes = _shapes(opened, tensors)
    counts = dict(enumerate(macs_by_node(opened.model)))
    weighted = frozenset(index for index, count in counts.items() if count != 0)
    known = {name: cutting.behind(name, weighted) for name in tensors}
    found: Found = {}
    for each in partitions:
        names = [*each.crossing, *each.passed]
        if any(name not in shapes for name in each.crossing):
            continue
        rest = frozenset(counts) - each.nodes
        if not rest & weighted:
            continue  # nothing is left to compute
        crossing = tuple(_crossing(opened, name, shapes) for name in names)
        title = " + ".join(dict.fromkeys(one.layer for one in crossing))
        if title in found:
            title = " + ".join(one.tensor for one in crossing)
        found[title] = (
            Cut(
                name=title,
                crossing=crossing,
                bytes=sum(one.bytes for one in crossing),
                features=not each.passed and all(known[name] for name in each.crossing),
                stacks=opened.stacks and all(shapes[name][1] for name in each.crossing),
                edge_macs=macs(counts, each.nodes),
                cloud_macs=macs(counts, rest),
            ),
            each,
        )
    return found


def _shapes(opened: Opened, tensors: list[str]) -> dict[str, tuple[Any, bool]]:
    """Of each tensor an array of one call, and whether its first axis is the batch."""
    import onnx

    from lepton_compress.load.forms import opened as load
    from lepton_compress.load.forms import signature

    tapped = onnx.ModelProto()
    tapped.CopyFrom(opened.model)
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    specs, _ = signature(tapped)
    run = load(Model("graph", tapped, specs, tuple(tensors), opened.folder))
    first = run(feeds(opened, opened.batch))
    if not opened.stacks:
        return {name: (array, False) for name, array in zip(tensors, first, strict=True)}
    second = run(feeds(opened, opened.batch + 1))
    return {
        name: (one, bool(one.ndim) and one.shape[0] == opened.batch and two.shape[0] > len(one))
        for name, one, two in zip(tensors, first, second, strict=True)
    }


def _crossing(opened: Opened, name: str, shapes: Mapping[str, tuple[Any, bool]]) -> Crossing:
    array = shapes[name][0] if name in shapes else feeds(opened, opened.batch)[name]
    size = array.nbytes // opened.batch
    return Crossing(name, opened.cutting.layer(name), array.dtype.name, array.shape, size)


def estimate(opened: Opened, found: Found) -> float:
    """Fill in what each side takes, by the profile of the whole; seconds of that."""
    from lepton_compress.explain import runtime_graph, time
    from lepton_compress.explain.wiring import Wiring, title

    given = feeds(opened, opened.batch)
    [whole] = time.latencies([opened.path], [given])
    profiled = time.profile(opened.path, given)
    taken: dict[str, float] = {}
    for kernel in profiled.kernels:
        taken[kernel.name] = taken.get(kernel.name, 0.0) + kernel.seconds
    placed = runtime_graph.place(Wiring(opened.model), profiled.nodes)
    members: dict[int, list[int]] = {}
    for index, node in enumerate(opened.model.graph.node):
        runtime = placed.get(title(node))
        if runtime is not None:
            members.setdefault(runtime, []).append(index)
    known = {runtime: taken.get(profiled.nodes[runtime].name, 0.0) for runtime in members}
    total = sum(known.values())
    for name, (cut, partition) in found.items():
        share = 0.0
        for runtime, nodes in members.items():
            inside = len(partition.nodes.intersection(nodes))
            share += known[runtime] * inside / len(nodes)
        part = share / total if total else 0.0
        found[name] = (
            replace(cut, edge_seconds=whole * part, cloud_seconds=whole * (1 - part)),
            partition,
        )
    return whole
