"""What is said of calibration data: too few, unlike the evaluation data, channels that stay."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lepton_compress.artifacts import Dataset, Model, Split, StepContext, StepOutcome
from lepton_compress.compress.calibration import METHODS, with_zero
from lepton_compress.compress.observed import PARTS, Observed, coarse, merged
from lepton_compress.compress.soundness import EVALUATED, resample, spreads
from lepton_compress.load.forms import duplicate
from lepton_compress.registry import get
from tests.compress.nets import Silent, apply, cnn, mlp, outputs


def seen(batches: list[np.ndarray]) -> Observed:
    made = Observed()
    for index, batch in enumerate(batches):
        made.see(batch, 0, index, histogram=True)
    made.gather()
    return made


def batches(count: int, rows: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return list(rng.normal(size=(count, rows)).astype(np.float32))


def quantize(
    model: Model, calibration: Split, evaluation: Split, **parameters: object
) -> StepOutcome:
    plugin = get("step", "quantize")
    data = Dataset(calibration, calibration, evaluation, "none")
    context = StepContext(data, lambda: duplicate(model), 0, 1, Silent())
    outcome: StepOutcome = plugin.function(model, plugin.params(**parameters), context)
    return outcome


class TestParts:
    def test_parts_together_are_the_whole(self) -> None:
        given = batches(PARTS * 2, 500)
        whole, parted = Observed(), seen(given)
        for batch in given:
            whole.add(batch, 0, histogram=True)
        assert (whole.low, whole.high, whole.limit) == (parted.low, parted.high, parted.limit)
        assert whole.average == parted.average
        assert whole.counts.sum() == parted.counts.sum()
        assert np.abs(np.cumsum(whole.counts) - np.cumsum(parted.counts)).max() <= 4
        assert len(parted.parts) == PARTS

    @pytest.mark.parametrize("method", METHODS)
    def test_the_spread_is_that_of_halves(self, method: str) -> None:
        given = batches(PARTS, 200)
        each = seen(given)
        halves = []
        for bit in (1, 2, 4):
            for side in (0, bit):
                some = [part for index, part in enumerate(each.parts) if index & bit == side]
                assert len(some) == PARTS // 2
                halves.append(with_zero(METHODS[method](coarse(merged(some)))))
        low, high = with_zero(METHODS[method](coarse(each)))
        wanted = np.ptp(np.array(halves), axis=0).max() / (high - low)
        assert spreads({"x": each}, method)["x"] == pytest.approx(wanted, abs=1e-4)

    def test_more_samples_have_less_spread(self) -> None:
        found = [
            np.median([spreads({"x": seen(batches(PARTS, n, s))}, "mse")["x"] for s in range(9)])
            for n in (10, 3000)
        ]
        assert found[1] < found[0] / 2

    def test_too_few_batches_have_none(self) -> None:
        assert spreads({"x": seen(batches(PARTS - 1, 9))}, "minmax") == {"x": None}
        assert spreads({"x": seen([np.ones(4, np.float32)] * PARTS)}, "minmax") == {"x": None}

    def test_resampling_repeats_itself_and_draws_all_alike(self) -> None:
        held = {name: seen(batches(PARTS, 50, seed)) for seed, name in enumerate("ab")}
        one, same, other = resample(held, 1), resample(held, 1), resample(held, 2)
        assert one["a"].high == same["a"].high
        assert any(one[name].counts.tolist() != other[name].counts.tolist() for name in "ab")
        assert one["a"].counts.sum() == held["a"].counts.sum()


class TestNotes:
    def test_few_samples_are_said_to_be_few_and_many_not(self) -> None:
        model, split = mlp()
        few = apply("quantize", model, split, samples=10)
        assert any("10 calibration samples are too few: with others" in n for n in few.notes)
        assert any("(estimated from halves of the data)" in note for note in few.notes)
        rng = np.random.default_rng(3)
        bounded = rng.uniform(-1, 1, size=(512, 24)).astype(np.float32)
        many = apply("quantize", model, Split({"x": bounded}), samples=512)
        assert not any("too few" in note for note in many.notes)

    def test_under_eight_there_is_nothing_to_tell_it_by(self) -> None:
        made = apply("quantize", *mlp(), samples=3)
        assert "3 calibration samples are too few to tell how far ranges vary" in made.notes
        assert set(made.statistics["range_spread"].values()) == {None}

    def test_channels_that_never_vary_are_named(self) -> None:
        model, split = cnn()
        x = split.inputs["x"].copy()
        x[:, 1] = 0.25
        made = apply("quantize", model, Split({"x": x}))
        assert made.statistics["constant_channels"]["x"] == [1]
        note = "1 of 3 channels of x never vary on the calibration data (1)"
        assert note in made.notes

    @pytest.mark.parametrize(
        ("factor", "says"),
        [
            (3.0, r"evaluation data leave what calibration data held in \d of \d tensors"),
            (0.1, r"evaluation data use [123]\d % of the width that calibration data held"),
            (1.0, None),
        ],
    )
    def test_unlike_evaluation_data_are_noticed(self, factor: float, says: str | None) -> None:
        model, split = mlp()
        evaluation = Split({"x": factor * split.inputs["x"][::-1].copy()})
        made = quantize(model, split, evaluation)
        found = [note for note in made.notes if note.startswith("evaluation data")]
        assert bool(found) == bool(says)
        assert not says or re.match(says, found[0])
        assert made.statistics["evaluation"]["samples"] == EVALUATED

    def test_evaluation_data_decide_about_nothing(self) -> None:
        model, split = cnn()
        made = [
            quantize(model, split, Split({"x": factor * split.inputs["x"]})).model.value
            for factor in (1, 5)
        ]
        assert made[0].SerializeToString(deterministic=True) == made[1].SerializeToString(
            deterministic=True
        )


class TestResamples:
    def test_the_outputs_interval_is_told(self) -> None:
        model, split = mlp()
        made = apply("quantize", model, split, resamples=3, rounding="nearest")
        found = made.statistics["resampled"]
        assert len(found) == 3
        low, high = min(found), max(found)
        assert f"3 resampled calibration sets the outputs keep {low:.1f} to {high:.1f} dB" in str(
            made.notes
        )
        plain = apply("quantize", model, split, rounding="nearest")
        np.testing.assert_array_equal(outputs(made.model, split), outputs(plain.model, split))

    def test_it_is_off_by_default(self) -> None:
        assert "resampled" not in apply("quantize", *mlp()).statistics
