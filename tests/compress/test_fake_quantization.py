"""The arithmetic of training against the operators of ONNX as ONNX Runtime computes them."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import nn
from torch.nn import functional

from lepton_compress.compress.fake_quantization import (
    LEVELS,
    ActivationRange,
    Layer,
    Norm,
    WeightStep,
    fake_quantize,
)

INFINITE = (-np.inf, np.inf)
KINDS = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}
ENDS = {"uint8": (0, 255), "int8": (-128, 127)}


@functools.cache
def operators(kind: str) -> onnxruntime.InferenceSession:
    """QuantizeLinear and DequantizeLinear, one after the other."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pair",
        [
            value("x", TensorProto.FLOAT, ["n"]),
            value("scale", TensorProto.FLOAT, []),
            value("zero", KINDS[kind], []),
        ],
        [value("q", KINDS[kind], ["n"]), value("y", TensorProto.FLOAT, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def computed(x: np.ndarray, scale: float, zero: int, kind: str) -> np.ndarray:
    """What ONNX Runtime makes of it."""
    feeds = {"x": x, "scale": np.array(scale, np.float32), "zero": np.array(zero, kind)}
    made: np.ndarray = operators(kind).run(["y"], feeds)[0]
    return made


class TestFakeQuantize:
    @pytest.mark.parametrize("kind", KINDS)
    @given(data=st.data())
    def test_is_bit_for_bit_what_the_runtime_does(self, kind: str, data: Any) -> None:
        low, high = ENDS[kind]
        scale = data.draw(st.floats(2.0**-20, 2.0**10, width=32))
        zero = data.draw(st.integers(low, high))
        # Halves of a step among them, where rounding decides, and values beyond the range.
        steps = st.one_of(
            st.floats(-400, 400, width=32), st.integers(-800, 800).map(lambda n: n / 2)
        )
        x = (np.array(data.draw(st.lists(steps, min_size=1, max_size=40))) * scale).astype("f4")
        made = fake_quantize(
            torch.from_numpy(x), torch.tensor(scale), torch.tensor(float(zero)), low, high
        )
        np.testing.assert_array_equal(made.numpy(), computed(x, scale, zero, kind))

    def test_gradients_are_those_of_learned_step_sizes(self) -> None:
        x = torch.tensor([0.26, -5.0, 40.0], requires_grad=True)
        scale = torch.tensor(0.1, requires_grad=True)
        zero = torch.tensor(10.0, requires_grad=True)
        fake_quantize(x, scale, zero, 0, LEVELS).sum().backward()  # type: ignore[no-untyped-call]
        factor = 1 / np.sqrt(3 * LEVELS)
        assert x.grad is not None
        assert scale.grad is not None
        assert zero.grad is not None
        assert x.grad.tolist() == [1, 0, 0]
        # Inside: what rounding added, in steps; outside: the level at that end.
        assert scale.grad.item() == pytest.approx(factor * ((3 - 2.6) - 10 + 245), rel=1e-4)
        assert zero.grad.item() == pytest.approx(factor * 2 * -0.1, rel=1e-4)

    def test_each_channel_has_its_own_step(self) -> None:
        weight = torch.tensor([[0.3, -1.0], [30.0, 100.0]])
        scale = torch.tensor([[0.01], [1.0]], requires_grad=True)
        made = fake_quantize(weight, scale, torch.zeros(2, 1), -127, 127)
        torch.testing.assert_close(made.detach(), weight)
        made.sum().backward()  # type: ignore[no-untyped-call]
        assert scale.grad is not None
        assert scale.grad.shape == (2, 1)


class TestActivationRange:
    @pytest.mark.parametrize("learned", [True, False])
    @example(low=0.0, high=1.2891945871788317e-43, growth=(0.0, 0.0))
    @given(
        low=st.floats(-1e3, 0, width=32),
        high=st.floats(0, 1e3, width=32),
        growth=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
    )
    def test_zero_is_exact_and_the_step_is_what_it_computes_with(
        self, learned: bool, low: float, high: float, growth: tuple[float, float]
    ) -> None:
        held = ActivationRange((low, high), INFINITE, learned=learned).eval()
        held.growth.data = torch.tensor(growth)
        scale, zero = held.step()
        assert 0 <= zero <= LEVELS
        x = torch.linspace(2 * low - 1, 2 * high + 1, 99)
        with torch.no_grad():
            made = held(torch.cat([x, torch.zeros(1)]))
        assert made[-1] == 0
        wanted = computed(np.append(x.numpy(), np.float32(0)), scale, zero, "uint8")
        np.testing.assert_array_equal(made.numpy(), wanted)

    def test_it_learns_to_hold_what_it_clips(self) -> None:
        held = ActivationRange((0.0, 1.0), INFINITE, learned=True)
        x = torch.rand(512, generator=torch.Generator().manual_seed(0)) * 3
        optimizer = torch.optim.Adam(held.parameters(), lr=3e-3)
        for _ in range(80):
            optimizer.zero_grad()
            functional.mse_loss(held(x), x).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        scale, zero = held.step()
        assert zero == 0
        assert 2.8 < LEVELS * scale < 3.2

    def test_it_does_not_leave_its_bounds(self) -> None:
        held = ActivationRange((-4.0, 9.0), (0.0, 6.0), learned=True)
        held.growth.data.fill_(1.0)
        scale, zero = held.step()
        assert zero == 0
        assert pytest.approx(6.0) == LEVELS * scale

    def test_observed_ends_follow_until_they_are_frozen(self) -> None:
        held = ActivationRange((-1.0, 1.0), INFINITE, learned=False).train()
        held(torch.tensor([-3.0, 5.0]))
        assert [held.low.item(), held.high.item()] == pytest.approx([-1.02, 1.04])
        held.frozen = True
        held(torch.tensor([-9.0, 9.0]))
        assert held.high.item() == pytest.approx(1.04)
        held.frozen = False
        held.eval()(torch.tensor([-9.0, 9.0]))
        assert held.high.item() == pytest.approx(1.04)


def layer_of(net: nn.Sequential, *, learned: bool = False, bits: int = 8) -> Layer:
    conv: Any = net[0]
    norm: Any = net[1]
    step = WeightStep(conv.weight, bits, per_channel=True, learned=learned)
    held = Norm(norm.weight, norm.bias, norm.running_mean, norm.running_var, 0.1, norm.eps)
    compute: Any = functools.partial(functional.conv2d, padding=1)
    return Layer(compute, conv.weight, conv.bias, held, step)


def net_of(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4))
    norm: Any = net[1]
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    return net


class TestLayer:
    X = torch.randn(16, 2, 6, 6, generator=torch.Generator().manual_seed(1))

    def test_inference_is_the_folded_network_but_for_rounding(self) -> None:
        net = net_of().eval()
        with torch.no_grad():
            wanted, made = net(self.X), layer_of(net).eval()(self.X)
        assert 0 < (wanted - made).abs().max() < 0.02 * wanted.abs().max()

    def test_training_normalises_by_the_batch_and_moves_the_statistics(self) -> None:
        net, other = net_of().train(), net_of().train()
        layer = layer_of(net).train()
        before = layer.norm.mean.clone()  # type: ignore[union-attr]
        with torch.no_grad():
            wanted, made = other(self.X), layer(self.X)
        assert (wanted - made).abs().max() < 0.02 * wanted.abs().max()
        assert not torch.equal(layer.norm.mean, before)  # type: ignore[union-attr]
        torch.testing.assert_close(net[1].running_mean, other[1].running_mean, atol=0.01, rtol=0.01)

    def test_frozen_it_trains_as_it_infers(self) -> None:
        layer = layer_of(net_of()).train()
        layer.frozen = True
        before = layer.norm.mean.clone()  # type: ignore[union-attr]
        made = layer(self.X)
        assert torch.equal(layer.norm.mean, before)  # type: ignore[union-attr]
        assert torch.equal(made, layer.eval()(self.X))

    def test_a_channel_without_gain_trains(self) -> None:
        net = net_of().train()
        norm: Any = net[1]
        norm.weight.data[0] = 0
        layer = layer_of(net, learned=True).train()
        made = layer(self.X)
        made.sum().backward()
        assert torch.isfinite(made).all()
        assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)

    @pytest.mark.parametrize("bits", [7, 8])
    def test_settled_it_computes_the_same_with_integers(self, bits: int) -> None:
        layer = layer_of(net_of(), learned=True, bits=bits).eval()
        layer.takes(ActivationRange((-4.0, 4.0), INFINITE, learned=True))
        with torch.no_grad():
            before = layer(self.X)
            integers, scale, bias = layer.settle()
            after = layer(self.X)
        assert torch.equal(before, after)
        largest = 2 ** (bits - 1) - 1
        assert integers.abs().amax((1, 2, 3)).tolist() == [largest] * 4
        assert scale.shape == (4, 1, 1, 1)
        assert bias is not None

    def test_a_bias_that_is_large_for_its_weights_fits_32_bits(self) -> None:
        net = net_of()
        conv: Any = net[0]
        conv.weight.data[1] *= 1e-12
        layer = layer_of(net).eval()
        held = ActivationRange((-4.0, 4.0), INFINITE, learned=True)
        layer.takes(held)
        _, scale, bias = layer.settle()
        assert bias is not None
        levels = bias / (scale.reshape(-1) * held.step()[0])
        assert levels.abs().max() < 2**31
