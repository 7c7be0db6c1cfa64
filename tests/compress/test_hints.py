"""Features and attention: what is paired, how far layers are apart, and that nothing is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lepton_compress.artifacts import Model
from lepton_compress.compress.hints import Hints
from lepton_compress.compress.watching import fed, survey
from lepton_compress.errors import InputError
from lepton_compress.load import forms
from tests.compress.modules import (
    CLASSES,
    Attends,
    Plain,
    Residual,
    accuracy,
    apply,
    dataset,
    model_of,
)

DATA = dataset()
EXAMPLE = {"x": torch.from_numpy(DATA.train.inputs["input"][:32].copy())}


class Packed(nn.Module):
    """Attention whose queries, keys and values are one weight, the batch second."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(6, width)
        self.attend = nn.MultiheadAttention(width, 4)
        self.scores = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x.squeeze(1)).transpose(0, 1)
        x = x + self.attend(x, x, x, need_weights=False)[0]
        made: torch.Tensor = self.scores(x.mean(0))
        return made


def settled(model: Model) -> Model:
    """With the statistics of the example, so that training and inference compute the same."""
    for each in model.value.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.momentum = 1.0
    with torch.no_grad():
        model.value.train()(**EXAMPLE)
    model.value.eval()
    return model


def losses(student: Model, teacher: Model, features: Any, attention: Any) -> dict[str, float]:
    """The terms before any training."""
    with Hints(student, teacher, EXAMPLE, features, attention) as hints, torch.no_grad():
        for each in (student, teacher):
            each.value(**fed(each, EXAMPLE))
        return {name: value.item() for name, value in hints.losses().items()}


class TestPairs:
    def test_the_last_layer_of_each_shape(self) -> None:
        student, teacher = model_of(lambda: Plain(4)), model_of(Plain)
        found = Hints(student, teacher, EXAMPLE, "auto", "auto").pairs
        assert found["features"] == {"norm": "norm", "second": "second", "hidden": "hidden"}
        assert found["attention"] == {"norm": "norm", "second": "second"}

    def test_of_one_shape_the_middle_one_too(self) -> None:
        model = model_of(Residual)
        found = Hints(model, model, EXAMPLE, "auto", None).pairs["features"]
        assert found == {"inner": "inner", "outer": "outer"}

    @pytest.mark.parametrize("module", [Attends, Packed])
    def test_queries_keys_and_values(self, module: type[nn.Module]) -> None:
        model = model_of(module)
        name = "qkv" if module is Attends else "attend"
        assert survey(model, EXAMPLE)[name].parts == 3
        assert Hints(model, model, EXAMPLE, None, "auto").pairs == {"attention": {name: name}}

    @pytest.mark.parametrize(
        ("features", "says"),
        [
            ({"frist": "first"}, "the student has no layer 'frist' .*did you mean 'first'"),
            ({"first": "third"}, "the teacher has no layer 'third'"),
            ({"first": "hidden"}, "first gives a map and hidden a vector"),
        ],
    )
    def test_what_cannot_be_paired(self, features: dict[str, str], says: str) -> None:
        model = model_of(Plain)
        with pytest.raises(InputError, match=f"distil: features: {says}"):
            Hints(model, model, EXAMPLE, features, None)

    def test_vectors_attend_to_nothing(self) -> None:
        model = model_of(Plain)
        with pytest.raises(InputError, match="no positions that could be attended to"):
            Hints(model, model, EXAMPLE, None, {"hidden": "hidden"})

    def test_no_shape_in_common(self) -> None:
        with pytest.raises(InputError, match="no layer of the student has the spatial shape"):
            Hints(model_of(Packed), model_of(Residual), EXAMPLE, "auto", None)

    def test_a_dead_layer_teaches_nothing(self) -> None:
        dead = model_of(Plain)
        nn.init.zeros_(dead.value.second.weight)
        with pytest.raises(InputError, match="layer second gives the same at every place"):
            Hints(model_of(Plain), dead, EXAMPLE, {"second": "second"}, None)


