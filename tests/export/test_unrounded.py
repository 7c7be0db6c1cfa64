"""Graphs without the rounding of their activations."""

from __future__ import annotations

import pytest

from lepton_compress.artifacts import Model, Split
from lepton_compress.compress.dynamic_int8 import quantize as quantize_dynamic
from lepton_compress.compress.float16 import Float16
from lepton_compress.compress.half_precision import convert
from lepton_compress.compress.quantize import Quantize
from lepton_compress.compress.quantize_dynamic import QuantizeDynamic
from lepton_compress.compress.static_int8 import quantize as quantize_static
from lepton_compress.export.comparable import caller
from lepton_compress.export.stepwise import stepwise
from lepton_compress.export.unrounded import ROUNDING, rounds, unrounded
from lepton_compress.load import forms
from lepton_compress.report.silent import Silent
from lepton_compress.verify import LIMIT, difference
from tests.export.recurrent import network, sequences

NAME = "two LSTMs, last states"


def small(how: str) -> Model:
    model, data = network(NAME), Split(sequences(32, seed=5))
    if how == "dynamic":
        return quantize_dynamic(model, data, QuantizeDynamic()).model
    if how == "static":
        return quantize_static(model, data, Quantize(), threads=1, observer=Silent()).model
    return convert(model, data, Float16(), threads=1, observer=Silent()).model


@pytest.mark.parametrize("how", ["dynamic", "static", "float16"])
def test_what_is_left_is_the_noise_of_the_weights(how: str) -> None:
    model = small(how)
    made = unrounded(model)
    assert rounds(model.value)
    assert not rounds(made.value)
    assert not ROUNDING & {node.op_type for node in made.value.graph.node}
    wanted = forms.call(network(NAME), sequences(7))
    noise = difference(wanted, forms.call(model, sequences(7)))
    assert 0 < noise < 0.1
    assert difference(wanted, forms.call(made, sequences(7))) < noise + LIMIT


@pytest.mark.parametrize("how", ["dynamic", "static", "float16"])
def test_a_step_graph_keeps_its_steps(how: str) -> None:
    model = small(how)
    both = [caller(unrounded(each))(sequences(7)) for each in (model, stepwise(model))]
    assert difference(*both) <= LIMIT


def test_a_float_graph_is_what_it_was() -> None:
    model = network(NAME)
    assert unrounded(model) is model


def test_the_model_given_is_left_alone() -> None:
    model = small("dynamic")
    mark = forms.fingerprint(model)
    unrounded(model)
    assert forms.fingerprint(model) == mark
