"""What structured pruning removes: groups of coupled channels, heads or hidden units, and which of
them stay. Pure values, free of any framework."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["channels", "heads", "units"]

CEILING = 0.9
"""No group loses more than this share under `global`, so that none becomes a bottleneck."""


@dataclass(frozen=True)
class Member:
    """Where a group lies in one tensor.

    Attributes:
        layer: name of the module.
        tensor: name of its parameter or buffer.
        axis: along which places are removed.
        places: by channel, its places along the axis.
        takes: whether these are weights that read the channels; otherwise they make them, or scale
            them on their way.
    """

    layer: str
    tensor: str
    axis: int
    places: tuple[tuple[int, ...], ...]
    takes: bool = False


@dataclass(frozen=True)
class Part:
    """Members that lose the same channels.

    Attributes:
        order: by the group's channel, the channel of these members that goes with it.
    """

    members: tuple[Member, ...]
    order: tuple[int, ...]


@dataclass(frozen=True)
class Count:
    """A whole number that a module holds as an attribute, so many for each channel: `num_heads`."""

    layer: str
    attribute: str
    each: int


@dataclass(frozen=True)
class Group:
    """Coupled channels, named by the layer that produces them.

    The parts of a group keep equally many channels, each its own: the layers and directions of a
    recurrent network share their number of hidden units, and nothing else.

    Attributes:
        layer: the module that makes the channels.
        width: how many channels (heads, hidden units) there are.
        importance: one value a channel, comparable with that of other groups.
        size: elements of the layer's output that one channel is; of a head its dimension.
    """

    layer: str
    width: int
    importance: tuple[float, ...] = ()
    kind: Kind = "channels"
    size: int = 1
    parts: tuple[Part, ...] = field(default=(), repr=False)
    counts: tuple[Count, ...] = ()

    def step(self, round_to: int) -> int:
        """Channels between two widths whose elements are multiples of `round_to`."""
        return round_to // math.gcd(round_to, self.size)

    def widths(self, round_to: int) -> list[int]:
        """The widths that are allowed, narrowest first; the last is the whole width."""
        step = self.step(round_to)
        return [*range(step, self.width, step), self.width]

    def fitting(self, wanted: float, round_to: int) -> int:
        """The narrowest width allowed that holds so many channels."""
        step = self.step(round_to)
        return min(self.width, max(1, math.ceil(wanted / step)) * step)

    def best(self, width: int) -> list[int]:
        """The most important channels, in their order; of equals the first."""
        ranked = sorted(range(self.width), key=lambda index: (-self.importance[index], index))
        return sorted(ranked[:width])

    def members(self) -> list[Member]:
        """All members, with their places by the group's own channels."""
        return [
            dataclasses.replace(each, places=tuple(each.places[at] for at in part.order))
            for part in self.parts
            for each in part.members
        ]


def choose(
    groups: Sequence[Group], ratio: float, scope: str, round_to: int
) -> dict[str, list[int]]:
    """Layer to the channels that stay when `ratio` of all (local: of each) channels go.

    Widths are rounded up to what `Group.widths` allows; ties go to the lower index.
    """
    if scope == "local":
        counts = {group.layer: group.width * (1 - ratio) for group in groups}
    else:
        ranked = sorted(value for group in groups for value in group.importance)
        threshold = ranked[min(int(len(ranked) * ratio), len(ranked) - 1)]
        counts = {
            group.layer: max(
                sum(value >= threshold for value in group.importance),
                group.width * (1 - CEILING),
            )
            for group in groups
        }
    return {
        group.layer: group.best(group.fitting(counts[group.layer], round_to)) for group in groups
    }


def removed(
    groups: Sequence[Group], kept: Mapping[str, Sequence[int]]
) -> dict[tuple[str, str, int], set[int]]:
    """(module, tensor, axis) to the places that go."""
    gone: dict[tuple[str, str, int], set[int]] = {}
    for group in groups:
        lost = set(range(group.width)) - set(kept[group.layer])
        for member in group.members() if lost else ():
            places = gone.setdefault((member.layer, member.tensor, member.axis), set())
            places.update(place for channel in lost for place in member.places[channel])
    return gone
