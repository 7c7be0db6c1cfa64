"""The ways to cut a graph in two, and the two graphs.

A cut is a set of nodes that takes nothing from the others: it runs first, on the edge. What
crosses are the tensors that it gives and others take. A quantised tensor crosses as integers: its
QuantizeLinear belongs to what rounds it, and its DequantizeLinear to whoever takes it, so that
each half keeps whole pairs and the runtime still computes in integers on both sides.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx

from lepton_compress.errors import InputError
from lepton_compress.load import external

MOST = 3
"""Tensors that may cross one cut."""
_PAIRS = 2000
"""Pairs of branches that are tried."""
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_BELONGING = {_QUANTIZE, "BatchNormalization", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish"}
_BELONGING |= {"LeakyRelu", "PRelu", "Relu", "Selu", "Sigmoid", "Softmax", "Tanh", "Identity"}
"""Operators that runtimes compute together with what they follow."""
PREPROCESS = "/preprocess/"
"""In the names of nodes that were attached before an input, behind the input's name."""


@dataclass(frozen=True)
class Partition:
    """One way to cut.

    Attributes:
        crossing: tensors that the edge's nodes give and the cloud's take, in the graph's order.
        passed: inputs of the graph that nodes of the cloud take.
        early: outputs of the graph that the edge's nodes give.
        nodes: places of the edge's nodes in the graph.
    """

    crossing: tuple[str, ...]
    passed: tuple[str, ...]
    early: tuple[str, ...]
    nodes: frozenset[int]


@dataclass
class _Block:
    """Nodes that are not parted: one, and those that belong to it."""

    nodes: list[int]
    takes: set[str] = field(default_factory=set)
    before: int = 0
    """Bits of the blocks that it needs, itself included."""


