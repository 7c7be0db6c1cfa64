"""What can be asked of pruning, and what cannot."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from lepton_compress.compress.pruning_budget import Budget, Limit


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ({"latency": "0.5x"}, Limit("latency", 0.5, None)),
        ({"latency": "2 ms", "target": "edge"}, Limit("latency", None, 0.002)),
        ({"macs": "20M"}, Limit("macs", None, 20e6)),
        ({"macs": 5000}, Limit("macs", None, 5000.0)),
        ({"parameters": "50k"}, Limit("parameters", None, 50e3)),
        ({"bytes": "150 KB"}, Limit("bytes", None, 150e3)),
    ],
)
def test_is_a_share_or_an_amount(given: dict[str, Any], limit: Limit) -> None:
    made = Budget.model_validate(given)
    assert made.limit == limit
    assert Budget.model_validate(made.model_dump(mode="json", exclude_defaults=True)) == made


def test_an_amount_is_a_share_of_what_there_is() -> None:
    assert Budget.model_validate({"bytes": "1 KB"}).limit.share_of(4000) == 0.25
    assert Budget.model_validate({"bytes": "0.5x"}).limit.share_of(4000) == 0.5


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "give one of latency, macs, parameters, bytes, not none"),
        ({"macs": "0.5x", "bytes": "0.5x"}, "not macs and bytes"),
        ({"latency": "1x"}, "leaves all that is there; give less than 1x"),
        ({"latency": "0 ms"}, "is not above zero"),
        ({"latency": "2"}, "the unit is missing"),
        ({"latency": 2}, "the unit is missing"),
        ({"macs": True}, "is not a number with a unit"),
        ({"bytes": "3 ms"}, "unknown unit 'ms'"),
        ({"macs": "0.5x", "target": "edge"}, "target goes with latency"),
    ],
)
def test_refuses_what_makes_no_sense(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Budget.model_validate(given)
