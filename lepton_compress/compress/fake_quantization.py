"""Arithmetic of a quantised network in floats, with gradients, as ONNX's QuantizeLinear and
DequantizeLinear define it: levels are `clamp(round_half_even(x / scale) + zero)`.

Rounding passes gradients on as they are; steps get theirs as Esser et al. derive them (LSQ, 2020),
and zero points likewise (Bhalgat et al., LSQ+, 2020). Learned are not the steps but the logarithms
of the ranges' ends, so that an update of Adam is relative to what it changes (Jain et al., 2020).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lepton_compress.compress.calibration import with_zero

if TYPE_CHECKING:
    from collections.abc import Callable

    from lepton_compress.compress.observed import Range

LEVELS = 255
"""Steps between the ends of an activation's range."""
PACE = 10.0
"""How much faster than weights the logarithms of ranges are learned."""
_NEW = 0.01
"""Share of a new batch in a moving average."""
_SMALLEST = 1e-10
"""Of a weight's scale: a channel of zeros has one, too."""
_DEAD = 1e-6
"""What folding multiplies a channel with that gives nothing."""
_INT32 = 2**31 - 1


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, given: Tensor, scale: Tensor, zero: Tensor, lowest: int, highest: int
    ) -> Tensor:
        steps = given / scale
        levels = steps.round() + zero
        inside = (levels >= lowest) & (levels <= highest)
        levels = levels.clamp_(lowest, highest) - zero
        ctx.save_for_backward(steps, levels, inside, scale, zero)
        ctx.top = max(abs(lowest), highest)
        return levels * scale

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        steps, levels, inside, scale, zero = ctx.saved_tensors
        # LSQ's factor keeps the updates of a step in proportion to those of weights.
        factor = 1 / math.sqrt(ctx.top * steps.numel() / scale.numel())
        by_scale = by_zero = None
        if ctx.needs_input_grad[1]:
            slope = torch.where(inside, levels - steps, levels)
            by_scale = (grad * slope).sum_to_size(scale.shape) * factor
        if ctx.needs_input_grad[2]:
            beyond = torch.where(inside, 0.0, -grad)
            by_zero = (beyond * scale).sum_to_size(zero.shape) * factor
        return grad * inside, by_scale, by_zero, None, None


def fake_quantize(given: Tensor, scale: Tensor, zero: Tensor, lowest: int, highest: int) -> Tensor:
    """Round to levels and back.

    Args:
        given: float32 of any shape.
        scale, zero: broadcast against `given`; zero holds whole numbers. Both float32.
        lowest, highest: the levels' ends.
    """
    made: Tensor = _FakeQuantize.apply(given, scale, zero, lowest, highest)  # type: ignore[no-untyped-call]
    return made