class Cutting:
    """The cuts of a graph.

    Args:
        model: an ONNX graph; tensors that stay in files do not matter here.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.nodes = model, list(model.graph.node)
        held = {tensor.name for tensor in model.graph.initializer}
        held |= {each.values.name for each in model.graph.sparse_initializer}
        self.inputs = [value.name for value in model.graph.input if value.name not in held]
        self.outputs = [value.name for value in model.graph.output]
        self.producer = {
            name: index for index, node in enumerate(self.nodes) for name in node.output if name
        }
        self._attached = tuple(f"{name}{PREPROCESS}" for name in self.inputs)
        self._varying = self._find_varying()
        self._blocks = self._find_blocks()
        self._owner = {
            name: number
            for number, block in enumerate(self._blocks)
            for index in block.nodes
            for name in self.nodes[index].output
            if name
        }
        self._order()
        self._tensors = self._find_tensors()

    def partitions(self) -> list[Partition]:
        """Every way to cut with at most `MOST` tensors crossing that is found: after each block,
        and after pairs of blocks between two places where one tensor crosses. From the input to the
        output."""
        first = 0
        for block in self._blocks:
            names = [self.nodes[index].name for index in block.nodes]
            if any(name.startswith(self._attached) for name in names):
                first |= block.before
        everything = (1 << len(self._blocks)) - 1
        seen: dict[int, Partition] = {}
        for bits in self._sets(first):
            if bits in seen or bits in (0, everything):
                continue
            made = self._partition(bits)
            if len(made.early) == len(self.outputs):
                continue  # what is left gives nothing
            if made.crossing and len(made.crossing) + len(made.passed) <= MOST:
                seen[bits] = made
        return [seen[bits] for bits in sorted(seen, key=lambda each: (each.bit_count(), each))]

    def layer(self, tensor: str) -> str:
        """The name of the node that computes a tensor, whatever rounds it afterwards."""
        while tensor in self.producer:
            node = self.nodes[self.producer[tensor]]
            if node.op_type not in (_QUANTIZE, _DEQUANTIZE):
                return str(node.name or tensor)
            tensor = node.input[0]
        return tensor

    def behind(self, tensor: str, marked: frozenset[int]) -> bool:
        """Whether every path to a tensor from an input goes through one of some nodes."""
        stack, seen = [tensor], set[str]()
        while stack:
            name = stack.pop()
            if name in self.inputs:
                return False
            index = self.producer.get(name)
            if name in seen or index is None or index in marked:
                continue
            seen.add(name)
            stack += [each for each in taken(self.nodes[index]) if each in self._varying]
        return True

    def halves(self, cut: Partition) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        """The edge's graph, from the inputs to what crosses, and the cloud's, from there to the
        outputs. Names stay; a constant that both need stands in both.

        Raises:
            InputError: the type of what crosses is not known.
        """
        late = [name for name in self.outputs if name not in cut.early]
        early = [*cut.crossing, *(name for name in cut.early if name not in cut.crossing)]
        return (
            self._extract(self.inputs, early),
            self._extract([*cut.crossing, *cut.passed], late),
        )

    def _find_varying(self) -> set[str]:
        """Values that depend on an input."""
        varying = set(self.inputs)
        for node in self.nodes:
            if varying & set(taken(node)):
                varying |= {name for name in node.output if name}
        return varying

    def _resolve(self, name: str) -> str:
        """The integers behind a dequantised value, else the value itself."""
        while name in self.producer and name in self._varying:
            node = self.nodes[self.producer[name]]
            if node.op_type != _DEQUANTIZE:
                break
            name = node.input[0]
        return name

    def _takes(self, node: onnx.NodeProto) -> list[str]:
        found = dict.fromkeys(self._resolve(each) for each in taken(node) if each in self._varying)
        return list(found)

    def _find_blocks(self) -> list[_Block]:
        """Varying nodes but for dequantising ones, with what belongs to them, in order."""
        users: dict[str, int] = {}
        plain = [
            index
            for index, node in enumerate(self.nodes)
            if node.op_type != _DEQUANTIZE and any(name in self._varying for name in node.output)
        ]
        for index in plain:
            for name in self._takes(self.nodes[index]):
                users[name] = users.get(name, 0) + 1
        for name in self.outputs:
            users[self._resolve(name)] = users.get(self._resolve(name), 0) + 1
        at: dict[int, _Block] = {}
        blocks = []
        for index in plain:
            node, takes = self.nodes[index], self._takes(self.nodes[index])
            source = self.producer.get(takes[0]) if len(takes) == 1 else None
            if node.op_type in _BELONGING and source in at and users[takes[0]] == 1:
                at[index] = at[source]
                at[index].nodes.append(index)
                continue
            at[index] = _Block([index], set(takes))
            blocks.append(at[index])
        return blocks

    def _order(self) -> None:
        for number, block in enumerate(self._blocks):
            block.before = 1 << number
            for name in block.takes:
                if name in self._owner:
                    block.before |= self._blocks[self._owner[name]].before

    def _find_tensors(self) -> dict[str, tuple[int, int]]:
        """Name to the bit of the block that gives it (0 of an input) and those that take it."""
        found: dict[str, tuple[int, int]] = {}
        for number, block in enumerate(self._blocks):
            for name in block.takes:
                owner = self._owner.get(name)
                own, users = found.get(name, (0 if owner is None else 1 << owner, 0))
                found[name] = own, users | 1 << number
        places = {name: place for place, name in enumerate([*self.inputs, *self.producer])}
        return {name: found[name] for name in sorted(found, key=places.__getitem__)}

    def _partition(self, bits: int) -> Partition:
        crossing, passed = [], []
        for name, (own, users) in self._tensors.items():
            if users & ~bits and not own:
                passed.append(name)
            elif users & ~bits and own & bits:
                crossing.append(name)
        early = []
        for name in self.outputs:
            owner = self._owner.get(self._resolve(name))
            if owner is not None and bits >> owner & 1:
                early.append(name)
        nodes = (self._blocks[number].nodes for number in _bits(bits))
        return Partition(
            tuple(crossing), tuple(passed), tuple(early), frozenset(itertools.chain(*nodes))
        )

    def _sets(self, first: int) -> Iterator[int]:
        """Sets of blocks that take nothing from the others, `first` in all of them."""
        yield first
        single = []
        for block in self._blocks:
            bits = first | block.before
            yield bits
            made = self._partition(bits)
            if len(made.crossing) == 1 and not made.passed:
                single.append(bits)
        edges = [first, *sorted(set(single), key=int.bit_count), (1 << len(self._blocks)) - 1]
        for before, after in itertools.pairwise(edges):
            between = [self._blocks[number] for number in _bits(after & ~before)]
            pairs = itertools.combinations(between, 2)
            for one, other in itertools.islice(pairs, _PAIRS // len(edges) + 1):
                yield before | one.before | other.before

    def _extract(self, given: Iterable[str], wanted: list[str]) -> onnx.ModelProto:
        """The nodes between some values and others, as a graph of its own."""
        given, needed = list(given), set[int]()
        stack = [name for name in wanted if name not in given]
        names = {*given, *wanted}
        while stack:
            name = stack.pop()
            names.add(name)
            index = self.producer.get(name)
            if name in given or index is None or index in needed:
                continue
            needed.add(index)
            stack += taken(self.nodes[index])
        graph, types = self.model.graph, self._types
        made = onnx.ModelProto()
        made.ir_version, made.producer_name = self.model.ir_version, self.model.producer_name
        made.opset_import.extend(self.model.opset_import)
        made.functions.extend(self.model.functions)
        made.graph.name = graph.name
        made.graph.node.extend(self.nodes[index] for index in sorted(needed))
        made.graph.initializer.extend(each for each in graph.initializer if each.name in names)
        made.graph.sparse_initializer.extend(
            each for each in graph.sparse_initializer if each.values.name in names
        )
        ends = [(name, made.graph.input) for name in given]
        for name, values in [*ends, *((name, made.graph.output) for name in wanted)]:
            if name not in types:
                raise InputError(
                    f"the type of {name!r} is not known, so that nothing can be cut there",
                    where="split",
                    mend="cut elsewhere",
                )
            values.append(types[name])
        return made

    @cached_property
    def _types(self) -> dict[str, onnx.ValueInfoProto]:
        """Of every value that is known; the graph's own inputs and outputs as they are declared."""
        graph = onnx.ModelProto()
        graph.CopyFrom(self.model)
        inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True).graph
        known = [*inferred.value_info, *self.model.graph.input, *self.model.graph.output]
        return {each.name: each for each in known if each.type.tensor_type.elem_type}


