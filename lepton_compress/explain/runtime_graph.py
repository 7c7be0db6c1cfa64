"""The graph that ONNX Runtime really runs, as it writes it, and which node of the file became
which node of it."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress.explain.wiring import BORDERS, QUANTIZE, Wiring, output_of, title

if TYPE_CHECKING:
    import onnx

LEVELS = {"basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED", "all": "ORT_ENABLE_ALL"}
_ADDED = re.compile(r"^fused |(?:_token_\d+|_nchwc)+$")
"""What the runtime adds to a name when it changes a node."""


@dataclass(frozen=True)
class RuntimeNode:
    """A node of an optimised graph."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def session_options(level: str = "all") -> Any:
    """Options of a quiet session on one thread, at an optimisation level."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[level])
    return options


def optimised(path: Path, level: str) -> tuple[RuntimeNode, ...]:
    """The nodes that the runtime makes of a file at an optimisation level of `LEVELS`."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = session_options(level)
        written = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(written)
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return read(written)


def read(path: Path) -> tuple[RuntimeNode, ...]:
    """The nodes of a graph that the runtime has written."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    return tuple(
        RuntimeNode(node.name, node.op_type, tuple(node.input), tuple(node.output))
        for node in graph.node
    )


def counted(nodes: Iterable[RuntimeNode]) -> dict[str, int]:
    """Operator to count."""
    return dict(sorted(Counter(node.operator for node in nodes).items()))


def place(source: Wiring, runtime: Sequence[RuntimeNode]) -> dict[str, int | None]:
    """For each computing node of the file, by its title: which runtime node does its work.

    A fused node does the work of several. None: it was folded away when the model was loaded.
    """
    names = {_plain(node.name): index for index, node in enumerate(runtime) if node.name}
    outputs = {name: index for index, node in enumerate(runtime) for name in node.outputs if name}
    outputs |= {_plain(name): index for name, index in outputs.items()}
    placed: dict[str, int | None] = {}
    # Backwards, because what was fused into a later node has the place of that one.
    for node in reversed(list(source.computing())):
        given = [name for tensor in filter(None, node.output) for name in _written(source, tensor)]
        # Blocked convolutions are named after what they give; its tensor is that of a reordering.
        known = [names.get(title(node)), *map(names.get, given), *map(outputs.get, given)]
        index = next((each for each in known if each is not None), None)
        if index is not None and runtime[index].operator in BORDERS:
            index = None  # a quantise node took over the name of what it absorbed
        placed[title(node)] = _later(source, node, placed) if index is None else index
    return placed


def _plain(name: str) -> str:
    return _ADDED.sub("", name)


def _written(source: Wiring, tensor: str) -> list[str]:
    """Names under which a node's output may go on: its own, or that of its rounded form."""
    rounded = [n.output[0] for n in source.users.get(tensor, []) if n.op_type == QUANTIZE]
    return [tensor, *rounded]


def _later(source: Wiring, node: onnx.NodeProto, placed: dict[str, int | None]) -> int | None:
    """Where the only node that takes this one's output is placed."""
    users = source.users.get(output_of(node), [])
    if len(users) != 1 or users[0].op_type in BORDERS or output_of(node) in source.outputs:
        return None
    return placed.get(title(users[0]))
