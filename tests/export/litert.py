"""Graphs written as LiteRT files and run there, for tests."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import helper, numpy_helper

from lepton_compress.artifacts import Model
from lepton_compress.export.litert import Litert, export_litert
from lepton_compress.load.forms import signature

NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
Feeds = dict[str, np.ndarray]


def graph_of(
    nodes: list[onnx.NodeProto],
    feeds: Feeds,
    constants: Feeds | None = None,
    outputs: tuple[str, ...] = ("y",),
    *,
    opset: int = 20,
) -> Model:
    """A graph whose inputs have the types and shapes of the feeds, with an open batch."""
    given = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(array.dtype),
            ["batch", *array.shape[1:]] if array.shape else [],
        )
        for name, array in feeds.items()
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        given,
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    made = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=opsets, ir_version=10)
    )
    for value in made.graph.output:
        if not value.type.tensor_type.elem_type:  # of a contributed operator
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return Model("graph", made, *signature(made))


def written(model: Model, folder: Path, **parameters: Any) -> Path:
    """The file of a graph."""
    folder.mkdir(parents=True, exist_ok=True)
    return export_litert(model, Litert(**parameters), folder)


def run(path: Path, feeds: Feeds, *, delegates: bool = True) -> Feeds:
    """The outputs, one sample a call; feeds and outputs as the graph has them."""
    kind = OpResolverType.AUTO if delegates else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=kind)
    runner, about = interpreter.get_signature_runner(), metadata(path)
    details = runner.get_input_details()
    found: dict[str, list[np.ndarray]] = {}
    for row in range(len(next(iter(feeds.values())))):
        given = {}
        for name, array in feeds.items():
            held = about["inputs"][name]
            one = array[row : row + 1].transpose(held.get("permutation", range(array.ndim)))
            if "scale" in held and one.dtype.kind == "f":
                one = np.clip(np.round(one / held["scale"]) + held["zero_point"], -128, 127)
            given[name] = np.ascontiguousarray(one.astype(details[name]["dtype"]))
        for name, made in runner(**given).items():
            order = about["outputs"][name].get("permutation", range(made.ndim))
            found.setdefault(name, []).append(made.transpose(np.argsort(order)))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def loaded(path: Path) -> Any:
    """The file as objects of the schema."""
    return schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)


def operators(path: Path) -> Counter[str]:
    """How many operators of each kind there are, in all subgraphs."""
    model = loaded(path)
    codes = [NAMES[each.builtinCode] for each in model.operatorCodes]
    return Counter(codes[each.opcodeIndex] for graph in model.subgraphs for each in graph.operators)


def metadata(path: Path) -> dict[str, Any]:
    """What the exporter says of the file in it."""
    model = loaded(path)
    (entry,) = model.metadata
    assert entry.name == b"lepton_compress"
    held: dict[str, Any] = json.loads(bytes(model.buffers[entry.buffer].data))
    return held


def error(reference: np.ndarray, made: np.ndarray) -> float:
    """The largest difference, as a share of the largest value."""
    assert made.shape == reference.shape
    difference = np.abs(made.astype(np.float64) - reference).max(initial=0)
    return float(difference / max(np.abs(reference).max(initial=0), 1e-6))
