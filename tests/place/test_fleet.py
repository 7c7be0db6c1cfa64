"""Fleet files: what is refused, in one line each; the examples and the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from lepton_compress.errors import RecipeError
from lepton_compress.place.fleet import fleet_from_values, json_schema, read_fleet
from lepton_compress.placing import EXAMPLES
from tests.place.fleets import demands, fleet, values

LINK = "links__0__"
WORK = "workloads__0__"


def test_quantities_are_in_base_units() -> None:
    made = fleet()
    assert made.links[0].up == 10e6
    assert made.links[0].round_trip == 0.03
    assert made.links[0].price == 0.05
    assert made.workloads[0].payload.up == 20_000
    assert made.site("region").price == 0.1
    assert [site.name for site in made.sites_of(made.workloads[0])] == ["camera"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sites__0__cuont": 3}, "sites[0].cuont: unknown key 'cuont'; did you mean 'count'?"),
        ({"sites__0__count": 0}, "sites[0].count: must be at least 1, not 0"),
        ({"sites__0__count": -5}, "sites[0].count: must be at least 1, not -5"),
        ({LINK + "round_trip": "-3 ms"}, "links[0].round_trip: '-3 ms' is not above zero"),
        ({LINK + "round_trip": "3 MB"}, "links[0].round_trip: unknown unit 'MB'"),
        ({LINK + "round_trip": 3}, "links[0].round_trip: 3 is not a number with a unit"),
        ({LINK + "up": "0 Mbit/s"}, "links[0].up: '0 Mbit/s' is not above zero"),
        ({LINK + "up": "5 MB/s"}, "links[0].up: unknown unit 'MB/s'"),
        ({LINK + "price": "-1/GB"}, "links[0].price: '-1/GB' is below zero"),
        ({LINK + "price": "0.05"}, "links[0].price: the unit is missing"),
        ({LINK + "availability": "120 %"}, "links[0].availability: '120 %' is not from 0 %"),
        (
            {LINK + "cloud": "regoin"},
            "links[0].cloud: no site of kind cloud is named 'regoin'",
        ),
        ({LINK + "edge": "region"}, "links[0].edge: no site of kind edge is named 'region'"),
        (
            {WORK + "sites": ["camra"]},
            "workloads[0].sites[0]: no site of kind edge is named 'camra'",
        ),
        ({WORK + "rate": "0/s"}, "workloads[0].rate: '0/s' is not above zero"),
        ({WORK + "payload": {"up": "1 KB"}}, "workloads[0].payload: the key 'down' is missing"),
        ({"sites__1__price": None}, "sites[1].price: is empty"),
        ({"sites__0__replicas": 3}, "sites[0].replicas: goes with a site of kind cloud"),
        ({"sites__1__count": 3}, "sites[1].count: goes with a site of kind edge"),
        ({"prefer": "cheepest"}, "did you mean 'cheapest'?"),
        ({"workloads": []}, "workloads: must not be empty"),
        (demands(latency="1 GB"), "workloads[0].demands.latency"),
        (demands(latency={"limit": "1 s", "percentile": 100}), "must be at most 99.9, not 100"),
        (demands(offline=True, only=["cloud"]), "demands.offline: contradicts `only`"),
        (demands(may_leave="features", only=["cascade"]), "demands.may_leave: contradicts `only`"),
        (demands(accuracy="97 %", drop="1 %"), "demands.drop: contradicts `accuracy`"),
    ],
)
def test_one_line_says_what_is_wrong(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        fleet_from_values(values(**changes))
    assert said in str(caught.value)
    assert not caught.value.others


def test_a_missing_number_is_named() -> None:
    given = values()
    del given["sites"][1]["price"]
    with pytest.raises(RecipeError, match=r"sites\[1\]: the key 'price' is missing; add it"):
        fleet_from_values(given)
    given = values()
    del given["links"][0]["up"]
    with pytest.raises(RecipeError, match=r"links\[0\]: the key 'up' is missing"):
        fleet_from_values(given)


def test_names_and_links_stand_once(tmp_path: Path) -> None:
    given = values()
    given["sites"].append(given["sites"][0])
    given["links"].append(given["links"][0])
    file = tmp_path / "fleet.yaml"
    file.write_text(yaml.safe_dump(given, sort_keys=False))
    with pytest.raises(RecipeError) as caught:
        read_fleet(file)
    lines = [str(caught.value), *map(str, caught.value.others)]
    assert lines[0].startswith(f"{file}:")
    assert "sites[2].name: a second one is named 'camera'" in lines[0]
    assert "a second link from camera to region" in lines[1]


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_examples_are_right_and_fit_the_schema(file: Path) -> None:
    read_fleet(file)
    jsonschema.validate(yaml.safe_load(file.read_text()), json_schema())


def test_the_schema_refuses_what_the_reader_refuses() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values(links__0__up="5 MB/s"), json_schema())
    jsonschema.validate(values(), json_schema())
