"""What a training script asks for, checked at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress.during_training.settings import Gradual, read
from lepton_compress.errors import RecipeError

RATIO = {"ratio": "50 %"}


@pytest.mark.parametrize(
    ("updates", "prune", "aware", "said"),
    [
        (10, None, None, "give prune, quantize_aware or both"),
        (0, RATIO, None, "updates is 0"),
        (True, RATIO, None, "updates is True"),
        (1.5, RATIO, None, "updates is 1.5"),
        (10, {"ration": "50 %"}, None, "ration"),
        (10, {}, None, "give either to or ratio"),
        (10, {**RATIO, "begin": "60 %"}, None, "begin must not come after end"),
        (10, {**RATIO, "times": 0}, None, "prune.times"),
        (10, None, {"begin": "140 %"}, "quantize_aware.begin"),
        (10, None, {"ranges": "learned"}, "your optimiser does not have"),
        (10, RATIO, {"begin": "20 %"}, "rounding begins after 2 updates, and pruning ends after 5"),
        (10, "50 %", None, "prune: is str"),
    ],
)
def test_a_mistake_is_told_in_one_line(updates: Any, prune: Any, aware: Any, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(updates, prune, aware)
    assert said in str(caught.value)
    assert str(caught.value).startswith("TrainingSession")
    assert "\n" not in str(caught.value)


def test_settings_of_the_steps_are_theirs() -> None:
    made = read(100, {**RATIO, "round_to": 4, "end": "30 %"}, {"weight_bits": 7, "begin": "40 %"})
    assert made.prune is not None
    assert made.aware is not None
    assert (made.prune.ratio, made.prune.round_to) == (0.5, 4)
    assert (made.aware.weight_bits, made.aware.ranges) == (7, "observed")
    assert (made.round_at, made.freeze_at) == (40, 70)


@given(
    updates=st.integers(1, 10_000),
    begin=st.floats(0, 0.9),
    length=st.floats(0, 0.09),
    times=st.integers(1, 50),
)
def test_portions_grow_to_all(updates: int, begin: float, length: float, times: int) -> None:
    given = {"begin": f"{begin:.4%}", "end": f"{begin + length:.4%}", "times": times}
    portions = Gradual.model_validate(given).portions(updates)
    at, shares = list(portions), list(portions.values())
    assert at == sorted(at)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(1 <= each <= updates for each in at)
    assert min(shares) > 0
