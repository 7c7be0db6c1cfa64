"""Following a stream with a step model: each frame is computed once, as it comes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lepton_compress.targets.stepping import SteppedRunner

if TYPE_CHECKING:
    import numpy as np

    from lepton_compress.targets.runner import Runner


@dataclass(frozen=True)
class Follower:
    """A step model on one stream.

    Attributes:
        runner: of the step model, whose only input is sound.
        hop: samples that a frame adds.
        lead: samples in front of the first frame's.
        size: samples of a whole sequence.
        every: samples from one answer to the next, a whole number of frames.
    """

    runner: SteppedRunner
    hop: int
    lead: int
    size: int
    every: int

    def heard(
        self, chunks: Iterator[np.ndarray], times: list[float]
    ) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Where the samples begin that an answer is about, and the outputs: first after a whole
        sequence, then after `every` samples more. What is left at the end is filled up with
        silence.

        Args:
            chunks: int16 samples in order.
            times: gets the seconds of each frame.
        """
        import numpy as np

        name = self.runner.inputs[0].name
        frames, before = self.runner.start(), self.lead
        kept, fed, due = np.zeros(0, np.int16), 0, self._first
        for chunk in self._filled(chunks):
            kept = np.concatenate([kept, chunk])
            if before and len(kept) >= before:
                frames.lead(kept[None, :before])
                kept, before = kept[before:], 0
            while not before and len(kept) >= self.hop:
                begun = time.perf_counter()
                outputs = frames.feed({name: kept[None, : self.hop]})
                times.append(time.perf_counter() - begun)
                kept, fed = kept[self.hop :], fed + self.hop
                if fed == due:
                    yield due - self._first, outputs
                    due += self.every

    @property
    def _first(self) -> int:
        """Samples, but for the lead, of the frames that a whole sequence has."""
        return (self.size - self.lead) // self.hop * self.hop

    def _filled(self, chunks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """With silence up to the next answer, unless the last one has heard the end."""
        import numpy as np

        length = 0
        for chunk in chunks:
            length += len(chunk)
            yield chunk
        unheard = max(0, length - self.size)
        until = self.lead + self._first + -(-unheard // self.every) * self.every
        if 0 < length < until:
            yield np.zeros(until - length, np.int16)


def of(runner: Runner, size: int, step: int) -> Follower | None:
    """What follows a stream with a runner, telling something about every `step` samples; None if
    it is no step model of sound."""
    if not isinstance(runner, SteppedRunner):
        return None
    frame = runner.about["frame"]
    hop = int(frame["step"])
    return Follower(runner, hop, int(frame["lead"]), size, max(1, round(step / hop)) * hop)
