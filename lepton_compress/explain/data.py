"""Calibration data against evaluation data: the same numbers, or other ones?"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from lepton_compress.accounts import ChannelStatistics, InputAccount

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lepton_compress.artifacts import Split

_MOST = 512
"""Samples of either that are looked at."""
_FEW = 4
"""Channels up to which every order is tried: colours."""


def compare(calibration: Split, evaluation: Split) -> tuple[InputAccount, ...]:
    """Each float or integer input of both, in the order of the evaluation data.

    Inputs that only one of them has are left out; a single input may have any name.
    """
    try:
        calibration = calibration.named(list(evaluation.inputs))
    except ValueError:
        return ()
    return tuple(
        _input(name, _sampled(calibration.inputs[name]), _sampled(array))
        for name, array in evaluation.inputs.items()
    )


def _sampled(array: Any) -> NDArray[Any]:
    import numpy as np

    step = max(1, len(array) // _MOST)
    return np.asarray(array[::step][:_MOST], dtype=np.float64)


def _input(name: str, calibration: NDArray[Any], evaluation: NDArray[Any]) -> InputAccount:
    had, has = _statistics(calibration), _statistics(evaluation)
    factor = had.deviation / has.deviation if has.deviation else 1.0
    offset = had.mean - factor * has.mean
    order, gain = None, 1.0
    channels: tuple[tuple[ChannelStatistics, ChannelStatistics], ...] = ()
    if calibration.ndim > 2 and 2 <= calibration.shape[1] <= _FEW:
        order, gain = _order(calibration, evaluation)
        channels = tuple(
            (_statistics(calibration[:, each]), _statistics(evaluation[:, each]))
            for each in range(calibration.shape[1])
        )
    return InputAccount(
        name=name,
        calibration=had,
        evaluation=has,
        channels=channels,
        factor=factor,
        offset=offset,
        shape_distance=_distance(calibration, factor * evaluation + offset),
        certainty=_certainty(calibration, evaluation),
        order=order,
        order_gain=gain,
    )


def _statistics(array: NDArray[Any]) -> ChannelStatistics:
    return ChannelStatistics(float(array.mean()), float(array.std()))


def _certainty(calibration: NDArray[Any], evaluation: NDArray[Any]) -> float:
    """How many standard errors the means, or the deviations, of samples are apart."""
    found = []
    for measure in ("mean", "std"):
        ours = [
            getattr(array.reshape(len(array), -1), measure)(axis=1)
            for array in (calibration, evaluation)
        ]
        # Few calibration samples tell little of their own spread; the evaluation samples' will do.
        error = float(ours[1].std()) * (1 / len(ours[0]) + 1 / len(ours[1])) ** 0.5
        found.append(abs(float(ours[0].mean() - ours[1].mean())) / (error or 1e-30))
    return min(max(found), 1e6)


def _distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest difference of two cumulative distributions, at the quantiles of both."""
    import numpy as np

    first, second = (
        np.sort(each.reshape(-1)[:: max(1, each.size // 20000)]) for each in (one, other)
    )
    # Between the values, where rounding of the fit does not move them across an edge.
    edges = np.linspace(min(first[0], second[0]), max(first[-1], second[-1]), 34)[1:-1]
    shares = [np.searchsorted(each, edges) / len(each) for each in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def _order(
    calibration: NDArray[Any], evaluation: NDArray[Any]
) -> tuple[tuple[int, ...] | None, float]:
    """The order of the evaluation's channels that is closest to the calibration's, if it is
    clearly another one than their own, and how many times closer.

    Where channels are normalised each by its own constants, the swap came before that, so the
    usual constants are taken off first.
    """
    found: list[tuple[float, tuple[int, ...]]] = []
    for mean, deviation in _NORMALISED[: 2 if evaluation.shape[1] == len(_MEAN) else 1]:
        shape = (1, -1, *[1] * (evaluation.ndim - 2))
        pair = (
            each * _constants(deviation, shape) + _constants(mean, shape) if mean else each
            for each in (calibration, evaluation)
        )
        found.append(_closest(*pair))
    gain, order = max(found)
    return (order, gain) if gain > 1 else (None, 1.0)


def _closest(calibration: NDArray[Any], evaluation: NDArray[Any]) -> tuple[float, tuple[int, ...]]:
    """How many times closer the best order is, 1 if it is their own, and that order."""
    import numpy as np

    colours = [_colour(each) for each in (calibration, evaluation)]
    had, has = (each.mean(axis=0) for each in colours)
    error = colours[1].std(axis=0) * np.sqrt(1 / len(colours[0]) + 1 / len(colours[1])) + 1e-9
    own = np.abs(had - has)
    orders = list(itertools.permutations(range(len(has))))
    distances = [float(np.abs(had - has[list(order)]).max()) for order in orders]
    best = int(np.argmin(distances))
    if (own / error).max() < _CERTAIN or own.max() < _NOTABLE * float(evaluation.std()):
        best = 0
    return distances[0] / max(distances[best], 1e-6), orders[best]


def _colour(array: NDArray[Any]) -> NDArray[Any]:
    """(samples, channels, 2): mean and deviation of each channel less those of all channels, which
    differ less from sample to sample than the channels themselves."""
    import numpy as np

    flat = array.reshape(*array.shape[:2], -1)
    both = np.stack([flat.mean(axis=2), flat.std(axis=2)], axis=2)
    colour: NDArray[Any] = both - both.mean(axis=1, keepdims=True)
    return colour


def _constants(values: tuple[float, ...], shape: tuple[int, ...]) -> NDArray[Any]:
    """Constants of the channels, shaped to broadcast."""
    import numpy as np

    return np.array(values).reshape(shape)


_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NORMALISED = (((), ()), (_MEAN, _DEVIATION))
"""None, and that of ImageNet."""
_CERTAIN = 4.0
"""Standard errors by which the channels must differ for their order to show."""
_NOTABLE = 0.05
"""Share of the input's deviation by which they must differ."""
