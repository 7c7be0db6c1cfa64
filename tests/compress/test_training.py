"""The training loop: it learns, repeats itself, and says what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lepton_compress.artifacts import Split
from lepton_compress.compress.training import Schedule, deterministic, task_loss, train
from lepton_compress.errors import InputError, LeptonError
from lepton_compress.report.silent import Silent
from tests.compress.modules import Plain, accuracy, dataset, model_of

SCHEDULE = Schedule(epochs=4, batch_size=16, learning_rate=5e-3)


@pytest.fixture(autouse=True)
def settings_kept() -> Iterator[None]:
    """Whatever training does to torch's settings is undone."""
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())
    state = torch.get_rng_state()
    yield
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    assert torch.equal(torch.get_rng_state(), state)


def fit(split: Split, schedule: Schedule = SCHEDULE, seed: int = 0, module: Any = None) -> Any:
    made = model_of(module or Plain)
    with deterministic(seed, 1):
        statistics = train(
            made.value,
            split,
            lambda outputs, _, targets: task_loss(outputs, targets),
            schedule,
            observer=Silent(),
            label="training",
        )
    return made, statistics


def named(split: Split) -> Split:
    return split.named(["x"])


class TestTrain:
    def test_learns(self) -> None:
        data = dataset()
        made, statistics = fit(named(data.train))
        assert accuracy(made, data.evaluation) > 0.9
        assert statistics["loss"][1] < statistics["loss"][0]
        assert (statistics["epochs"], statistics["steps"]) == (4, 24)
        assert not made.value.training

    def test_repeats_itself_by_the_seed(self) -> None:
        split = named(dataset().train)
        states = [fit(split, seed=seed)[0].value.state_dict() for seed in (0, 0, 1)]
        same = [all(torch.equal(states[0][k], other[k]) for k in other) for other in states]
        assert same == [True, True, False]

    def test_leaves_the_data_alone(self) -> None:
        split = named(dataset().train)
        before = split.inputs["x"].copy()
        fit(split)
        assert np.array_equal(split.inputs["x"], before)

    def test_frozen_weights_stay(self) -> None:
        def half() -> nn.Module:
            net = Plain()
            net.first.weight.requires_grad_(False)
            return net

        before = model_of(half).value.first.weight.clone()
        made, _ = fit(named(dataset().train), module=half)
        assert torch.equal(made.value.first.weight, before)

    def test_a_last_batch_of_one_is_left_out(self) -> None:
        # Batch normalisation has no variance over it.
        fit(named(dataset(count=33).train))

    def test_a_loss_that_is_not_finite_ends_it(self) -> None:
        wild = Schedule(epochs=3, batch_size=16, learning_rate=1e30, clip=1e30)
        with pytest.raises(
            LeptonError,
            match=r"training: the loss became (nan|inf) in epoch \d, step \d+ of 18; lower",
        ):
            fit(named(dataset().train), wild)

    def test_one_sample_is_too_few(self) -> None:
        split = named(dataset().train)
        one = Split({"x": split.inputs["x"][:1]}, np.zeros(1, int))
        with pytest.raises(InputError, match="needs at least two samples"):
            fit(one)

    @pytest.mark.parametrize(
        ("targets", "says"),
        [
            (np.full(96, 7), "data: train: the loss of the outputs .*3.* fails"),
            (np.zeros((96, 5), np.float32), r"against the targets \[16, 5\] fails"),
            (None, "the train split has no targets; use distil"),
        ],
    )
    def test_targets_that_do_not_fit_are_told(self, targets: Any, says: str) -> None:
        split = named(dataset().train)
        with pytest.raises(InputError, match=says):
            fit(Split(split.inputs, targets))
