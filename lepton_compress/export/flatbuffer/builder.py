"""The file itself: tensors, operators and buffers of LiteRT's schema, packed into a flatbuffer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from lepton_compress import __version__
from lepton_compress.export.flatbuffer.versions import version

Shape = tuple[int, ...]

IDENTIFIER = b"TFL3"
DEFAULT = "serving_default"
"""Name of a file's first signature."""
_ALIGNMENT = 16
"""Bytes; kernels read constants in place, and some processors only whole words."""
_CODES = {name: code for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
_TYPES = {name.lower(): code for name, code in vars(schema.TensorType).items() if name.isupper()}


@dataclass(frozen=True)
class Scale:
    """How integers of a tensor stand for numbers: (integer - zero) * scale.

    Attributes:
        values: one scale, or one for each place along `axis`.
        zero: what stands for 0.
        axis: of the tensor as it lies in memory.
    """

    values: tuple[float, ...]
    zero: int = 0
    axis: int = 0

    @property
    def per_channel(self) -> bool:
        """Whether there is more than one scale."""
        return len(self.values) > 1


@dataclass
class Tensor:
    """A tensor of a subgraph; `data` if it is constant."""

    shape: Shape
    dtype: str
    scale: Scale | None = None
    data: np.ndarray | None = None
    variable: bool = False
    name: str = ""


@dataclass
class Operator:
    """An operator of a subgraph; -1 is an input that is not given."""

    name: str
    inputs: list[int]
    outputs: list[int]
    options: Any = None


@dataclass
class Subgraph:
    """Tensors, and operators in the order in which they run."""

    name: str = "main"
    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    _constants: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def tensor(self, shape: Shape, dtype: str, scale: Scale | None = None, **given: Any) -> int:
        """A new tensor; its place."""
        self.tensors.append(Tensor(shape, dtype, scale, **given))
        return len(self.tensors) - 1

    def constant(self, data: np.ndarray, scale: Scale | None = None) -> int:
        """A constant tensor; equal ones are one."""
        held = np.ascontiguousarray(data)
        key = (held.tobytes(), held.shape, held.dtype.name, scale)
        if key not in self._constants:
            shape, dtype = tuple(data.shape), held.dtype.name
            self._constants[key] = self.tensor(shape, dtype, scale, data=held)
        return self._constants[key]

    def add(
        self, name: str, inputs: Sequence[int], outputs: Sequence[int], options: Any = None
    ) -> None:
        """An operator behind those that are there."""
        self.operators.append(Operator(name, list(inputs), list(outputs), options))

    def prune(self) -> None:
        """Leave out operators that nothing needs, and tensors that are not used any more."""
        needed, kept = {*self.outputs}, []
        state = {place for place, each in enumerate(self.tensors) if each.variable}
        for operator in reversed(self.operators):
            if needed & set(operator.outputs) or state & set(operator.outputs):
                kept.append(operator)
                needed |= set(operator.inputs)
        self.operators = kept[::-1]
        used = {*self.inputs, *self.outputs}
        used |= {each for op in self.operators for each in (*op.inputs, *op.outputs)}
        places = [place for place in range(len(self.tensors)) if place in used]
        new = {place: index for index, place in enumerate(places)} | {-1: -1}
        self.tensors = [self.tensors[place] for place in places]
        for operator in self.operators:
            operator.inputs = [new[each] for each in operator.inputs]
            operator.outputs = [new[each] for each in operator.outputs]
        self.inputs = [new[each] for each in self.inputs]
        self.outputs = [new[each] for each in self.outputs]
        self._constants = {}

    def move(self, places: int) -> None:
        """Adjust what refers to other subgraphs of the same model for so many before them."""
        for operator in self.operators:
            for key in ("condSubgraphIndex", "bodySubgraphIndex"):
                if hasattr(operator.options, key):
                    setattr(operator.options, key, getattr(operator.options, key) + places)


@dataclass(frozen=True)
class Signature:
    """A way to call the file: names of inputs and outputs to tensors of a subgraph."""

    name: str
    subgraph: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


def options(name: str, **values: Any) -> Any:
    """Options of the schema's class `name`Options, zeros but for what is given."""
    made = getattr(schema, f"{name}OptionsT")()
    for key, value in values.items():
        if not hasattr(made, key):
            raise AttributeError(f"{name}Options has no {key}")
        setattr(made, key, value)
    return made


def pack(
    subgraphs: Sequence[Subgraph],
    signatures: Sequence[Signature],
    metadata: Mapping[str, Any],
) -> bytes:
    """The file's bytes, the same each time for equal subgraphs.

    Args:
        signatures: the first is that of the first subgraph.
        metadata: kept as JSON, in its order, under the name `lepton_compress`.
    """
    model = schema.ModelT()
    model.version, model.description = 3, f"lepton-compress {__version__}".encode()
    model.operatorCodes, model.buffers = [], [_Buffer(b"")]
    buffers: dict[bytes, int] = {}
    codes: dict[tuple[str, int], int] = {}

    def buffer(data: bytes) -> int:
        if data not in buffers:
            buffers[data] = len(model.buffers)
            model.buffers.append(_Buffer(data))
        return buffers[data]

    def code(name: str, number: int) -> int:
        if (name, number) not in codes:
            codes[name, number] = len(codes)
            made = schema.OperatorCodeT()
            made.builtinCode, made.version = _CODES[name], number
            made.deprecatedBuiltinCode = min(_CODES[name], 127)
            model.operatorCodes.append(made)
        return codes[name, number]

    model.subgraphs = []
    for subgraph in subgraphs:
        made = schema.SubGraphT()
        made.name = subgraph.name.encode()
        made.inputs, made.outputs = subgraph.inputs, subgraph.outputs
        made.tensors = [
            _tensor(each, place, buffer(each.data.tobytes()) if each.data is not None else 0)
            for place, each in enumerate(subgraph.tensors)
        ]
        made.operators = [_operator(each, subgraph.tensors, code) for each in subgraph.operators]
        model.subgraphs.append(made)
    model.signatureDefs = [_signature(each) for each in signatures]
    entry = schema.MetadataT()
    entry.name = b"lepton_compress"
    entry.buffer = buffer(json.dumps(metadata).encode())
    model.metadata = [entry]
    packed = _Sharing(sum(map(len, buffers)) + 4096)
    packed.Finish(model.Pack(packed), IDENTIFIER)
    return bytes(packed.Output())


class _Buffer(schema.BufferT):  # type: ignore[misc]
    """A buffer whose bytes are aligned, which the generated class does not see to."""

    def __init__(self, held: bytes) -> None:
        super().__init__()
        self.held = held

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the generated class calls it so
        if not self.held:
            return int(super().Pack(builder))
        size = len(self.held)
        builder.StartVector(1, size, _ALIGNMENT)
        builder.head -= size
        builder.Bytes[builder.head : builder.head + size] = self.held
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))