class ActivationRange(nn.Module):
    """The range of one activation: asymmetric, 256 levels, zero among them.

    Args:
        first: the range to start from; holds zero.
        bounds: what the range must not leave: a clipping operator that the artifact does without
            is replaced by the ends of the range.
        learned: train the ends; else they follow a moving average of each batch's.
    """

    low: Tensor
    high: Tensor
    limits: Tensor

    def __init__(self, first: Range, bounds: Range, *, learned: bool) -> None:
        super().__init__()
        low, high = with_zero((max(first[0], bounds[0]), min(first[1], bounds[1])))
        self.bounds = bounds
        self.learned = learned
        self.frozen = False
        self.register_buffer("low", torch.tensor(low))
        self.register_buffer("high", torch.tensor(high))
        # How far the ends may grow, as logarithms.
        grown = [
            math.log(b / e) if e and b / e < math.inf else math.inf
            for b, e in zip(bounds, (low, high), strict=True)
        ]
        self.register_buffer("limits", torch.tensor(grown) / PACE)
        self.growth = nn.Parameter(torch.zeros(2), requires_grad=learned)

    def forward(self, given: Tensor) -> Tensor:
        if self.training and not self.frozen and not self.learned:
            self._observe(given)
        return self.rounded(given)

    def rounded(self, given: Tensor) -> Tensor:
        """The values, rounded over the range as it is."""
        scale, zero = self._step()
        return fake_quantize(given, scale, zero, 0, LEVELS)

    def _observe(self, given: Tensor) -> None:
        ends = torch.aminmax(given.detach())
        with torch.no_grad():
            self.low.lerp_(ends.min.clamp(self.bounds[0], 0), _NEW)
            self.high.lerp_(ends.max.clamp(0, self.bounds[1]), _NEW)

    def _step(self) -> tuple[Tensor, Tensor]:
        low, high = self.low, self.high
        if self.learned:
            with torch.no_grad():
                self.growth.copy_(torch.minimum(self.growth, self.limits))
            factors = torch.exp(PACE * self.growth)
            low, high = low * factors[0], high * factors[1]
        scale = (high - low) / LEVELS
        zero = -low / scale
        return scale, zero + (zero.round() - zero).detach()

    def step(self) -> tuple[float, int]:
        """Scale, exactly a float32, and the unsigned zero point."""
        with torch.no_grad():
            scale, zero = self._step()
        return scale.item(), int(zero.item())


class SharedRange(nn.Module):
    """Rounds over the range of another value, without a say in it."""

    def __init__(self, range_: ActivationRange) -> None:
        super().__init__()
        self.range = range_

    def forward(self, given: Tensor) -> Tensor:
        return self.range.rounded(given)


class WeightStep(nn.Module):
    """Symmetric levels of a weight whose first axis is the output channels.

    The largest magnitude is the last level; where steps are learned, so is how much of it to clip.
    """

    def __init__(self, weight: Tensor, bits: int, *, per_channel: bool, learned: bool) -> None:
        super().__init__()
        self.largest = 2 ** (bits - 1) - 1
        self.axes = list(range(1 if per_channel else 0, weight.ndim))
        self.learned = learned
        shape = weight.detach().amax(self.axes, keepdim=True).shape
        self.growth = nn.Parameter(torch.zeros(shape), requires_grad=learned)

    def scale(self, weight: Tensor) -> Tensor:
        """As many as there are channels, or one; shaped to broadcast against the weight."""
        top = weight.detach().abs().amax(self.axes, keepdim=True)
        scale: Tensor = (top / self.largest).clamp(min=_SMALLEST)
        if not self.learned:
            return scale
        with torch.no_grad():
            self.growth.clamp_(max=0)  # beyond the largest magnitude nothing is gained
        return scale * torch.exp(PACE * self.growth)

    def forward(self, weight: Tensor, scale: Tensor) -> Tensor:
        return fake_quantize(weight, scale, torch.zeros_like(scale), -self.largest, self.largest)


def scaled(weight: Tensor, factor: Tensor) -> Tensor:
    """A weight with each output channel, its first axis, multiplied."""
    return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))


class Norm(nn.Module):
    """What a batch normalisation holds. Its tensors are those of the network itself."""

    gain: Tensor | None
    shift: Tensor | None
    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        gain: Tensor | None,
        shift: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        momentum: float,
        epsilon: float,
    ) -> None:
        super().__init__()
        self.gain, self.shift, self.mean, self.variance = gain, shift, mean, variance
        self.momentum, self.epsilon = momentum, epsilon

    def factor(self) -> Tensor:
        """What folding multiplies each channel with, by the running statistics."""
        deviation = torch.sqrt(self.variance.detach() + self.epsilon)
        return torch.reciprocal(deviation) if self.gain is None else self.gain / deviation

    def by_batch(self, given: Tensor) -> Tensor:
        """Normalise by the batch's own statistics, and let the running ones follow."""
        made: Tensor = functional.batch_norm(
            given,
            self.mean,
            self.variance,
            self.gain,
            self.shift,
            True,
            self.momentum,
            self.epsilon,
        )
        return made


