"""A step model used like the whole-sequence one that it was made from: frame after frame, the
states kept.

This file is copied to devices and imported there by what runs an artifact: it needs Python 3.8 and
numpy, and nothing of this package. What a step model is made of stands in its file's metadata under
`METADATA`, as JSON:

    version   1
    frame     input, dtype, shape (of a whole sequence), axis (of time), step (how many elements
              along it one call takes), lead (elements before the first call's, which a state with
              `source` holds at the start)
    states    each input, output, dtype, shape; zeros at the start. One with `source` holds the last
              elements of that input instead, where a whole sequence is given
    outputs   each name, dtype, shape (of a whole sequence), axis (of time; null if only the last
              frame's counts)
"""

from __future__ import annotations

import json
from typing import Any

METADATA = "lepton_compress.step"
VERSION = 1


def read(metadata: Any) -> Any:
    """What a file's metadata (key to text) says of its steps; None of any other file.

    Raises:
        ValueError: it is damaged, or of a later version.
    """
    held = metadata.get(METADATA)
    if held is None:
        return None
    about = json.loads(held)
    if about["version"] != VERSION:
        raise ValueError(f"its steps are of version {about['version']}, which is not known here")
    return about


class Frames:
    """A step model with its states, for frames as they come.

    Args:
        run: one call: inputs by name to outputs in the order of `names`.
        names: of the file's outputs, in its order.
        about: what `read` gave.
        batch: sequences at once.
    """

    def __init__(self, run: Any, names: Any, about: Any, batch: int) -> None:
        self._run, self._names, self._about = run, list(names), about
        self._states = zeros(about, batch)
        self._kept = [
            (self._names.index(each["output"]), each["input"]) for each in about["states"]
        ]
        self._given = [self._names.index(each["name"]) for each in about["outputs"]]

    def lead(self, elements: Any) -> None:
        """Begin with these elements of the sequence, which come before the first call's."""
        for each in self._about["states"]:
            if each.get("source"):
                self._states[each["input"]] = elements

    def feed(self, feeds: Any) -> list[Any]:
        """The outputs for the next frame; `feeds` are all inputs but the states."""
        made = self._run({**feeds, **self._states})
        for place, name in self._kept:
            self._states[name] = made[place]
        return [made[place] for place in self._given]


class Stepped:
    """A step model that takes whole sequences.

    Args:
        call: one call: inputs by name to outputs in the order of `names`.
        names: of the file's outputs, in its order.
        about: what `read` gave.
    """

    def __init__(self, call: Any, names: Any, about: Any) -> None:
        self.call, self.about, self.names = call, about, list(names)

    def start(self, batch: int) -> Frames:
        """The states at the start of sequences."""
        return Frames(self.call, self.names, self.about, batch)

    def run(self, feeds: Any) -> list[Any]:
        """The outputs, in the order of `about`: after the last frame, or of every frame along the
        output's axis of time. Elements behind the last whole frame count for nothing.

        Raises:
            ValueError: the sequence is shorter than one frame.
        """
        import numpy as np

        frame = self.about["frame"]
        sequence, others = feeds[frame["input"]], dict(feeds)
        frames = self.start(len(sequence))
        found: list[Any] = []
        for number, part in enumerate(parts(sequence, frame)):
            if number == 0:
                frames.lead(part)
                continue
            others[frame["input"]] = part
            found.append(frames.feed(others))
        if not found:
            size = frame["lead"] + frame["step"]
            raise ValueError(f"{frame['input']} is shorter than one frame of {size}")
        return [
            column[-1] if each["axis"] is None else np.concatenate(column, axis=each["axis"])
            for column, each in zip(zip(*found), self.about["outputs"])  # noqa: B905 - Python 3.8
        ]


def parts(sequence: Any, frame: Any) -> Any:
    """What comes before the first call's elements, then each call's."""
    axis, step, lead = frame["axis"], frame["step"], frame["lead"]
    before = (slice(None),) * axis
    yield sequence[(*before, slice(0, lead))]
    for start in range(lead, sequence.shape[axis] - step + 1, step):
        yield sequence[(*before, slice(start, start + step))]


def count(sequence: Any, frame: Any) -> int:
    """How many calls a sequence takes."""
    length: int = sequence.shape[frame["axis"]]
    return max(0, (length - int(frame["lead"])) // int(frame["step"]))


def zeros(about: Any, batch: int) -> dict[str, Any]:
    """The states at the start, by input; a named dimension is the batch."""
    import numpy as np

    return {
        each["input"]: np.zeros(
            [batch if isinstance(size, str) else size for size in each["shape"]], each["dtype"]
        )
        for each in about["states"]
    }


def first(feeds: Any, about: Any) -> dict[str, Any]:
    """The inputs of the file's first call for a whole sequence."""
    frame = about["frame"]
    sequence = feeds[frame["input"]]
    both = parts(sequence, frame)
    lead, part = next(both), next(both)
    states = zeros(about, len(sequence))
    for each in about["states"]:
        if each.get("source"):
            states[each["input"]] = lead
    return {**feeds, **states, frame["input"]: part}
