"""Causes of lost accuracy."""

from __future__ import annotations

from collections.abc import Callable

from lepton_compress.accounts import POOR_DB, Account, Finding, NodeAccount, RangeAccount

_SPREAD = 6.0
"""Times that a channel may be larger than the median one before one scale for both is poor."""
_CERTAIN = 4.0
"""Standard errors."""
_ALIKE = 0.15
"""Distance of two distributions below which they have the same shape."""
_FACTOR = 1.25
_SHIFT = 0.25
_CLIPPED = 1e-3
_MANY = 0.5
"""Share of the ranges from which on it is no matter of a single one, if they are `_SEVERAL`."""
_SEVERAL = 3
_FEW_SAMPLES = 32
_BITS_16 = 1e-5
_FULL_RANGE = 64
"""Weights up to this magnitude cannot saturate: 2 * 255 * 64 is below 2^15."""
_DOT = {"avx_vnni", "avx512_vnni", "amx_int8", "i8mm", "asimddp"}
_PAIRS = {"avx2", "avx512f"}


def suffers(account: Account) -> bool:
    """Whether the outputs show it: little signal over the noise, or changed decisions."""
    poor = account.output_db is not None and account.output_db < POOR_DB
    return poor or bool(account.changed and account.changed > 0.02)


def outcome(account: Account) -> str:
    """What the outputs lose, as a clause."""
    parts = []
    if account.output_db is not None:
        parts.append(f"the outputs keep {account.output_db:.1f} dB")
    if account.changed is not None:
        parts.append(f"{_percent(account.changed)} of the decisions change")
    return " and ".join(parts)


def calibration_normalised_differently(account: Account) -> Finding | None:
    """The calibration data are the evaluation data, scaled or shifted."""
    for each in account.inputs:
        shift = abs(each.calibration.mean - each.evaluation.mean)
        moved = shift > _SHIFT * max(each.evaluation.deviation, each.calibration.deviation)
        scaled = not 1 / _FACTOR < abs(each.factor) < _FACTOR
        if each.certainty < _CERTAIN or not (moved or scaled) or each.shape_distance > 3 * _ALIKE:
            continue
        return Finding(
            "calibration_normalised_differently",
            "accuracy",
            f"the calibration data of {each.name} are normalised differently",
            f"mean {each.calibration.mean:.3g} and deviation {each.calibration.deviation:.3g} in "
            f"calibration, {each.evaluation.mean:.3g} and {each.evaluation.deviation:.3g} in "
            f"evaluation: calibration = {each.factor:.3g} x evaluation {each.offset:+.3g}; "
            f"{outcome(account)}",
            "prepare both by the same code, and calibrate again",
            0.97 if each.shape_distance <= _ALIKE else 0.9,
        )
    return _input_range(account)


def _input_range(account: Account) -> Finding | None:
    """Without calibration data: the input's range is not that of the data."""
    for each in account.ranges:
        if not each.is_input or each.calibrated is not None:
            continue
        span = each.range[1] - each.range[0]
        used = (each.seen[1] - each.seen[0]) / span
        if each.beyond < 0.1 and used > 0.25:
            continue
        return Finding(
            "calibration_normalised_differently",
            "accuracy",
            f"the range of the input {each.tensor} is not that of the data",
            f"values from {each.seen[0]:.3g} to {each.seen[1]:.3g} meet a range from "
            f"{each.range[0]:.3g} to {each.range[1]:.3g}: {_percent(each.beyond)} are clipped and "
            f"{_percent(min(used, 1.0))} of the range is used; {outcome(account)}",
            "normalise the calibration data as the data it meets in use, and calibrate again",
            0.92,
        )
    return None


def channel_order(account: Account) -> Finding | None:
    """The calibration data have the channels in another order."""
    for each in account.inputs:
        if each.order is None or each.order_gain < 2:
            continue
        reverse = each.order == tuple(reversed(range(len(each.order))))
        known = " (BGR for RGB)" if reverse and len(each.order) == 3 else ""
        had = ", ".join(f"{one.mean:.2f}" for one, _ in each.channels)
        has = ", ".join(f"{other.mean:.2f}" for _, other in each.channels)
        return Finding(
            "channel_order",
            "accuracy",
            f"the channels of {each.name} stand in another order in the calibration data{known}",
            f"channel means {had} in calibration, {has} in evaluation; in the order "
            f"{list(each.order)} they fit {each.order_gain:.0f} times closer; {outcome(account)}",
            "read both with the same channel order, and calibrate again",
            0.96 if each.order_gain > 3 else 0.88,
        )
    return None


