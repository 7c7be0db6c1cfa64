"""Ranges against brute force on known distributions, and what the streaming pass holds."""

from __future__ import annotations

import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lepton_compress.artifacts import Split
from lepton_compress.compress.calibration import METHODS, calibrate, symmetric, with_zero
from lepton_compress.compress.observed import BINS, Observed, Range
from lepton_compress.compress.static_int8 import OPERATORS
from lepton_compress.errors import InputError
from tests.compress.nets import Silent, cnn, mlp

SIZE = 40_000


def distribution(name: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    made = {
        "normal": rng.normal(size=SIZE),
        "uniform": rng.uniform(-1, 3, size=SIZE),
        "exponential": rng.exponential(size=SIZE),
        "spike and clip": np.minimum(np.maximum(rng.normal(size=SIZE), 0), 1.5),
        "constant": np.full(SIZE, 0.7),
        "one outlier": np.append(rng.normal(size=SIZE - 1), 60.0),
    }
    return made[name].astype(np.float32)


DISTRIBUTIONS = (
    "normal",
    "uniform",
    "exponential",
    "spike and clip",
    "constant",
    "one outlier",
)


def observed(values: np.ndarray, batches: int = 1) -> Observed:
    seen = Observed()
    for part in np.array_split(values, batches):
        seen.add(part, 0, histogram=True)
    return seen


def squared_error(values: np.ndarray, chosen: Range) -> float:
    """Of rounding every value to 256 levels, by brute force."""
    low, high = chosen
    step = max((high - low) / 255, 1e-30)
    zero = np.round(-low / step)
    rounded = (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step
    return float(np.square(rounded - values, dtype=np.float64).mean())


def divergence(seen: Observed, high: float) -> float:
    """Kullback-Leibler, of a histogram from zero up cut at `high` and laid out in 256 levels, bin
    by bin."""
    counts = {c: n for c, n in zip(seen.centres(), seen.counts, strict=True) if n}
    half = seen.limit / BINS
    inside = [centre for centre in counts if centre <= high + half]
    levels: dict[int, list[float]] = {}
    for centre in inside:
        levels.setdefault(min(int(max(min(centre, high), 0) / high * 256), 255), []).append(centre)
    flat = {
        centre: sum(counts[each] for each in some) / len(some)
        for some in levels.values()
        for centre in some
    }
    reference = {centre: float(counts[centre]) for centre in inside}
    reference[max(inside)] += sum(n for centre, n in counts.items() if centre > high + half)
    clipped = sum(n for centre, n in counts.items() if centre > high + half)
    if clipped > 1e-3 * sum(counts.values()):
        return np.inf
    total, kept = sum(reference.values()), sum(flat.values())
    terms = [
        n / total * np.log((n / total) / (flat[centre] / kept)) for centre, n in reference.items()
    ]
    return float(sum(terms))


class TestObserved:
    @pytest.mark.parametrize("name", DISTRIBUTIONS)
    def test_ends_and_counts_are_those_of_the_values(self, name: str) -> None:
        values = distribution(name)
        seen = observed(values, batches=7)
        assert (seen.low, seen.high) == (values.min(), values.max())
        # Each batch is small enough to be counted whole.
        assert seen.counts.sum() == SIZE
        edges = np.linspace(-seen.limit, seen.limit, BINS + 1)
        wanted, _ = np.histogram(values.astype(np.float64), edges)
        # A value on an edge may round into the bin beside it.
        assert np.abs(np.cumsum(seen.counts) - np.cumsum(wanted)).max() <= 3

    def test_widening_keeps_the_counts_where_they_were(self) -> None:
        small, large = np.linspace(-0.9, 0.9, 999), np.array([-100.0, 100.0])
        seen = observed(small.astype(np.float32))
        before = seen.counts.sum()
        seen.add(large.astype(np.float32), 0, histogram=True)
        assert seen.counts.sum() == before + 2
        assert seen.limit == 128
        inside = np.abs(seen.centres()) < 1
        assert seen.counts[inside].sum() == 999
        assert (seen.counts[0], seen.counts[-1]) == (0, 0)

    def test_a_first_batch_of_zeros_fixes_no_scale(self) -> None:
        seen = Observed()
        seen.add(np.zeros(10, np.float32), 0, histogram=True)
        seen.add(np.full(10, 1e-3, np.float32), 0, histogram=True)
        assert seen.limit < 2e-3
        assert seen.counts[BINS // 2] == 10

    def test_a_later_nan_is_not_lost(self) -> None:
        seen = observed(np.ones(4, np.float32))
        seen.add(np.array([0, np.nan], np.float32), 0, histogram=True)
        assert np.isnan(seen.low)

    def test_large_tensors_are_thinned_but_their_ends_are_not(self) -> None:
        values = np.zeros(1 << 20, np.float32)
        values[123_457] = 5
        seen = observed(values)
        assert seen.high == 5
        assert seen.counts.sum() < 1 << 18


class TestMethods:
    @pytest.mark.parametrize("name", DISTRIBUTIONS)
    def test_minmax_is_exact(self, name: str) -> None:
        values = distribution(name)
        assert METHODS["minmax"](observed(values, 5)) == (values.min(), values.max())

    def test_moving_average_follows_its_definition(self) -> None:
        batches = np.random.default_rng(0).normal(size=(9, 50)).astype(np.float32)
        seen = Observed()
        low = high = None
        for batch in batches:
            seen.add(batch, 0, histogram=False)
            ends = float(batch.min()), float(batch.max())
            low = ends[0] if low is None else 0.9 * low + 0.1 * ends[0]
            high = ends[1] if high is None else 0.9 * high + 0.1 * ends[1]
        assert METHODS["moving_average"](seen) == pytest.approx((low, high))

    @pytest.mark.parametrize("name", DISTRIBUTIONS)
    def test_percentile_is_within_two_bins_of_brute_force(self, name: str) -> None:
        values = distribution(name)
        seen = observed(values)
        low, high = METHODS["percentile"](seen)
        wanted = np.quantile(values, [1e-5, 1 - 1e-5], method="inverted_cdf")
        width = 2 * seen.limit / BINS
        assert low == pytest.approx(wanted[0], abs=2 * width)
        assert high == pytest.approx(wanted[1], abs=2 * width)

    @pytest.mark.parametrize("name", DISTRIBUTIONS)
    def test_mse_is_near_the_best_of_a_fine_grid(self, name: str) -> None:
        values = distribution(name)
        chosen = with_zero(METHODS["mse"](observed(values)))
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        shares = np.linspace(0.2, 1, 17)
        ends = [(low * a, high * b) for a in (shares if low else [0]) for b in shares]
        best = min(squared_error(values, each) for each in ends)
        # The histogram knows a value only to half a bin.
        slack = (2 * observed(values).limit / BINS) ** 2
        assert squared_error(values, chosen) <= 1.05 * best + slack

    def test_mse_clips_an_outlier_that_is_not_worth_its_levels(self) -> None:
        # One value in a million: its levels would cost all others more than it gains.
        values = np.append(np.tile(distribution("normal"), 25), 30.0).astype(np.float32)
        assert METHODS["mse"](observed(values, 25))[1] < 25
        assert METHODS["mse"](observed(distribution("uniform")))[1] == pytest.approx(3, abs=0.1)

    @pytest.mark.parametrize("name", ["exponential", "spike and clip"])
    def test_entropy_is_near_the_best_of_a_fine_grid(self, name: str) -> None:
        seen = observed(distribution(name))
        chosen = METHODS["entropy"](seen)
        ends = np.linspace(0.2, 1, 41) * seen.high
        best = min(divergence(seen, float(end)) for end in ends)
        assert chosen[0] == 0
        assert divergence(seen, chosen[1]) <= best + 1e-3

    @pytest.mark.parametrize("name", DISTRIBUTIONS)
    def test_entropy_clips_at_most_a_thousandth(self, name: str) -> None:
        values = distribution(name)
        low, high = METHODS["entropy"](observed(values))
        width = 2 * observed(values).limit / BINS
        outside = ((values < low - width) | (values > high + width)).mean()
        assert outside <= 1.1e-3

    def test_entropy_searches(self) -> None:
        values = distribution("one outlier")
        low, high = METHODS["entropy"](observed(values))
        assert high < 30
        assert low > values.min() - 1e-6
        assert METHODS["entropy"](observed(distribution("spike and clip")))[1] >= 1.45

    @pytest.mark.parametrize("method", METHODS)
    def test_a_constant_keeps_its_value_in_range(self, method: str) -> None:
        low, high = with_zero(METHODS[method](observed(distribution("constant"))))
        assert low == 0
        assert high >= 0.7 * 0.99


FLOATS = arrays.arrays(
    np.float32,
    st.integers(1, 200),
    # Below what a histogram resolves at all, an end is a matter of rounding.
    elements=st.floats(-1e6, 1e6, width=32).map(lambda value: value if abs(value) > 1e-9 else 0.0),
)


class TestProperties:
    @given(values=FLOATS, method=st.sampled_from(sorted(METHODS)))
    def test_a_range_holds_zero_and_stays_within_what_was_seen(
        self, values: np.ndarray, method: str
    ) -> None:
        low, high = with_zero(METHODS[method](observed(values)))
        assert low <= 0 <= high
        assert low < high
        slack = 1e-6 + 1e-6 * float(np.abs(values).max())
        assert low >= min(float(values.min()), 0.0) - slack
        assert high <= max(float(values.max()), 0.0) + slack

    @given(values=FLOATS)
    def test_a_percentile_leaves_out_no_more_than_minmax(self, values: np.ndarray) -> None:
        seen = observed(values)
        narrow, wide = METHODS["percentile"](seen), METHODS["minmax"](seen)
        assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]

    @given(values=FLOATS, parts=st.integers(1, 6))
    def test_batches_do_not_matter(self, values: np.ndarray, parts: int) -> None:
        whole, split = observed(values), Observed()
        for part in np.array_split(values, parts):
            if part.size:
                split.add(part, 0, histogram=True)
        assert (whole.low, whole.high, whole.limit) == (split.low, split.high, split.limit)
        assert whole.counts.sum() == split.counts.sum() == values.size
        # Merged bins are counted where their narrower ones were, up to rounding at an edge.
        apart = np.abs(np.cumsum(whole.counts) - np.cumsum(split.counts))
        assert apart.max() <= values.size

    @given(low=st.floats(-1e5, 0), high=st.floats(0, 1e5))
    def test_a_symmetric_range_is_the_least_that_covers(self, low: float, high: float) -> None:
        made = symmetric((low, high))
        assert made[0] == -made[1]
        assert made[1] == max(-low, high)


def ranges(method: str, split: Split, samples: int = 64) -> dict[str, Range]:
    model, _ = cnn()
    made = calibrate(
        model,
        split,
        method=method,
        operators=OPERATORS,
        samples=samples,
        threads=1,
        observer=Silent(),
    )
    return made.ranges


class TestCalibrate:
    def test_what_a_clipping_node_takes_has_the_range_of_what_it_gives(self) -> None:
        made = ranges("minmax", cnn()[1])
        assert made["c1"] == made["r1"]
        assert made["c1"][0] == 0
        assert made["c2"] == made["r2"]

    def test_ranges_are_those_of_the_data(self) -> None:
        _, split = cnn()
        made = ranges("minmax", split)
        assert made["x"] == (split.inputs["x"].min(), split.inputs["x"].max())

    def test_only_so_many_samples_are_seen(self) -> None:
        _, split = cnn()
        first = split.inputs["x"][:5]
        assert ranges("minmax", split, samples=5)["x"] == (first.min(), first.max())

    def test_constant_values_are_named(self) -> None:
        model, split = mlp()
        still = Split({"x": np.zeros_like(split.inputs["x"])})
        made = calibrate(
            model,
            still,
            method="mse",
            operators=OPERATORS,
            samples=9,
            threads=1,
            observer=Silent(),
        )
        assert "x" in made.constant

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_values_that_are_not_finite_are_refused(self, bad: float) -> None:
        _, split = cnn()
        wrong = split.inputs["x"].copy()
        wrong[40, 0, 0, 0] = bad  # not in the first batch
        with pytest.raises(InputError, match="is NaN or infinite on some sample"):
            ranges("entropy", Split({"x": wrong}))

    @pytest.mark.parametrize("method", ["minmax", "mse"])
    def test_memory_does_not_grow_with_the_samples(self, method: str) -> None:
        x = np.random.default_rng(0).normal(size=(512, 3, 10, 10)).astype(np.float32)

        def peak(count: int) -> int:
            tracemalloc.start()
            ranges(method, Split({"x": x}), samples=count)
            _, highest = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return highest

        peak(64)  # what is made once
        assert peak(512) < 1.2 * peak(64)

    def test_an_observed_tensor_has_a_fixed_size(self) -> None:
        few, many = observed(np.ones(10, np.float32)), observed(np.ones(100_000, np.float32))
        assert sys.getsizeof(few.counts) == sys.getsizeof(many.counts) <= 8 * BINS + 200
