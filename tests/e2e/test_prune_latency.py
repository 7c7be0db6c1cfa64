"""Pruning to a latency, and the sensitivity of groups, as a user asks for them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lepton_compress.errors import EXIT_OK, EXIT_USER
from tests.bench import MODULE, Bench, refused

# Wide enough that its layers, and not the call, take the time; random weights serve for that.
WIDE: dict[str, Any] = {
    "model": {"factory": "net.py:Net", "args": {"width": 96}, "outputs": ["scores"]},
    "gates": {"drop": "100 %"},
}
LATENCY = {"latency": "0.6x", "patience": "200 ms"}


@pytest.mark.slow
def test_a_latency_is_met_and_told_with_what_was_predicted(bench: Bench) -> None:
    steps = [{"prune": {"to": LATENCY, "round_to": 16}}]
    bench.recipe(MODULE, **WIDE, variants={"fast": steps})
    done = bench.lepton("run", "recipe.yaml")
    assert done.code == EXIT_OK, done
    record = bench.result()["candidates"][1]["history"][0]
    held = record["statistics"]["latency"]
    assert held["target"] == "here"
    assert held["measured"] <= held["asked"] == 0.6
    assert held["reachable"] <= held["measured"]
    assert held["predicted"] > 0
    assert held["layer_shapes"] > 4
    assert all(width % 16 == 0 for _, width in record["statistics"]["channels"].values())
    text = (bench.folder / "runs/tiny/report.md").read_text()
    assert f"{held['measured']:.2f}x" in text
    assert f"{held['predicted']:.2f}x predicted, 0.60x asked" in text
    again = bench.lepton("run", "recipe.yaml")
    assert again.code == EXIT_OK, again
    assert bench.result()["candidates"][1]["history"][0]["cached"]

    # Another latency finds the table that is kept; what nothing reaches names what is reached.
    asked = {"latency": "0.0001x", "patience": "200 ms"}
    bench.recipe(MODULE, **WIDE, variants={"fast": [{"prune": {"to": asked, "round_to": 16}}]})
    says = r"variants\.fast\[0\]: prune: to: latency cannot go below 0\.\d+x \(.* on here\)"
    refused(bench.lepton("run", "recipe.yaml"), (says,))
    assert len(bench.entries()["layer latency"]) == 1


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"latency": "0.5x", "target": "hre"}, r"no target 'hre'; did you mean 'here'"),
        ({"latency": "2"}, r"the unit is missing"),
        ({"latency": "0.5x", "macs": "0.5x"}, r"give one of latency, macs, parameters, bytes"),
    ],
)
def test_what_cannot_be_meant_is_told_before_anything_runs(
    bench: Bench, asked: dict[str, Any], says: str
) -> None:
    bench.recipe(MODULE, variants={"fast": [{"prune": {"to": asked}}]})
    refused(bench.lepton("plan", "recipe.yaml"), (says,))


def test_sensitivity_is_told_drawn_and_kept(bench: Bench) -> None:
    steps = [{"prune": {"ratio": "50 %", "round_to": 4}}]
    bench.recipe(MODULE, variants={"small": steps})
    done = bench.lepton("sensitivity", "recipe.yaml", "--ratios", "0.5,0.75", "--json")
    assert done.code == EXIT_OK, done
    found = json.loads(done.out)
    assert found["judged_on"] == "192 samples of the train split"
    assert found["variant"] == "small"
    assert {each["layer"] for each in found["groups"]} == {"conv1", "conv2"}
    assert all(each["widths"] == [8, 4] for each in found["groups"])
    assert 0.9 < found["reached"] <= 1
    kept = len(bench.entries()["sensitivity"])
    shown = bench.lepton("sensitivity", "recipe.yaml", "--ratios", "0.75,0.5", "--plot", "out.svg")
    assert shown.code == EXIT_OK, shown
    assert "8: " in shown.out
    assert "192 samples of the train split" in shown.out
    picture = (bench.folder / "out.svg").read_text()
    assert all(f"{name} (16)" in picture for name in ("conv1", "conv2"))
    assert len(bench.entries()["sensitivity"]) == kept == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--ratios", "0.5,x"), r"'0\.5,x' is no list of numbers; write for example 0\.25,0\.5"),
        (("--ratios", "0.5,1"), r"ratios are above 0 and below 1"),
        (("--variant", "smal"), r"no variant 'smal'; did you mean 'small'"),
        (("--variant", "int8"), r"the variant 'int8' has no step prune"),
        (("--metric", "acuracy"), r"no metric 'acuracy'; did you mean 'accuracy'"),
        (("--plot", "out.pdf"), r"out\.pdf: is neither \.svg nor \.png"),
    ],
)
def test_what_sensitivity_cannot_do_is_told(
    bench: Bench, given: tuple[str, ...], says: str
) -> None:
    bench.recipe(MODULE)
    refused(bench.lepton("sensitivity", "recipe.yaml", *given), (says,))


def test_a_graph_has_no_groups(bench: Bench) -> None:
    done = bench.lepton("sensitivity", "graph.yaml")
    assert done.code == EXIT_USER
    assert "channels are pruned in torch modules" in done.err