class Layer(nn.Module):
    """A convolution or dense layer with its batch normalisation, computed as the artifact will.

    The weight is folded before it is rounded. While statistics are still gathered the outcome is
    unfolded and normalised by its batch (Krishnamoorthi, 2018, "Quantizing deep convolutional
    networks for efficient inference"); after that bias and shift are folded as well.

    Args:
        compute: from (given, weight, bias) to what the layer gives, channels in axis 1, or in the
            last for `dense`.
        weight, bias: of the network itself.
        norm: the batch normalisation behind it.
        step: of the folded weight.
    """

    weight: Tensor
    bias: Tensor | None
    norm: Norm | None
    step: WeightStep
    settled: tuple[Tensor, Tensor, Tensor | None] | None

    def __init__(
        self,
        compute: Callable[[Tensor, Tensor, Tensor | None], Tensor],
        weight: Tensor,
        bias: Tensor | None,
        norm: Norm | None,
        step: WeightStep,
    ) -> None:
        super().__init__()
        self.compute = compute
        self.weight, self.bias, self.norm, self.step = weight, bias, norm, step
        self.frozen = False
        self.settled = None
        self.input_scale: Callable[[], float] = lambda: 0.0

    def takes(self, given: ActivationRange) -> None:
        """Say what rounds the input: the bias is rounded to its scale times the weight's."""
        self.input_scale = lambda: given.step()[0]

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias without a batch normalisation."""
        if self.norm is None:
            return self.weight, self.bias
        factor = self.norm.factor()
        bias = -self.norm.mean if self.bias is None else self.bias - self.norm.mean
        shift = 0.0 if self.norm.shift is None else self.norm.shift
        return scaled(self.weight, factor), bias * factor + shift

    def _scale(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The weight's scale, as large as the bias needs to fit into 32 bits."""
        scale = self.step.scale(weight)
        if bias is None or not self.input_scale():
            return scale
        reach = bias.detach().abs().reshape(-1, *[1] * (weight.ndim - 1))
        if scale.numel() == 1:
            reach = reach.max()
        return scale.maximum(reach * (1.001 / (_INT32 * self.input_scale())))

    def _rounded_bias(self, bias: Tensor, scale: Tensor) -> Tensor:
        step = scale.detach().reshape(-1) * self.input_scale()
        if not self.input_scale():
            return bias
        return bias + ((bias / step).round() * step - bias).detach()

    def forward(self, given: Tensor) -> Tensor:
        if self.settled is not None:
            integers, scale, bias = self.settled
            bias = None if bias is None else self._rounded_bias(bias, scale)
            return self.compute(given, integers * scale, bias)
        if self.norm is None or self.frozen or not self.training:
            weight, bias = self.folded()
            scale = self._scale(weight, bias)
            bias = None if bias is None else self._rounded_bias(bias, scale)
            return self.compute(given, self.step(weight, scale), bias)
        factor = self.norm.factor()
        # A channel that starts with no gain shall learn one: it is not folded yet.
        factor = torch.where(factor.abs() < _DEAD, torch.ones_like(factor), factor)
        weight = scaled(self.weight, factor)
        made = self.compute(given, self.step(weight, self.step.scale(weight)), None)
        shape = (1, -1, *[1] * (made.ndim - 2))
        made = made / factor.reshape(shape)
        if self.bias is not None:
            made = made + self.bias.reshape(shape)
        return self.norm.by_batch(made)

    @torch.no_grad()
    def settle(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Fix the integers and what goes with them: (integers, scale, bias), float32. The bias is
        not rounded yet."""
        weight, bias = self.folded()
        weight, bias = weight.detach(), None if bias is None else bias.detach()
        scale = self._scale(weight, bias).detach()
        integers = (weight / scale).round().clamp(-self.step.largest, self.step.largest)
        self.settled = (integers, scale, bias)
        return self.settled
