"""What a model's outputs lose against the original's, on samples that no gate looks at."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_compress.artifacts import Dataset, Measure, Model, Observer, Split
from lepton_compress.compress.account import signal_to_noise
from lepton_compress.compress.session import observing
from lepton_compress.load import forms

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH = 32
FEW = 32
"""Samples that tell how noisy a graph is; how accurate it is takes more."""
_ENOUGH = 32
"""Samples of the train split; with fewer, the calibration split serves."""


@dataclass(frozen=True)
class Trial:
    """How a graph did.

    Attributes:
        drop: how much worse it is in what `Judge.measures` names; positive is worse.
        noise_db: signal to quantisation noise of the first output; None if there is none at all.
    """

    drop: float
    noise_db: float | None

    @property
    def noise(self) -> float:
        """Energy of the noise over that of the signal."""
        return 0.0 if self.noise_db is None else float(10 ** (-self.noise_db / 10))


class Judge:
    """Tries graphs, or torch modules, on the same samples.

    Attributes:
        measures: what `Trial.drop` is.
        samples: how many samples it is found on.
        source: the split that they are from.
    """

    def __init__(
        self,
        reference: Model,
        data: Dataset,
        metric: Measure | None,
        *,
        samples: int,
        threads: int,
        observer: Observer,
    ) -> None:
        names = [spec.name for spec in reference.inputs]
        split, self.source = data.train, "train"
        if len(split) < _ENOUGH:
            split, self.source = data.calibration, "calibration"
        self.split = _drawn(split.named(names), samples)
        self.samples = len(self.split)
        self.threads = threads
        self.observer = observer
        self.wanted = self._run(reference)
        self.metric = metric if self.split.targets is not None else None
        self.reached = 0.0
        if self.metric is not None:
            made = self.metric(self.wanted, self.split.targets)
            self.reached, self.higher = made.value, made.higher_is_better
        self.measures = "the first metric" if self.metric is not None else self._unlabelled()

    def __call__(self, model: Model) -> Trial:
        """Try a graph."""
        given = self._run(model)
        name = next(iter(self.wanted))
        noise = signal_to_noise(self.wanted[name], given[name])
        if self.metric is None:
            return Trial(self._changed(self.wanted[name], given[name]), noise)
        value = self.metric(given, self.split.targets).value
        drop = self.reached - value if self.higher else value - self.reached
        # A metric without a value is the worst there is.
        return Trial(float(drop) if np.isfinite(drop) else float("inf"), noise)

    def few(self, model: Model) -> Trial:
        """Try a graph for its noise alone, on `FEW` samples."""
        given = self._run(model, FEW)
        name = next(iter(self.wanted))
        wanted = self.wanted[name][: len(given[name])]
        return Trial(0.0, signal_to_noise(wanted, given[name]))

    def first(self, batch: int) -> dict[str, NDArray[Any]]:
        """The inputs of one call, samples repeated where there are too few."""
        rows = np.arange(batch) % self.samples
        return {
            name: np.ascontiguousarray(array[rows]) for name, array in self.split.inputs.items()
        }

    def _run(self, model: Model, most: int | None = None) -> dict[str, NDArray[Any]]:
        """Every output, (samples, ...), of at most so many samples."""
        run = _runs(model, self.threads)
        parts: list[dict[str, NDArray[Any]]] = []
        with self.observer.work("trying", self.samples) as progress:
            for feeds in self.split.batches(_BATCH, most):
                parts.append(run(feeds))
                progress.advance(len(next(iter(feeds.values()))))
        return {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}

    def _unlabelled(self) -> str:
        first = next(iter(self.wanted.values()))
        if _is_classification(first):
            return "the share of changed predictions"
        return "the relative error of the outputs"

    @staticmethod
    def _changed(wanted: NDArray[Any], given: NDArray[Any]) -> float:
        if _is_classification(wanted):
            return float((wanted.argmax(-1) != given.argmax(-1)).mean())
        difference = np.square(wanted.astype(np.float64) - given).sum()
        energy = np.square(wanted, dtype=np.float64).sum()
        return float(np.sqrt(difference / energy)) if energy else float(difference > 0)


def _runs(model: Model, threads: int) -> Callable[[Mapping[str, Any]], dict[str, NDArray[Any]]]:
    """What gives a batch's outputs by name."""
    if model.form != "graph":
        return functools.partial(forms.call, model)
    session, names = observing(model.value, (), threads), list(model.outputs)
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def _is_classification(outputs: NDArray[Any]) -> bool:
    return outputs.ndim == 2 and outputs.shape[1] > 1


def _drawn(split: Split, most: int) -> Split:
    """At most so many samples, drawn evenly."""
    rows = np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).astype(int))
    inputs = {name: np.asarray(array[rows]) for name, array in split.inputs.items()}
    return Split(inputs, None if split.targets is None else np.asarray(split.targets)[rows])
