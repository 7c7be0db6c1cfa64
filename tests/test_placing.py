"""`lepton_compress.place`: what it takes, what it refuses, and what it gives to machines."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import lepton_compress
from lepton_compress import placing
from lepton_compress.artifacts import RunResult
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.placements import Placement
from lepton_compress.report.plain import plain, restore
from tests.place.fleets import demands, fleet, result, values


@pytest.fixture
def one(tmp_path: Path) -> RunResult:
    return result(tmp_path)


def test_the_library_call_takes_values_or_a_file(one: RunResult, tmp_path: Path) -> None:
    made = lepton_compress.place(one, values(), sensitivity=False)
    assert made.feasible
    file = tmp_path / "fleet.yaml"
    file.write_text(yaml.safe_dump(values()))
    again = lepton_compress.place([one], file, sensitivity=False)
    assert replace(again, seconds=0.0) == replace(made, seconds=0.0)


def test_json_keeps_everything_and_fits_the_schema(one: RunResult) -> None:
    asked = values(**demands(latency="75 ms", accuracy="95 %"))
    made = lepton_compress.place(one, asked, simulate=True)
    assert made.simulated
    assert made.changes
    body = json.loads(placing.to_json(made))
    jsonschema.validate(body, placing.json_schema())
    del body["schema"]
    assert restore(Placement, body) == made
    failed = lepton_compress.place(one, values(**demands(latency="1 ms")))
    assert failed.reliefs
    jsonschema.validate(json.loads(placing.to_json(failed)), placing.json_schema())


def test_two_results_serve_one_workload_together(tmp_path: Path) -> None:
    """A small model of one recipe on the edge, a large one of another in the cloud."""
    low = result(tmp_path / "a", "small", models={"baseline": (2e-3, 2.5, 100_000)})
    high = result(tmp_path / "b", "large", models={"baseline": (8e-3, 6.0, 800_000)})
    # Both were evaluated on the same samples.
    held = low.answers[0].path, high.answers[0].path
    assert held[0] == held[1]
    asked = demands(latency="150 ms", accuracy="85 %", only=["cascade"])
    made = lepton_compress.place([low, high], values(**asked), sensitivity=False)
    plan = made.placed[0].plan
    assert plan is not None
    assert plan.edge is not None
    assert plan.cloud is not None
    assert (plan.edge.result, plan.cloud.result) == ("small", "large")


ELSE = ", or say which to estimate it from, as in `estimate_from: {target: server, factor: 3x}`"
NO_RECIPE = "no result is of a recipe named"


def lines(error: RecipeError) -> list[str]:
    return [str(error), *map(str, error.others)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"sites__0__target": "devise"},
            f"sites[0].target: no result was profiled on 'devise'; did you mean 'device'?{ELSE}",
        ),
        (
            {"sites__0__target": "phone", "sites__0__estimate_from": "devise"},
            "sites[0].estimate_from: no result was profiled on 'devise'; did you mean 'device'?",
        ),
        (
            {"workloads__0__results": ["image"]},
            f"workloads[0].results[0]: {NO_RECIPE} 'image'; did you mean 'images'?",
        ),
        (
            {"workloads__0__metric": "acuracy"},
            "workloads[0].metric: no result has the metric 'acuracy'; did you mean 'accuracy'?",
        ),
    ],
)
def test_names_that_the_results_do_not_have(
    one: RunResult, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        lepton_compress.place(one, values(**changes))
    assert lines(caught.value) == [said]


def test_two_results_of_one_name_are_told_apart_by_nothing(one: RunResult) -> None:
    with pytest.raises(InputError, match="two results are of recipes named 'images'"):
        lepton_compress.place([one, one], values())


def test_an_estimate_is_marked_everywhere(one: RunResult) -> None:
    asked = values(
        sites__0__target="phone",
        sites__0__estimate_from={"target": "device", "factor": "2x"},
    )
    made = lepton_compress.place(one, asked, sensitivity=False)
    assert "camera: times are estimated, 2x those on device" in made.notes
    plan = made.placed[0].plan
    assert plan is not None
    assert plan.provenance == "estimated"


def test_the_examples_are_printed_by_name() -> None:
    assert placing.example("speech").startswith("# Speech")
    with pytest.raises(RecipeError, match="no example 'text'; write image or speech"):
        placing.example("text")


def test_a_page_escapes_what_a_user_wrote(one: RunResult) -> None:
    evil = "<script>alert(1)</script>"
    made = lepton_compress.place(one, values(currency=evil, **demands(latency="75 ms")), maps=True)
    text = placing.page(made)
    assert evil not in text
    assert "&lt;script&gt;" in text
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("<rect") == 13 * 13 + len(made.maps[0].names)


def test_pictures_are_drawn_of_maps(one: RunResult) -> None:
    from lepton_compress.report.placement_figure import figure

    made = lepton_compress.place(one, values(), sensitivity=False, maps=True)
    assert figure(made, kind="png").startswith(b"\x89PNG")
    assert b"<svg" in figure(made, kind="svg")
    with pytest.raises(InputError, match="there is no map to draw"):
        figure(replace(made, maps=()), kind="png")


def test_what_is_plain_is_what_is_held(one: RunResult) -> None:
    made = lepton_compress.place(one, values(), sensitivity=False)
    assert plain(made)["placed"][0]["plan"]["kind"] == "edge"
    assert fleet().name == made.fleet
