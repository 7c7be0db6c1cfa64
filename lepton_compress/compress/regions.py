"""Where a factor for each channel can move through a graph without changing what it computes.

    Conv ──a── Relu ──b──┬── Conv          Divide what the first Conv gives in channel c by s[c]:
                         └── MaxPool ─ Conv   a and b shrink alike, and the weights of both later
                                              convolutions that meet channel c take the factor up.

All values that shrink together are a region. It is found by giving every element of a value a
label, following the labels through operators that keep them (`moving.py`), and tying labels
together where an operator asks for the same factor. Labels that reach what no factor passes, a
Softmax say, are held: their factor is one. The rest are free, and the region's sites are the
constants that must be multiplied or divided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lepton_compress.compress.facts import Facts, Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = NDArray[np.int64]

HELD = 0
"""The label whose factor is one."""
INPUT, OUTPUT = "an input of the model", "an output of the model"
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")

Side = Literal["makes", "passes", "takes"]


@dataclass(frozen=True)
class Site:
    """A constant that takes up the factors.

    Attributes:
        node, place: the node and which of its inputs it is.
        labels: the label of each element, broadcast with the constant.
        power: -1 where it is divided by the factors, 1 where it is multiplied.
        side: whether its node makes the region's values, takes them, or passes them on.
    """

    node: onnx.NodeProto
    place: int
    labels: Labels
    power: int
    side: Side

    @property
    def name(self) -> str:
        """Of the constant."""
        return str(self.node.input[self.place])

    @property
    def weighs(self) -> bool:
        """Whether it is the weight of a convolution or matrix product."""
        return self.node.op_type in LINEAR and self.place == 1


@dataclass(frozen=True)
class Region:
    """Values whose channels can be scaled together.

    Attributes:
        size: how many free labels there are; they are 1 to `size`.
        values: value to the labels of its elements, for a batch of `facts.BATCH`.
        sites: what takes the factors up.
        obstacles: what holds the labels that are not free, each `NODE (OPERATOR)` or the like.
    """

    size: int
    values: Mapping[str, Labels]
    sites: tuple[Site, ...]
    obstacles: tuple[str, ...]

    def nodes(self, side: Side) -> list[str]:
        """Names of the nodes with a site on that side, each once."""
        return list(dict.fromkeys(each.node.name for each in self.sites if each.side == side))

    def only(self, free: NDArray[np.bool_], obstacles: tuple[str, ...] = ()) -> Region:
        """The same with fewer labels free; `free` is (size + 1,), and `obstacles` come in front."""
        number = np.zeros(self.size + 1, np.int64)
        number[free] = np.arange(1, free.sum() + 1)
        sites = tuple(replace(each, labels=number[each.labels]) for each in self.sites)
        values = {
            name: np.broadcast_to(number[_once(labels)], labels.shape)
            for name, labels in self.values.items()
        }
        return Region(int(free.sum()), values, sites, (*obstacles, *self.obstacles))

    def spread(self, arrays: Mapping[str, NDArray[Any]], side: Side) -> NDArray[np.float64]:
        """(size + 1,) by label, the largest magnitude of the weights on a side that meet it."""
        found = np.zeros(self.size + 1)
        for site in self.sites:
            if site.side == side and site.weighs:
                array = np.abs(arrays[site.name])
                free = tuple(axis for axis, n in enumerate(site.labels.shape) if n == 1)
                np.maximum.at(found, site.labels, array.max(axis=free, keepdims=True))
        return found

    def scale(self, arrays: dict[str, NDArray[Any]], factors: NDArray[np.float64]) -> None:
        """Multiply and divide the constants.

        Args:
            arrays: constant to its values, which are replaced.
            factors: (size + 1,) by label; the first is one.
        """
        for site in self.sites:
            taken = factors[site.labels] ** site.power
            if (taken != 1).any():
                arrays[site.name] = arrays[site.name].astype(np.float64) * taken


@dataclass
class Search:
    """Labels as they spread from one value. `moving.VISIT` says what each operator does."""

    facts: Facts
    labels: dict[str, Labels] = field(default_factory=dict)
    sites: dict[tuple[str, int, Side], Site] = field(default_factory=dict)
    obstacles: dict[str, None] = field(default_factory=dict)
    _next: int = HELD + 1
    _ties: list[NDArray[np.int64]] = field(default_factory=list)
    _waiting: list[str] = field(default_factory=list)

    def fresh(self, shape: Shape) -> Labels:
        """A label of its own for each element."""
        count = int(np.prod(shape, dtype=np.int64))
        made = np.arange(self._next, self._next + count).reshape(shape)
        self._next += count
        return made

    def of(self, name: str) -> Labels | None:
        """The labels of a value, if the search has reached it."""
        return self.labels.get(name)

    def assign(self, name: str, labels: Labels) -> None:
        """The value has these labels, beside those it has already."""
        known = self.labels.get(name)
        if known is not None:
            self.tie(known, labels)
            return
        self.labels[name] = np.broadcast_to(labels, self.facts.shapes[name])
        self._waiting.append(name)

    def tie(self, one: Labels, other: Labels) -> None:
        """Each label of one is the same as the other's in its place."""
        one, other = np.broadcast_arrays(_once(one), _once(other))
        pairs = np.stack([one.reshape(-1), other.reshape(-1)])
        self._ties.append(np.unique(pairs[:, pairs[0] != pairs[1]], axis=1))

    def along(self, labels: Labels, axes: Sequence[int]) -> Labels:
        """The labels with one place left along `axes`, along which all are tied."""
        first = labels[
            tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(labels.ndim))
        ]
        self.tie(labels, first)
        return first

    def hold(self, name: str, why: str) -> None:
        """The factor of a value is one, if the search has reached it."""
        if name in self.labels:
            self.tie(self.labels[name], np.zeros((), np.int64))
            self.obstacles[why] = None

    def stop(self, node: onnx.NodeProto, why: str = "") -> None:
        """No factor passes a node."""
        for name in (*node.input, *node.output):
            self.hold(name, f"{node.name} ({why or node.op_type})")

    def place(
        self, node: onnx.NodeProto, place: int, labels: Labels, power: int, side: Side
    ) -> None:
        """A constant takes the factors up."""
        self.sites[node.name, place, side] = Site(node, place, labels, power, side)

    def run(self, name: str, labels: Labels) -> Region:
        """The region around a value with these labels."""
        from lepton_compress.compress.moving import visit

        self.assign(name, labels)
        while self._waiting:
            value = self._waiting.pop()
            if value in self.facts.made:
                self.hold(value, OUTPUT)
            maker = self.facts.makers.get(value)
            if maker is None:
                self.hold(value, INPUT)
            else:
                visit(self, maker)
            for node in self.facts.takers.get(value, ()):
                visit(self, node)
        return self._region()

    def _region(self) -> Region:
        size = self._next
        ties = np.concatenate([np.zeros((2, 0), np.int64), *self._ties], axis=1)
        tied = coo_array((np.ones(ties.shape[1], bool), tuple(ties)), shape=(size, size))
        _, component = connected_components(tied, directed=False)
        met = [component[_once(each.labels)].ravel() for each in self._all()]
        used = np.unique(np.concatenate(met))
        free = used[used != component[HELD]]
        number = np.zeros(size, np.int64)
        number[free] = np.arange(1, len(free) + 1)

        def final(labels: Labels) -> Labels:
            made: Labels = number[component[_once(labels)]]
            return made

        sites = tuple(
            Site(each.node, each.place, _narrow(final(each.labels)), each.power, each.side)
            for each in self.sites.values()
        )
        values = {
            name: np.broadcast_to(final(each), each.shape) for name, each in self.labels.items()
        }
        return Region(len(free), values, sites, tuple(self.obstacles))

    def _all(self) -> Iterator[Site]:
        yield Site(onnx.NodeProto(), 0, np.zeros(1, np.int64), 1, "passes")
        yield from self.sites.values()


def _once(labels: Labels) -> Labels:
    """One place is left along every axis that only repeats."""
    return labels[tuple(slice(None) if stride else slice(0, 1) for stride in labels.strides)]


def _narrow(labels: Labels) -> Labels:
    """One place is left along every axis that does not vary."""
    for axis in range(labels.ndim):
        first = labels[tuple(slice(0, 1) if a == axis else slice(None) for a in range(labels.ndim))]
        if (labels == first).all():
            labels = first
    return labels


def channels(facts: Facts, node: onnx.NodeProto) -> int | None:
    """The axis of the channels in what a node with a constant weight takes; None for another."""
    if node.op_type not in LINEAR or facts.constant(node, 1) is None:
        return None
    return 1 if node.op_type.startswith("Conv") else len(facts.shapes[node.input[0]]) - 1


def region_of(facts: Facts, value: str, axis: int) -> Region:
    """The region of a value with a factor for each channel along `axis`."""
    shape = facts.shapes[value]
    sizes = [size if place == axis else 1 for place, size in enumerate(shape)]
    search = Search(facts)
    return search.run(value, np.broadcast_to(search.fresh(tuple(sizes)), shape))