def outlier_channel(account: Account) -> Finding | None:
    """A few channels need a range that leaves the others no steps."""
    poor = [
        each
        for each in account.ranges
        if each.channels > 2
        and each.spread > _SPREAD
        and each.median_channel_db is not None
        and each.median_channel_db < POOR_DB
        and each.clipping < 0.5
    ]
    if not poor:
        return None
    worst = min(poor, key=lambda each: each.median_channel_db or 0.0)
    return Finding(
        "outlier_channel",
        "accuracy",
        f"an outlier channel ruins the scale of {worst.tensor}",
        f"channel {worst.largest_channel} of {worst.channels} reaches "
        f"{max(map(abs, worst.seen)):.3g}, {worst.spread:.0f} times the median channel, which is "
        f"left with {worst.median_channel_db:.1f} dB{_others(poor)}; {outcome(account)}",
        "put the step smooth or equalize before the quantisation, calibrate by percentile "
        f"or squared error, or keep {_node(account, worst)} in float",
        0.9 if suffers(account) else 0.65,
    )


def per_tensor_weights(account: Account) -> Finding | None:
    """One weight scale for channels of very different magnitude."""
    poor = [
        node
        for node in account.nodes
        if node.weight is not None and not node.weight.per_channel and node.weight.poor_channels
    ]
    if not poor:
        return None
    worst = max(poor, key=lambda node: node.weight.poor_channels / node.weight.channels)  # type: ignore[union-attr]
    weight = worst.weight
    assert weight is not None  # noqa: S101 - as chosen above
    kind = "a depthwise convolution" if "depthwise" in worst.attributes else worst.operator
    return Finding(
        "per_tensor_weights",
        "accuracy",
        f"one scale for all channels of {kind}, {worst.name}",
        f"{weight.poor_channels} of {weight.channels} output channels keep less than "
        f"{POOR_DB:.0f} dB, the worst {weight.worst_channel_db:.1f} dB; the largest is "
        f"{weight.spread:.1f} times the median one; {outcome(account)}",
        "quantise weights per channel (per_channel: true)",
        0.92 if suffers(account) else 0.7,
    )


def clipped_range(account: Account) -> Finding | None:
    """A range ends before the values do, those of the calibration data included."""
    clipped = [each for each in account.ranges if _is_clipped(each)]
    if not clipped:
        return None
    worst = max(clipped, key=lambda each: each.beyond)
    known = ""
    if worst.beyond_calibrated is not None:
        known = f", and {_percent(worst.beyond_calibrated)} of the calibration data's"
    return Finding(
        "clipped_range",
        "accuracy",
        f"the range of {worst.tensor} is clipped",
        f"values reach {_reach(worst)}: {_percent(worst.beyond)} are clipped{known}"
        f"{_others(clipped)}; {outcome(account)}",
        "calibrate by minmax or a wider percentile; check the scale if it was set by hand",
        0.9 if suffers(account) else 0.6,
    )


def _is_clipped(each: RangeAccount) -> bool:
    return each.beyond > _CLIPPED and each.clipping > 0.5 and (each.sqnr_db or 0.0) < 25


def few_calibration_samples(account: Account) -> Finding | None:
    """The evaluation data leave ranges that the calibration data did not."""
    if not account.ranges:
        return None
    over = [
        each
        for each in account.ranges
        if each.overshoot > 1.05 and (each.beyond_calibrated or 0.0) < each.beyond / 5
    ]
    far = max(over, key=lambda each: each.overshoot, default=None)
    # A range that is handed on, as through MaxPool, is one.
    left = len({each.range for each in over})
    broad = left >= max(_SEVERAL, _MANY * len({each.range for each in account.ranges}))
    count = account.calibration_samples
    few = count is not None and count < _FEW_SAMPLES
    if far is None or not broad or not (few or (far.overshoot > 1.25 and far.beyond > _CLIPPED)):
        return None
    said = f"from {count} samples" if count is not None else "from too few samples"
    return Finding(
        "few_calibration_samples",
        "accuracy",
        "too few calibration samples, or samples unlike the evaluation data",
        f"{len(over)} of {len(account.ranges)} ranges, taken {said}, are left by the evaluation "
        f"data; {far.tensor} reaches {_reach(far)}, {_percent(far.beyond)} are clipped; "
        f"{outcome(account)}",
        "calibrate on at least 100 samples drawn like the evaluation data",
        (0.93 if suffers(account) else 0.85) if few else 0.75,
    )


