"""Which widths to take: a path from the whole net to the narrowest one, and where to stop on it.

The path is greedy, as in NetAdapt (Yang et al., ECCV 2018): from where it stands it goes on by the
step that loses least for what it saves. A step may narrow a group by several widths at once, where
the next one alone would save nothing. Each net on the path is within those before it, so that a
tighter budget never keeps more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Widths = Mapping[str, int]
AHEAD = 4
"""Widths that a step may take at once."""
_NOTHING = 1e-12


def greedy(
    options: Mapping[str, Sequence[int]],
    loss: Callable[[str, int], float],
    cost: Callable[[Widths], float],
) -> list[dict[str, int]]:
    """The nets on the way from the whole one to the narrowest, both included.

    Args:
        options: by group its allowed widths, narrowest first; the last is the whole width.
        loss: what is lost by a group at a width, rising as the width falls.
        cost: what a net costs by its widths.
    """
    now = {name: widths[-1] for name, widths in options.items()}
    places = {name: len(widths) - 1 for name, widths in options.items()}
    found = [dict(now)]
    while any(places.values()):
        spent = cost(now)
        best: tuple[float, float, str, int] | None = None
        for name, place in places.items():
            for at in range(place - 1, max(place - 1 - AHEAD, -1), -1):
                width = options[name][at]
                lost = max(loss(name, width) - loss(name, now[name]), 0.0) + _NOTHING
                saved = spent - cost(now | {name: width})
                # Of steps that save nothing, the one that loses least.
                rate = saved / lost if saved > 0 else 0.0
                if best is None or (rate, -lost) > best[:2]:
                    best = (rate, -lost, name, at)
        assert best is not None  # noqa: S101 - some group is wider than its narrowest
        _, _, name, at = best
        now[name], places[name] = options[name][at], at
        found.append(dict(now))
    return found


def within(
    path: Sequence[Widths], cost: Callable[[Widths], float], limit: float
) -> tuple[int, float]:
    """The place of the first net on a path that costs at most `limit`, and its cost; if none does,
    of the cheapest."""
    cheapest = (len(path) - 1, float("inf"))
    for place, widths in enumerate(path):
        spent = cost(widths)
        if spent <= limit:
            return place, spent
        if spent < cheapest[1]:
            cheapest = (place, spent)
    return cheapest
