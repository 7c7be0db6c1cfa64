"""A graph on its way from whole sequences to one frame: which values have frames along which axis,
and the nodes and states that take the place of those that mix them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

MANY, LONG = 10007, 10009
"""Stand for a batch and a sequence of any size while shapes are inferred: primes, so that an axis
is known again by its size, and larger than any."""


@dataclass(frozen=True)
class Time:
    """A value with frames along an axis.

    Attributes:
        axis: of time.
        lead: zeros in front of the first frame.
        outer, inner: of an axis that a reshape has made of several, of how many places there are
            before and behind time.
    """

    axis: int
    lead: int = 0
    outer: int = 1
    inner: int = 1

    def at(self, axis: int) -> Time:
        """The same frames along another axis."""
        return replace(self, axis=axis)


@dataclass(frozen=True)
class Sizes:
    """A shape of which the number at `place` counts frames."""

    place: int


@dataclass(frozen=True)
class Last:
    """A value of the last frame, or of all up to it."""


Kind = Time | Last | Sizes


@dataclass(frozen=True)
class State:
    """What is kept from call to call; `source` names an input whose last elements it holds."""

    input: str
    output: str
    dtype: str
    shape: tuple[int | str, ...]
    source: str | None = None


class MixingError(Exception):
    """A node looks at frames in a way that a step cannot. `reason` is a clause about the node."""

    def __init__(self, node: onnx.NodeProto, reason: str, mend: str = "") -> None:
        super().__init__(reason)
        self.node, self.reason, self.mend = node, reason, mend


class Rewriting:
    """The state of one walk over a graph.

    Attributes:
        held: value to what it is; those that are not in it do not depend on frames.
        shapes: value to its shape in the whole-sequence graph, `MANY` for the batch.
        dtypes: value to numpy's name of its element type.
        constants: initialisers, and what Constant nodes give.
        nodes: of the step graph so far.
        after: nodes that give states, to stand behind all others.
        added: initialisers of the step graph that the other one lacks.
        states: in the order in which they were found.
        frames: of a sequence.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        shapes: Mapping[str, tuple[int, ...]],
        dtypes: Mapping[str, str],
        batch: str | int,
    ) -> None:
        graph = model.graph
        self.shapes, self.dtypes, self.batch = shapes, dtypes, batch
        self.constants = {each.name: each for each in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].HasField("t"):
                self.constants[node.output[0]] = node.attribute[0].t
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.held: dict[str, Kind] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.after: list[onnx.NodeProto] = []
        self.added: list[onnx.TensorProto] = []
        self.states: list[State] = []
        self.frames = 0

    def time(self, node: onnx.NodeProto, index: int = 0, *, lead: bool = False) -> Time:
        """Where the frames are of an input that must have some.

        Args:
            lead: whether zeros in front of the first frame are all right.
        """
        found = self.held.get(node.input[index]) if index < len(node.input) else None
        if not isinstance(found, Time):
            raise MixingError(node, "has frames where a constant is expected")
        if found.lead and not lead:
            raise MixingError(
                node, "takes frames with padding in front, which only a convolution may"
            )
        return found

    def axis(self, node: onnx.NodeProto, index: int = 0, *, lead: bool = False) -> int:
        """As `time`, of an axis that holds nothing else."""
        found = self.time(node, index, lead=lead)
        if (found.outer, found.inner) != (1, 1):
            raise MixingError(node, "works along an axis that holds more than time")
        return found.axis

    def only(self, node: onnx.NodeProto, *indices: int) -> None:
        """Refuse frames in any input but these."""
        for index, name in enumerate(node.input):
            if index not in indices and name in self.held:
                raise MixingError(node, "joins frames with frames, as attention does")

    def shape(self, node: onnx.NodeProto, name: str) -> tuple[int, ...]:
        """Of a value in the whole-sequence graph."""
        found = self.shapes.get(name)
        if found is None or 0 in found:
            raise MixingError(node, f"works on {name!r}, whose shape is not known")
        return found

    def sizes(self, node: onnx.NodeProto, name: str) -> tuple[int, ...]:
        """As `shape`, of a value that may be a scalar or empty."""
        found = self.shapes.get(name)
        if found is None:
            raise MixingError(node, f"works on {name!r}, whose shape is not known")
        return found

    def constant(self, node: onnx.NodeProto, index: int) -> np.ndarray | None:
        """The values of an input; None if it has no such input.

        Raises:
            MixingError: they are computed.
        """
        if index >= len(node.input) or not node.input[index]:
            return None
        tensor = self.constants.get(node.input[index])
        if tensor is None:
            raise MixingError(node, f"has a computed {node.input[index]!r}, which is not followed")
        return numpy_helper.to_array(tensor)

    def keep(self, node: onnx.NodeProto, *kinds: Kind | None) -> None:
        """Take a node over; `kinds` are of its outputs, the last one of all further ones too."""
        self.nodes.append(node)
        for place, name in enumerate(node.output):
            kind = kinds[min(place, len(kinds) - 1)]
            if name and kind is not None:
                self.held[name] = kind

    def with_constant(
        self,
        node: onnx.NodeProto,
        index: int,
        values: Sequence[int] | np.ndarray,
        dtype: Any = None,
    ) -> onnx.NodeProto:
        """A copy of a node with other values of one input."""
        made = copied(node)
        made.input[index] = self.add(np.asarray(values, dtype or np.int64))
        return made

    def add(self, values: np.ndarray) -> str:
        """An initialiser, whose name is returned."""
        name = f"step/constant_{len(self.added)}"
        self.added.append(numpy_helper.from_array(values, name))
        return name

    def state(self, dtype: str, shape: Sequence[int], source: str | None = None) -> State:
        """A new state; `MANY` in its shape is the batch."""
        number = len(self.states)
        sizes = tuple(self.batch if size == MANY else int(size) for size in shape)
        self.states.append(State(f"state_{number}", f"next_state_{number}", dtype, sizes, source))
        return self.states[-1]

    def window(self, node: onnx.NodeProto, axis: int, size: int) -> str:
        """The last `size` frames of a node's first input, the newest one included: the name of a
        value whose other frames are kept as a state."""
        name = str(node.input[0])
        if size <= 1:
            return name
        shape = list(self.shape(node, name))
        shape[axis] = size - 1
        kept = self.state(self.dtypes[name], shape)
        whole = f"step/window_{len(self.states) - 1}"
        self.nodes.append(helper.make_node("Concat", [kept.input, name], [whole], whole, axis=axis))
        bounds = [
            self.add(np.array([each], np.int64)) for each in (1, np.iinfo(np.int64).max, axis)
        ]
        self.after.append(
            helper.make_node("Slice", [whole, *bounds], [kept.output], f"{whole}/keep")
        )
        return whole


def copied(node: onnx.NodeProto) -> onnx.NodeProto:
    """A node of its own."""
    made = onnx.NodeProto()
    made.CopyFrom(node)
    return made


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """By name."""
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def put(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Give a node an attribute in place of the one it has."""
    others = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*others, helper.make_attribute(name, value)])