def dead_channel(account: Account) -> Finding | None:
    """Channels or tensors that never vary."""
    flat = [each for each in account.ranges if each.constant == each.channels > 0]
    if flat:
        return Finding(
            "dead_channel",
            "accuracy",
            f"{flat[0].tensor} never varies",
            f"all {flat[0].channels} channels hold one value, {flat[0].seen[0]:.3g}, on "
            f"{account.samples} samples, so that its range says nothing; {outcome(account)}",
            "check the layers before it; remove what computes a constant",
            0.9,
        )
    dead = [node for node in account.nodes if node.weight is not None and node.weight.dead]
    if dead:
        return _dead_weights(dead)
    still = [each for each in account.ranges if each.constant and each.channels > 2]
    if not still:
        return None
    worst = max(still, key=lambda each: each.constant / each.channels)
    return Finding(
        "dead_channel",
        "size",
        f"{worst.constant} of {worst.channels} channels of {worst.tensor} never vary",
        f"they hold one value each on {account.samples} samples{_others(still)}",
        "prune them; they cost time and size and do nothing",
        0.3,
    )


def _dead_weights(dead: list[NodeAccount]) -> Finding:
    worst = max(dead, key=lambda node: node.weight.dead if node.weight else 0)
    count = worst.weight.dead if worst.weight else 0
    total = sum(node.weight.dead for node in dead if node.weight)
    return Finding(
        "dead_channel",
        "size",
        f"dead output channels in {worst.name}",
        f"the weights of {count} of its {worst.weight.channels if worst.weight else 0} output "
        f"channels are as good as zero ({total} in the model), so that they give a constant",
        "prune them, or find out what killed them in training",
        0.78,
    )


def saturating_target(account: Account) -> Finding | None:
    """The processor adds pairs of 8-bit products in 16 bits."""
    present = set(account.extensions)
    if present & _DOT or not present & _PAIRS:
        return None
    hit = [
        node
        for node in account.nodes
        if node.saturating is not None
        and node.saturating > _BITS_16
        and node.weight is not None
        and node.weight.peak > _FULL_RANGE
    ]
    if not hit:
        return None
    worst = max(hit, key=lambda node: node.saturating or 0.0)
    return Finding(
        "saturating_target",
        "portability",
        f"sums saturate on {', '.join(sorted(present & _PAIRS))} without VNNI",
        f"{_percent(worst.saturating or 0.0)} of the pairs of products of {worst.name} leave "
        f"16 bits on real activations, and {len(hit)} of {len(account.nodes)} nodes have such "
        f"pairs; weights reach {worst.weight.peak if worst.weight else 0} of 127",
        "quantise weights to 7 bits for this target (weight_bits: 7)",
        0.95 if (worst.saturating or 0.0) > 1e-4 else 0.8,
    )


def arithmetic_differs(account: Account) -> Finding | None:
    """This machine's integer kernels compute something else than the file says."""
    if account.arithmetic_db is None or account.arithmetic_db > POOR_DB:
        return None
    return Finding(
        "arithmetic_differs",
        "accuracy",
        "the integer kernels compute something else than the graph in the file",
        f"against the same graph computed node by node the outputs keep only "
        f"{account.arithmetic_db:.1f} dB",
        "saturation, or a bias scale that is not input scale x weight scale: quantise again",
        0.88,
    )


def _reach(each: RangeAccount) -> str:
    """`31.2 where the range ends at 6.0`, on the side that is left further."""
    over, under = each.seen[1] - each.range[1], each.range[0] - each.seen[0]
    side = 1 if over >= under else 0
    return f"{each.seen[side]:.3g} where the range ends at {each.range[side]:.3g}"


def _others(found: list[RangeAccount]) -> str:
    return f" (and {len(found) - 1} more like it)" if len(found) > 1 else ""


def _node(account: Account, each: RangeAccount) -> str:
    return next((node.name for node in account.nodes if node.output == each.tensor), each.tensor)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


ACCURACY: tuple[Callable[[Account], Finding | None], ...] = (
    calibration_normalised_differently,
    channel_order,
    outlier_channel,
    per_tensor_weights,
    clipped_range,
    few_calibration_samples,
    dead_channel,
    saturating_target,
    arithmetic_differs,
)
