"""A pruned variant beside its control, in every rendering, by the command line."""

from __future__ import annotations

from pathlib import Path

from tests.bench import MODULE, Bench

STEPS = [{"prune": {"ratio": "50 %"}}, {"distil": {"epochs": 1}}, "quantize"]


def test_a_run_shows_it_and_never_ships_it(bench: Bench) -> None:
    recipe = bench.recipe(MODULE, "asked", variants={"small": STEPS})
    planned = bench.lepton("plan", recipe)
    assert "=> control of small: export onnx, evaluate accuracy" in planned.out
    done = bench.lepton("run", recipe)
    assert done.code == 0, done
    (control,) = bench.result()["controls"]
    assert (control["candidate"], control["steps"]) == ("small", ["distil"])
    score = next(each for each in bench.result()["scores"] if each["candidate"] == "small")
    assert abs(control["value"] - score["value"] - control["drop"]) < 1e-9
    shown = f"{100 * control['value']:.2f} %"
    assert f"unpruned with the same training {shown}" in " ".join(done.out.split())
    for name in ("report.md", "report.html"):
        text = (bench.folder / "runs/tiny" / name).read_text()
        assert f"control {shown}" in text
        assert "unpruned model with the same training" in text
    # It is no candidate: not judged, not measured, not written.
    assert {each["id"] for each in bench.result()["candidates"]} == {"baseline", "small"}
    files = {each.name for each in Path(bench.folder, "runs/tiny/artifacts").iterdir()}
    assert files == {"baseline.onnx", "small.onnx"}
    assert bench.lepton("gate", "runs/tiny").code == 0
    # What it shares with later variants is computed once.
    bench.recipe(MODULE, "asked", variants={"small": STEPS, "trained": [STEPS[1]]})
    again = bench.lepton("run", recipe)
    assert again.code == 0, again
    assert len(bench.entries()["distil"]) == 2
    assert bench.result()["controls"][0]["variant"] == "trained"


def test_it_can_be_turned_off(bench: Bench) -> None:
    recipe = bench.recipe(MODULE, "asked", variants={"small": STEPS}, control=False)
    done = bench.lepton("run", recipe)
    assert done.code == 0, done
    assert bench.result()["controls"] == []
    assert len(bench.entries()["distil"]) == 1
    assert "control" not in done.out
