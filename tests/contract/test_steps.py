"""What every step keeps to: what it leaves alone, what it says, and that it repeats itself."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lepton_compress import registry
from lepton_compress.artifacts import Dataset, Model, Place, StepContext, StepOutcome
from lepton_compress.export.lower import lower
from lepton_compress.load import forms
from lepton_compress.report.silent import Silent
from tests.contract.needed import feeds, graph, image_data, module, of_kind, parameters

ORIGINS = {"module": module, "graph": graph}
HERE = Place("here", "onnxruntime-cpu", 1, 1)


@dataclass(frozen=True)
class Ran:
    """A step, run twice."""

    name: str
    given: Model
    mark: str
    data: Dataset
    outcomes: tuple[StepOutcome, StepOutcome]


@functools.cache
def run(name: str) -> Ran:
    """Run a step on the small network, and once more on a model of its own."""
    plugin = registry.get("step", name)
    made, data = ORIGINS[plugin.form], image_data()
    given = made()
    mark = forms.fingerprint(given)

    def once(model: Model) -> StepOutcome:
        context = StepContext(
            data,
            made,
            0,
            1,
            Silent(),
            (HERE,),
            lower=lambda each: lower(each, data.calibration),
        )
        outcome: StepOutcome = plugin.call(model, parameters("step", name), context)
        return outcome

    return Ran(name, given, mark, data, (once(given), once(made())))


@pytest.fixture(params=of_kind("step"))
def ran(request: pytest.FixtureRequest) -> Ran:
    """Every step in turn; each is run by the first test that asks."""
    return run(str(request.param))


def test_the_model_given_is_left_alone(ran: Ran) -> None:
    assert forms.fingerprint(ran.given) == ran.mark
    if ran.given.form == "module":
        assert not ran.given.value.training
        assert all(each.grad is None for each in ran.given.value.parameters())
        assert all(each.requires_grad for each in ran.given.value.parameters())


def test_the_data_are_left_alone(ran: Ran) -> None:
    assert image_data().fingerprint == ran.data.fingerprint
    for split in (ran.data.train, ran.data.calibration, ran.data.evaluation):
        assert not any(array.flags.writeable for array in split.inputs.values())


def test_it_tells_truly_that_it_changed_something(ran: Ran) -> None:
    for outcome in ran.outcomes:
        assert isinstance(outcome, StepOutcome)
        # A step that measures may find that the model is better left as it is.
        assert outcome.changed is not bool(outcome.declined)
        measured = parameters("step", ran.name).measured
        assert (registry.get("step", ran.name).measures and measured) or outcome.changed
        assert (forms.fingerprint(outcome.model) != ran.mark) is outcome.changed


def test_twice_gives_the_same(ran: Ran) -> None:
    if registry.get("step", ran.name).measures and parameters("step", ran.name).measured:
        pytest.skip("decides by measuring")
    first, second = ran.outcomes
    assert forms.fingerprint(first.model) == forms.fingerprint(second.model)
    assert (first.statistics, first.notes) == (second.statistics, second.notes)


def test_its_inputs_and_outputs_stay(ran: Ran) -> None:
    made = ran.outcomes[0].model
    assert made.form == (registry.get("step", ran.name).gives or ran.given.form)
    assert made.inputs == ran.given.inputs
    assert made.outputs == ran.given.outputs
    wanted = forms.call(ran.given, feeds(ran.given, 3))
    for name, array in forms.call(made, feeds(made, 3)).items():
        assert (array.shape, array.dtype) == (wanted[name].shape, wanted[name].dtype)
        assert np.isfinite(array).all()


def test_what_it_tells_fits_in_json(ran: Ran) -> None:
    outcome = ran.outcomes[0]
    assert json.loads(json.dumps(outcome.statistics, allow_nan=False)) == outcome.statistics
    assert outcome.statistics
    assert all(isinstance(note, str) and note for note in outcome.notes)


def test_what_it_made_is_kept_whole(ran: Ran, tmp_path: Path) -> None:
    made, original = ran.outcomes[0].model, ORIGINS[ran.given.form]
    forms.save(made, original(), tmp_path)
    read = forms.load(tmp_path, original)
    assert forms.fingerprint(read) == forms.fingerprint(made)
    for batch in (1, 7):
        wanted, given = (forms.call(each, feeds(made, batch)) for each in (made, read))
        for name, array in wanted.items():
            np.testing.assert_array_equal(given[name], array)
