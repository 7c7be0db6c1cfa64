"""`quantize: auto` as a user writes it."""

from __future__ import annotations

from lepton_compress.errors import EXIT_OK, EXIT_USER
from tests.bench import GRAPH, Bench


def test_the_search_leaves_the_faster_of_int8_and_float(bench: Bench) -> None:
    steps = [{"quantize_auto": {"drop": "20 %", "patience": "200 ms"}}]
    bench.recipe(GRAPH, variants={"auto": steps})
    done = bench.lepton("run", "recipe.yaml")
    assert done.code == EXIT_OK, done
    result = bench.result()
    (record,) = [
        each for each in result["candidates"][1]["history"] if each["step"] == "quantize_auto"
    ]
    base, auto = (each["sha256"] for each in result["artifacts"])
    # Which one depends on the machine; that the reason and all that was tried stand there does not.
    assert record["changed"] is (base != auto)
    assert record["changed"] is not bool(record["declined"])
    assert "of its time on here" in (record["declined"] or "of its time on here")
    assert {"budget", "judged_by", "judged_on", "tried"} <= record["statistics"].keys()
    text = (bench.folder / "runs/tiny/report.md").read_text()
    assert (record["declined"] or record["notes"][0]) in text
    again = bench.lepton("run", "recipe.yaml")
    assert again.code == EXIT_OK, again
    assert bench.result()["candidates"][1]["history"][-1]["cached"]


def test_the_short_spelling(bench: Bench) -> None:
    bench.recipe(GRAPH, variants={"auto": [{"quantize": "auto"}]})
    assert bench.lepton("validate", "recipe.yaml").code == EXIT_OK
    bench.recipe(GRAPH, variants={"auto": [{"quantize": "fast"}]})
    done = bench.lepton("validate", "recipe.yaml")
    assert done.code == EXIT_USER
    assert "must be the name of one step, or that name with its parameters" in done.err