def taken(node: onnx.NodeProto) -> list[str]:
    """What a node takes, what its branches and loops take from outside included."""
    found = [name for name in node.input if name]
    for attribute in node.attribute:
        for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            found += outside(inner)
    return found


def outside(graph: onnx.GraphProto) -> list[str]:
    """Names that a subgraph uses and does not make."""
    made = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    found = []
    for node in graph.node:
        found += [name for name in taken(node) if name not in made]
        made |= set(node.output)
    found += [value.name for value in graph.output if value.name not in made]
    return found


def write(model: onnx.ModelProto, source: Path | None, target: Path) -> int:
    """Write a half, the tensors that it has in files of `source` into one beside it; its bytes.

    Only what it uses is written, tensor by tensor, so that a large graph is never whole in memory.
    """
    beside = target.with_name(f"{target.name}.data")
    beside.unlink(missing_ok=True)
    outer = [each for each in external.tensors(model.graph) if _in_file(each)]
    if outer and source is not None:
        with external.TensorFile(beside) as file:
            for tensor in outer:
                name = tensor.name
                tensor.CopyFrom(file.write(name, external.array_of(tensor, source)))
    target.write_bytes(model.SerializeToString(deterministic=True))
    return sum(each.stat().st_size for each in (target, *external.beside(target)))


def _in_file(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _bits(bits: int) -> Iterator[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


def macs(counts: Mapping[int, int | None], nodes: frozenset[int]) -> int | None:
    """Multiply-accumulates of some nodes; None where one of theirs is not known."""
    found = [count for index, count in counts.items() if index in nodes]
    return None if None in found else sum(each for each in found if each is not None)