class _Sharing(flatbuffers.Builder):  # type: ignore[misc]
    """A builder that keeps where what may be shared was written."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.written: dict[Any, int] = {}

    def once(self, key: Any, write: Callable[[], int]) -> int:
        """Where something stands that is written the first time that it is asked for."""
        if key not in self.written:
            self.written[key] = write()
        return self.written[key]


class _Quantization(schema.QuantizationParametersT):  # type: ignore[misc]
    """Scales that tensors share, as they share the zero points of as many channels: in small int8
    networks these take as much room as a third of the weights."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.given = scale

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the generated class calls it so
        return int(builder.once(self.given, lambda: self._written(builder)))

    def _written(self, builder: Any) -> int:
        scales = np.array(self.given.values, np.float32)
        zeros = np.full(len(scales), self.given.zero, np.int64)
        held = [
            builder.once(
                ("vector", each.dtype.name, each.tobytes()),
                lambda e=each: builder.CreateNumpyVector(e),
            )
            for each in (scales, zeros)
        ]
        schema.QuantizationParametersStart(builder)
        schema.QuantizationParametersAddScale(builder, held[0])
        schema.QuantizationParametersAddZeroPoint(builder, held[1])
        schema.QuantizationParametersAddQuantizedDimension(builder, self.given.axis)
        return int(schema.QuantizationParametersEnd(builder))


def _tensor(given: Tensor, place: int, buffer: int) -> Any:
    made = schema.TensorT()
    made.name = (given.name or str(place)).encode()
    made.shape, made.hasRank = np.array(given.shape, np.int32), True
    made.type, made.buffer, made.isVariable = _TYPES[given.dtype], buffer, given.variable
    if given.scale is not None:
        made.quantization = _Quantization(given.scale)
    return made


def _operator(given: Operator, tensors: Sequence[Tensor], code: Any) -> Any:
    held = [tensors[each] if each >= 0 else None for each in given.inputs]
    weighted = held[1] if len(held) > 1 else held[0] if held else None
    number = version(
        given.name,
        [each.dtype if each else "" for each in held],
        [tensors[each].dtype for each in given.outputs],
        rank=max((len(each.shape) for each in held if each), default=0),
        per_channel=bool(weighted and weighted.scale and weighted.scale.per_channel),
        options=given.options,
    )
    made = schema.OperatorT()
    made.opcodeIndex = code(given.name, number)
    made.inputs, made.outputs = given.inputs, given.outputs
    if given.options is not None:
        kind = type(given.options).__name__.removesuffix("T")
        made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        made.builtinOptions = given.options
    return made


def _signature(given: Signature) -> Any:
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = given.name.encode(), given.subgraph
    for side, names in (("inputs", given.inputs), ("outputs", given.outputs)):
        entries = []
        for name, tensor in names.items():
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name.encode(), tensor
            entries.append(entry)
        setattr(made, side, entries)
    return made
