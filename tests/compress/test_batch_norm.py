"""Running statistics, estimated again: exactly the mean over batches, and only where it helps."""

from __future__ import annotations

import torch
from torch import nn

from lepton_compress.compress import batch_norm
from lepton_compress.load import forms
from tests.compress.modules import Lone, Plain, apply, dataset, model_of


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    return made.eval()


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.inner(x)
        return made


def test_they_are_the_mean_over_batches() -> None:
    module = Named()
    batches = [torch.randn(8, 4, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    assert batch_norm.reestimate(module, ({"x": each} for each in batches)) == 3
    given = [module.inner[1](each) for each in batches]
    norm = module.inner[2]
    mean = torch.stack([each.mean(0) for each in given]).mean(0)
    variance = torch.stack([each.var(0) for each in given]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert norm.momentum == 0.1
    assert not any(each.training for each in module.modules())


def test_what_was_there_can_be_put_back() -> None:
    module = Named()
    before, kept = model_of(module), batch_norm.statistics(module)
    mark = forms.fingerprint(before)
    batch_norm.reestimate(module, [{"x": torch.randn(8, 4)}])
    assert forms.fingerprint(before) != mark
    batch_norm.restore(module, kept)
    assert forms.fingerprint(before) == mark


def test_no_more_batches_are_used_than_help() -> None:
    same = ({"x": torch.ones(2, 4)} for _ in range(batch_norm.BATCHES + 50))
    assert batch_norm.reestimate(Named(), same) == batch_norm.BATCHES


class TestInTraining:
    def test_it_is_kept_where_it_helps_alone(self) -> None:
        data = dataset()
        told = apply("finetune", model_of(Plain), data, epochs=1).statistics["batch_norm"]
        # After so few updates the moving averages are still those of the start.
        assert told["loss"][1] < told["loss"][0]
        assert told["reestimated"]
        assert (told["layers"], told["batches"]) == (1, 1)

    def test_it_is_done_where_it_is_asked_for(self) -> None:
        marks = {
            mode: forms.fingerprint(
                apply("finetune", model_of(Plain), epochs=1, batch_norm=mode).model
            )
            for mode in ("keep", "auto", "reestimate")
        }
        assert marks["keep"] != marks["reestimate"] == marks["auto"]

    def test_a_model_without_any_says_nothing(self) -> None:
        assert "batch_norm" not in apply("finetune", model_of(Lone), epochs=1).statistics