class TestTerms:
    @pytest.mark.parametrize("module", [Plain, Attends, Packed])
    def test_of_a_model_against_itself_nothing_is_apart(self, module: type[nn.Module]) -> None:
        model = settled(model_of(module))
        found = losses(model, forms.duplicate(model), "auto", "auto")
        assert set(found) == {"features", "attention"}
        assert found["features"] < 1e-2  # of the ridge
        assert found["attention"] == pytest.approx(0, abs=1e-5)

    def test_a_mix_of_channels_is_the_same_features(self) -> None:
        # Twice as many channels, each a mix of the teacher's: a projection takes it back.
        teacher = settled(model_of(Plain))
        student = forms.duplicate(teacher)
        mix = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))[0]
        with torch.no_grad():
            layer = student.value.second
            layer.weight.copy_(torch.einsum("oi,ihwk->ohwk", mix, layer.weight))
            layer.bias.copy_(mix @ layer.bias)
        pair = {"second": "second"}
        found = losses(student, teacher, pair, pair)
        assert found["features"] < 1e-2
        assert found["attention"] == pytest.approx(0, abs=1e-5)  # the mix keeps lengths

    def test_a_layer_that_knows_nothing_is_one_apart(self) -> None:
        student, teacher = model_of(Plain), model_of(Plain)
        nn.init.zeros_(student.value.second.weight)
        nn.init.ones_(student.value.second.bias)
        pair = {"second": "second"}
        found = losses(student, teacher, pair, pair)
        assert found["features"] == pytest.approx(1, abs=1e-3)
        assert found["attention"] == pytest.approx(1, abs=1e-3)

    def test_statistics_that_were_never_gathered_change_nothing(self) -> None:
        # In inference such a student's values are of another order than while it is trained.
        student, teacher = model_of(lambda: Plain(4)), model_of(Plain)
        student.value.norm.running_var.fill_(1e6)
        with Hints(student, teacher, EXAMPLE, "auto", None) as hints, torch.no_grad():
            student.value.train()
            for each in (student, teacher):
                each.value(**EXAMPLE)
            assert hints.losses()["features"].item() < 1.1

    def test_the_batch_may_be_the_second_axis(self) -> None:
        model = model_of(Packed)
        seen = survey(model, EXAMPLE)["attend"]
        assert (seen.positions, seen.width, seen.swapped) == ((6,), 16, True)
        # Relations are between positions of one sample, so that another order of samples is none.
        other = {"x": EXAMPLE["x"].flip(0)}
        with Hints(model, model, EXAMPLE, None, "auto") as hints, torch.no_grad():
            model.value(**EXAMPLE)
            given = torch.stack(hints._mine.given("attend"))
            model.value(**other)
            np.testing.assert_allclose(
                torch.stack(hints._mine.given("attend")).flip(1), given, atol=1e-6
            )


class TestDistil:
    @pytest.mark.parametrize("labels", [True, False])
    def test_the_terms_get_smaller_and_nothing_is_left(self, labels: bool) -> None:
        asked: dict[str, Any] = {"epochs": 6, "batch_size": 16, "learning_rate": 5e-3}
        teacher = apply("finetune", model_of(Plain), DATA, **asked).model
        pruned = apply("prune", teacher, ratio="75 %", scope="local", round_to=1).model
        outcome = apply(
            "distil",
            pruned,
            dataset(labels=labels),
            original=teacher,
            epochs=8,
            batch_size=16,
            learning_rate=0.01,
            features="auto",
            attention="auto",
        )
        terms = outcome.statistics["terms"]
        assert set(terms) == {"outputs", "features", "attention", *(["labels"] if labels else [])}
        assert all(last < first for first, last in terms.values())
        assert accuracy(outcome.model, DATA.evaluation) > accuracy(pruned, DATA.evaluation)
        made = outcome.model.value
        assert [*dict(made.named_modules())] == [*dict(pruned.value.named_modules())]
        assert not any(
            held
            for each in made.modules()
            for held in (each._forward_hooks, each._forward_pre_hooks, each._backward_hooks)
        )

    def test_nothing_is_left_of_a_training_that_ended_early(self) -> None:
        model = model_of(Plain)
        names = [*dict(model.value.named_modules())]
        with pytest.raises(RuntimeError), Hints(model, model, EXAMPLE, "auto", None):
            raise RuntimeError
        assert [*dict(model.value.named_modules())] == names
        assert not any(each._forward_hooks for each in model.value.modules())

    def test_weights_choose_among_the_terms(self) -> None:
        teacher = apply("finetune", model_of(Plain), DATA, epochs=3, learning_rate=5e-3).model
        pupil = model_of(lambda: Plain(4))
        alone, both = (
            apply(
                "distil",
                pupil,
                DATA,
                original=teacher,
                labels="0 %",
                features="auto",
                weights={"outputs": 0, "features": weight},
                epochs=2,
            ).statistics
            for weight in (1, 3)
        )
        assert both["loss"][0] == pytest.approx(3 * both["terms"]["features"][0])
        assert alone["loss"][0] == pytest.approx(alone["terms"]["features"][0])
