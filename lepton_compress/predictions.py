"""What asking an artifact gives back: frozen values, apart from whoever makes or shows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Guess:
    """A class with its probability; `index` is its number in the model's output."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Answer:
    """What an artifact says of one sample.

    Attributes:
        given: what the sample was read from.
        output: the name of the output that was read.
        guesses: classes, the likeliest first; none of an output whose meaning is not known.
        unsure: the threshold that no probability reaches; None where one does.
        values: of an output whose meaning is not known, its first numbers.
        size: how many numbers the output has for the sample.
        notes: what was done to the sample to make it fit.
    """

    given: str
    output: str
    guesses: tuple[Guess, ...]
    unsure: float | None
    values: tuple[float, ...]
    size: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answers:
    """What an artifact says.

    Attributes:
        milliseconds: median time of one sample, its preprocessing inside; after a first call that
            is not counted. Where an input holds several, it is their time over their number.
        threads: that it took.
    """

    artifact: str
    answers: tuple[Answer, ...]
    milliseconds: float
    threads: int


@dataclass(frozen=True)
class Heard:
    """What an artifact says of a window of a stream; `start` and `end` in seconds."""

    start: float
    end: float
    answer: Answer


@dataclass(frozen=True)
class Listening:
    """A stream and what was heard in it.

    Attributes:
        rate: in Hz.
        window, hop: of what the artifact looks at, in seconds.
        seconds: length of the stream.
        busy: seconds that the artifact took for all windows.
        factor: the real-time factor, time taken over time heard: below 1 it keeps up.
        worst: the longest time of one window, of a step model of one frame, in milliseconds.
        frame, typical: of a step model, the seconds that a frame adds, and the median time of one
            in milliseconds.
    """

    artifact: str
    rate: int
    window: float
    hop: float
    seconds: float
    busy: float
    factor: float
    worst: float
    heard: tuple[Heard, ...]
    frame: float | None = None
    typical: float | None = None
