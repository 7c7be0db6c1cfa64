"""What a .pte file is made of, read off the file: XNNPACK's nodes inside the delegates, and the
portable kernels around them."""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_INTEGERS = {"xnn_datatype_qint8", "xnn_datatype_qcint8"}
_TYPES = {"xnn_datatype_fp32": "float32", "xnn_datatype_fp16": "float16"}


def contents(path: Path) -> dict[str, dict[str, int]]:
    """Operator to element type of its first output to count: `XNNConv2d` of XNNPACK, and
    `aten::argmax` of the kernels that come with ExecuTorch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its packages warn about their own past as they load
        from executorch.exir import schema
        from executorch.exir._serialize._program import deserialize_pte_binary

    program = deserialize_pte_binary(path.read_bytes()).program
    plan = next(each for each in program.execution_plan if each.name == "forward")
    found: dict[str, dict[str, int]] = {}
    for chain in plan.chains:
        for instruction in chain.instructions:
            made = instruction.instr_args
            if isinstance(made, schema.KernelCall):
                rows = [(plan.operators[made.op_index].name, _kind(plan, made.args[-1]))]
            elif isinstance(made, schema.DelegateCall):
                held = plan.delegates[made.delegate_index]
                rows = list(_nodes(program.backend_delegate_data[held.processed.index].data))
            else:
                continue
            for operator, dtype in rows:
                counts = found.setdefault(operator, {})
                counts[dtype] = counts.get(dtype, 0) + 1
    return found


def _kind(plan: Any, place: int) -> str:
    """The element type of a kernel's output, which is the last that it takes."""
    value = plan.values[place].val
    items = getattr(value, "items", None)
    if items:
        value = plan.values[items[0]].val
    named = getattr(getattr(value, "scalar_type", None), "name", "")
    names = {"FLOAT": "float32", "DOUBLE": "float64", "HALF": "float16", "BYTE": "uint8"}
    names |= {"CHAR": "int8", "SHORT": "int16", "INT": "int32", "LONG": "int64", "BOOL": "bool"}
    return names.get(named, named.lower())


def _nodes(payload: bytes) -> Iterator[tuple[str, str]]:
    """Type and element type of the nodes of a graph that XNNPACK runs."""
    graph = _graph(payload)
    kinds: dict[int, str] = {}
    for each in graph["xvalues"]:
        held = each["xvalue_union"]
        held = held.get("tensor_value", held)
        kind = held["datatype"]
        kinds[held["id_out"]] = "int8" if kind in _INTEGERS else _TYPES.get(kind, kind)
    for each in graph["xnodes"]:
        yield each["xnode_union_type"], kinds.get(each["xnode_union"].get("output_id", -1), "")


def _graph(payload: bytes) -> Any:
    from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as written
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    header = written.XNNHeader.from_bytes(bytes(payload[: written.XNNHeader.EXPECTED_LENGTH]))
    start = header.flatbuffer_offset
    with tempfile.TemporaryDirectory() as folder:
        schema = Path(folder) / "schema.fbs"
        schema.write_bytes(written._get_schema_bytes())
        file = Path(folder) / "graph.bin"
        file.write_bytes(payload[start : start + header.flatbuffer_size])
        _flatc_decompile(folder, str(schema), str(file), ["--defaults-json", "--raw-binary"])
        # flatc writes infinities as no JSON has them.
        text = file.with_suffix(".json").read_text()
        return json.loads(re.sub(r": \+?(-?)inf\b", r": \1Infinity", text))
