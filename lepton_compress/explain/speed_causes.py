"""Causes of a missing speed-up, and of bytes that quantisation left behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lepton_compress.accounts import INT8, Account, Finding, NodeAccount
from lepton_compress.units import show_bytes, show_seconds

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_RECURRENT = ("GRU", "LSTM", "RNN")
_BORDERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
_SAME = 0.9
"""A share of the float latency above which there is no speed-up to speak of."""
_NEAR = 2.5
"""Times the floor up to which a kernel mostly costs its call."""
_DISPATCH = 6e-6
"""Seconds up to which it does so on any machine of today, as the profiler tells them."""


def speed(account: Account) -> str:
    """The speed-up, as a clause."""
    return (
        f"{show_seconds(account.latency)} a call against {show_seconds(account.reference_latency)} "
        "in float"
    )


def slow(account: Account) -> bool:
    """Whether the speed-up is missing."""
    return account.latency > _SAME * account.reference_latency


def norm_not_folded(account: Account) -> Finding | None:
    """Batch normalisation that is computed as such."""
    left = [
        node
        for node in account.nodes
        if node.operator == "BatchNormalization"
        and node.precision not in (INT8, "folded")
        and set(node.follows) & {"Conv", "ConvTranspose", "Gemm", "MatMul"}
    ]
    if not left:
        return None
    return Finding(
        "norm_not_folded",
        "speed",
        "batch normalisation is not folded into the convolution before it",
        f"{_count(left, 'node')} in {left[0].precision} behind {left[0].follows[0]}, the first "
        f"{left[0].name}; with the borders around {_share_of(account, left)} of the time; "
        f"{speed(account)}",
        "fold it before quantising (simplify the float graph, or export in evaluation mode)",
        0.93,
    )


def float_island(account: Account) -> Finding | None:
    """Operators that run in float between integer ones."""
    known = ("BatchNormalization", *_RECURRENT)
    left = [node for node in account.nodes if node.split and node.operator not in known]
    if not left:
        return None
    share = _cost(account, left)
    kinds = sorted({node.operator for node in left})
    return Finding(
        "float_island",
        "speed",
        f"{', '.join(kinds)} in float splits the integer graph",
        f"{_count(left, 'node')} in float between integers, the first {left[0].name} "
        f"({left[0].why_not}); with the borders around "
        f"{_percent(share)} of the time; {speed(account)}",
        _island_mend(left),
        0.9 if share > 0.1 else 0.45,
    )


def _island_mend(left: Sequence[NodeAccount]) -> str:
    if any("no int8 kernel" in node.why_not for node in left):
        return "exchange it for an operator with an int8 kernel, such as Relu, and fine-tune"
    return "quantise it too, so that its neighbours need no borders"


def signed_activations(account: Account) -> Finding | None:
    """int8 activations where the kernels want uint8."""
    signed = [each for each in account.ranges if each.dtype == "int8"]
    if account.machine not in ("x86_64", "AMD64") or not signed:
        return None
    left = [n for n in account.nodes if n.operator in _WEIGHTED and n.precision != INT8]
    islands = [node for node in account.nodes if node.split]
    slow_kernels = [each for each in account.kernels if each.dtype.startswith("int8")]
    if not (left or islands or slow_kernels):
        return None  # the runtime could shift all of them to uint8 while loading
    borders = _borders(account)
    return Finding(
        "signed_activations",
        "speed",
        "activations are int8, for which x86 has no fast kernels",
        f"{len(signed)} of {len(account.ranges)} activations are int8; "
        f"{_count(left, 'weighted node')} and {_count(islands, 'node')} between integer ones run "
        f"in float; quantise and dequantise nodes take {_percent(borders)} of the time; "
        f"{speed(account)}",
        "quantise activations as uint8 (activations: uint8)",
        0.92,
    )


def dynamic_convolutions(account: Account) -> Finding | None:
    """Convolutions whose activations are quantised anew in each call."""
    dynamic = [node for node in account.nodes if node.operator == "ConvInteger"]
    if not dynamic:
        return None
    around = sum(each.share for each in account.kernels if each.operator == "DynamicQuantizeLinear")
    share = _cost(account, dynamic, borders=False)
    return Finding(
        "dynamic_convolutions",
        "speed",
        "the convolutions are quantised dynamically",
        f"{len(dynamic)} run as ConvInteger, which takes {_percent(share)} of the time, and "
        f"finding ranges in each call {_percent(around)}; {speed(account)}",
        "quantise statically, with calibration data (step quantize)",
        0.94,
    )


def recurrent_in_float(account: Account) -> Finding | None:
    """Recurrent layers that static quantisation has left alone."""
    left = [n for n in account.nodes if n.operator in _RECURRENT and n.precision != INT8]
    if not left or not any(node.precision == INT8 for node in account.nodes):
        return None
    weights = sum(node.weight.bytes for node in left if node.weight)
    mend = "keep the cost in mind, or unroll a single step"
    if any(node.operator == "LSTM" for node in left):
        mend = (
            "quantise LSTM dynamically (DynamicQuantizeLSTM), which pays from 256 hidden units on"
        )
    return Finding(
        "recurrent_in_float",
        "speed",
        f"{', '.join(sorted({node.operator for node in left}))} runs in float",
        f"{_count(left, 'recurrent layer')}, the first {left[0].name}: "
        f"{_share_of(account, left)} of the time and {show_bytes(weights)} of float weights "
        f"({left[0].why_not}); {speed(account)}",
        mend,
        0.9,
    )


def overhead(account: Account) -> Finding | None:
    """A model so small that calls and borders, not sums, take the time."""
    limit = max(_NEAR * account.floor, _DISPATCH)
    idle = [each for each in account.kernels if each.seconds / each.calls <= limit]
    calls, near = sum(each.calls for each in account.kernels), sum(each.calls for each in idle)
    share = sum(each.share for each in idle)
    if share < 0.5 or near < 0.6 * calls:
        return None
    return Finding(
        "overhead",
        "speed",
        "the model is too small to gain: calls of kernels take the time",
        f"{near} of {calls} kernels, {_percent(share)} of the time, take no more than "
        f"{show_seconds(limit)}, where one with nothing to do takes {show_seconds(account.floor)}; "
        f"quantise and dequantise nodes take {_percent(_borders(account))}; {speed(account)}",
        "keep it in float, run several samples at once, or merge layers",
        0.62 if slow(account) else 0.4,
    )


def nothing_quantised(account: Account) -> Finding | None:
    """An artifact without a single integer node."""
    weighted = [node for node in account.nodes if node.operator in (*_WEIGHTED, *_RECURRENT)]
    whole = any(node.precision == INT8 for node in account.nodes)
    if whole or not weighted or any(n.operator == "MatMulNBits" for n in account.nodes):
        return None
    kinds = sorted({node.why_not for node in weighted})
    return Finding(
        "nothing_quantised",
        "speed",
        "nothing runs in int8",
        f"0 of {len(weighted)} weighted nodes do: {'; '.join(kinds)}; {speed(account)}",
        "quantise it (step quantize), or take it as the float model that it is",
        0.8,
    )


def tied_weight(account: Account) -> Finding | None:
    """A tensor that layers share and that stayed float, or stands there twice."""
    if not account.shared:
        return None
    worst = account.shared[0]
    twice = f", though its values also stand there as int8 ({worst.copy})" if worst.copy else ""
    return Finding(
        "tied_weight_float",
        "size",
        f"the tied weight {worst.tensor} is left float",
        f"{show_bytes(worst.bytes)}, {_percent(worst.share)} of all weights, are float32 on disk "
        f"and serve {', '.join(worst.users[:3])}{twice}",
        "quantise the gather too (weight only), so that both take the same int8 tensor",
        0.86 if worst.share > 0.05 else 0.5,
    )


def _cost(account: Account, nodes: Sequence[NodeAccount], *, borders: bool = True) -> float:
    """Share of the kernels' time that nodes take, with the borders around them."""
    total = sum(each.seconds for each in account.kernels) or 1.0
    own = sum(node.seconds or 0.0 for node in nodes)
    around = sum(node.border_seconds for node in nodes) if borders else 0.0
    return min(1.0, (own + around) / total)


def _share_of(account: Account, nodes: Sequence[NodeAccount]) -> str:
    return _percent(_cost(account, nodes))


def _borders(account: Account) -> float:
    return sum(each.share for each in account.kernels if each.operator in _BORDERS)


def _count(found: Sequence[object], noun: str) -> str:
    return f"{len(found)} {noun}" + ("" if len(found) == 1 else "s")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


SPEED: tuple[Callable[[Account], Finding | None], ...] = (
    norm_not_folded,
    float_island,
    signed_activations,
    dynamic_convolutions,
    recurrent_in_float,
    nothing_quantised,
    overhead,
    tied_weight,
)
