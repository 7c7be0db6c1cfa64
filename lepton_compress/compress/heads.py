"""Attention heads as groups: the rows of queries, keys and values, and the columns that read them,
in blocks of one head.

Which numbers of heads are possible is told by the whole numbers that the modules around hold; which
is right is told by trying (`trying`). Whole heads go (Michel et al., "Are Sixteen Heads Really
Better than One?", 2019), so that neither the scale of the scores nor any other head changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from torch import nn

from lepton_compress.compress.groups import Group, Member, Part
from lepton_compress.compress.stand_ins import Places
from lepton_compress.compress.tracing import Candidate


def packed(module: nn.Module) -> list[Candidate]:
    """Dense layers that make queries, keys and values in one, each with every sibling that may read
    the result, every number of heads and both orders: which of them is right is to be tried."""
    made = []
    for name, owner in module.named_modules():
        if isinstance(owner, nn.MultiheadAttention):
            continue
        prefix = f"{name}." if name else ""
        dense = {
            prefix + leaf: each for leaf, each in owner.named_children() if type(each) is nn.Linear
        }
        for first, inward in dense.items():
            for last, outward in dense.items():
                width = outward.in_features
                if first == last or inward.out_features != 3 * width:
                    continue
                made += [
                    _candidate(first, inward, last, count, places)
                    for count in _numbers_of_heads(module, name, width)
                    for places in _orders(count, width)
                ]
    return made


def _candidate(first: str, inward: nn.Linear, last: str, count: int, places: Places) -> Candidate:
    size = len(places[0]) // 3
    members = [Member(first, "weight", 0, places)]
    if inward.bias is not None:
        members.append(Member(first, "bias", 0, places))
    columns = tuple(tuple(range(head * size, (head + 1) * size)) for head in range(count))
    members.append(Member(last, "weight", 1, columns, takes=True))
    part = Part(tuple(members), tuple(range(count)))
    group = Group(first, count, kind="heads", size=size, parts=(part,))
    return Candidate(group, frozenset({first, last}))


def _orders(count: int, width: int) -> Iterator[Places]:
    """Rows of each head where queries, keys and values follow one another, or heads do."""
    size = width // count
    yield tuple(
        tuple(part * width + head * size + at for part in range(3) for at in range(size))
        for head in range(count)
    )
    yield tuple(tuple(range(3 * head * size, 3 * (head + 1) * size)) for head in range(count))


def in_blocks(module: nn.Module, candidate: Candidate) -> list[Candidate]:
    """A group of channels that may be attention, in blocks of each possible number of heads; none
    where no two layers make its channels."""
    group = candidate.group
    makers = {each.layer for each in group.members() if not each.takes}
    readers = [each for each in group.members() if each.takes]
    fused = any(isinstance(module.get_submodule(each), nn.MultiheadAttention) for each in makers)
    if candidate.fault or len(group.parts) != 1 or not readers:
        return []
    if not fused and len(makers) < 2:
        return []
    owner = group.layer if fused else group.layer.rpartition(".")[0]
    return [
        dataclasses.replace(candidate, group=_in_blocks(group, count))
        for count in _numbers_of_heads(module, owner, group.width)
    ]


def _in_blocks(group: Group, count: int) -> Group:
    size = group.width // count

    def grouped(places: Places) -> Places:
        return tuple(
            tuple(at for each in places[head * size : (head + 1) * size] for at in each)
            for head in range(count)
        )

    members = tuple(
        dataclasses.replace(each, places=grouped(each.places)) for each in group.members()
    )
    part = Part(members, tuple(range(count)))
    return Group(group.layer, count, kind="heads", size=size, parts=(part,))


def _numbers_of_heads(module: nn.Module, owner: str, width: int) -> list[int]:
    """What whole numbers around a module allow, each as the number of heads or their dimension."""
    pieces = owner.split(".") if owner else []
    names = [".".join(pieces[:end]) for end in range(len(pieces), -1, -1)]
    found: dict[int, None] = {}
    for name in names:
        for _, value in sorted(vars(module.get_submodule(name)).items()):
            if type(value) is int and 1 < value < width and width % value == 0:
                found[value] = None
                found[width // value] = None
    return list(found)
