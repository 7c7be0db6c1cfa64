"""How much of an artifact ONNX Runtime computes in integers, as it really ran it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress import graph
from lepton_compress.explain import runtime_graph, time
from lepton_compress.explain.reasons import is_integer
from lepton_compress.explain.wiring import Wiring, title
from lepton_compress.load.model import read_onnx_file
from lepton_compress.targets import frames

if TYPE_CHECKING:
    import onnx


def counts(path: Path, feeds: Mapping[str, Any]) -> dict[str, int | None]:
    """Nodes and multiply-accumulates, and those of them that run in integers.

    Args:
        path: an .onnx file.
        feeds: one call's inputs by name; of a step model, whole sequences.

    Returns:
        `nodes`, `integer_nodes`, `macs` and `integer_macs`, as in `Coverage`.

    Raises:
        InputError: the file is no ONNX model.
    """
    wiring = Wiring(read_onnx_file(path))
    about = frames.read({each.key: each.value for each in wiring.model.metadata_props})
    ran = time.profile(path, frames.first(feeds, about) if about else feeds, runs=1)
    placed = runtime_graph.place(wiring, ran.nodes)
    takes = {kernel.name: kernel.takes for kernel in ran.kernels}
    macs = _macs(wiring.model)
    total: dict[str, int | None] = {"nodes": 0, "integer_nodes": 0, "macs": 0, "integer_macs": 0}
    for node in wiring.computing():
        index = placed[title(node)]
        if index is None:
            continue
        runs = ran.nodes[index]
        prefixes = [""]
        if is_integer(runs.operator, takes.get(runs.name, "")):
            prefixes.append("integer_")
        for prefix in prefixes:
            total[f"{prefix}nodes"] = (total[f"{prefix}nodes"] or 0) + 1
            total[f"{prefix}macs"] = _sum(total[f"{prefix}macs"], macs.get(title(node), 0))
    return total


def _macs(model: onnx.ModelProto) -> dict[str, int | None]:
    counted = graph.macs_by_node(model)
    return {title(node): count for node, count in zip(model.graph.node, counted, strict=True)}


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
