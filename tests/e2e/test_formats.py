"""ONNX and LiteRT artifacts of one recipe, through the command line: an ONNX model goes in, both
come out, each is measured in its own runtime, and both can be asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from lepton_compress.errors import EXIT_GATE, EXIT_OK
from lepton_compress.verify import AGREEMENT, DEVIATION, METRIC
from tests.bench import GRAPH, Bench, Done, copy_of, refused, splits

pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")

BOTH: dict[str, Any] = {
    "exports": ["onnx", "litert"],
    "targets": [{"name": "graphs", "runtime": "onnxruntime-cpu"}, "litert-cpu"],
    "variants": {"int8": ["quantize"]},
    "postprocess": [{"classes": {"labels": ["north", "east", "south", "west"]}}],
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, furnished: Path) -> tuple[Bench, Done]:
    """The small network's graph, written in both formats."""
    bench = copy_of(furnished, tmp_path_factory.mktemp("formats") / "bench")
    done = bench.lepton("run", bench.recipe(GRAPH, **BOTH))
    assert done.code == EXIT_OK, done
    return bench, done


@pytest.fixture(scope="module")
def narrowed(ran: tuple[Bench, Done]) -> tuple[Bench, Done]:
    """Files for four samples a call, whose weights are rounded; one format without a target."""
    bench, _ = ran
    changes = {
        "exports": ["onnx", {"litert": {"batch": 4, "weights": "int8"}}],
        "targets": [{"name": "phone", "runtime": "litert-cpu", "batch": 4}],
        "variants": {"narrow": [], "int8": ["quantize"]},
    }
    done = bench.lepton("run", bench.recipe(GRAPH, "narrow", **changes), "--out", "narrow")
    assert done.code == EXIT_OK, done
    return bench, done


class TestRun:
    def test_each_target_has_the_artifacts_that_it_takes(self, ran: tuple[Bench, Done]) -> None:
        result = ran[0].result()
        found = {(each["candidate"], each["format"], each["target"]) for each in result["profiles"]}
        assert found == {
            (name, kind, target)
            for name in ("baseline", "int8")
            for kind, target in (("onnx", "graphs"), ("litert", "litert-cpu"))
        }
        assert all(each["status"] == "measured" for each in result["profiles"])
        assert {(each["target"], each["format"]) for each in result["chosen"]} == {
            ("graphs", "onnx"),
            ("litert-cpu", "litert"),
        }

    def test_the_two_answer_alike(self, ran: tuple[Bench, Done]) -> None:
        result = ran[0].result()
        apart = {
            (each["candidate"], each["metric"]): each["value"]
            for each in result["parities"]
            if each["format"] == "litert"
        }
        assert apart["int8", AGREEMENT] == 0
        assert apart["int8", DEVIATION] < 0.01
        scores = {(each["candidate"], each["format"]): each["value"] for each in result["scores"]}
        assert scores["int8", "onnx"] == scores["int8", "litert"]
        assert scores["baseline", "onnx"] == scores["baseline", "litert"]

    def test_the_integers_are_there(self, ran: tuple[Bench, Done]) -> None:
        held = {
            (each["candidate"], each["format"]): each["operators"]
            for each in ran[0].result()["artifacts"]
        }
        assert held["int8", "litert"]["CONV_2D"] == {"int8": 2}
        assert held["baseline", "litert"]["CONV_2D"] == {"float32": 2}

    def test_the_table_tells_both_targets(self, ran: tuple[Bench, Done]) -> None:
        out = ran[1].out
        assert "chosen on graphs: " in out
        assert "chosen on litert-cpu: " in out

    def test_again_is_the_same(self, ran: tuple[Bench, Done]) -> None:
        bench, _ = ran
        before = {each["path"]: each["sha256"] for each in bench.result()["artifacts"]}
        done = bench.lepton(
            "run", bench.recipe(GRAPH, **BOTH), "--workspace", "other", "--out", "again"
        )
        assert done.code == EXIT_OK, done
        assert before == {e["path"]: e["sha256"] for e in bench.result("again")["artifacts"]}


class TestAfter:
    def test_a_gate_measures_both_again(self, ran: tuple[Bench, Done]) -> None:
        bench, _ = ran
        (bench.folder / "budget.yaml").write_text("latency: 10 s\nsize: 1 MB\n")
        done = bench.lepton("gate", "runs/tiny", "--budget", "budget.yaml", "--measure", "--json")
        assert done.code == EXIT_OK, done
        made = json.loads(done.out)["verdicts"]
        assert {(e["format"], e["target"]) for e in made if e["gate"] == "latency"} == {
            ("onnx", "graphs"),
            ("litert", "litert-cpu"),
        }

    def test_a_gate_on_one_of_them_can_fail(self, ran: tuple[Bench, Done]) -> None:
        bench, _ = ran
        limits = "latency: {limit: 1 ns, targets: [litert-cpu]}\n"
        (bench.folder / "hard.yaml").write_text(limits)
        done = bench.lepton("gate", "runs/tiny", "--budget", "hard.yaml")
        assert done.code == EXIT_GATE, done
        assert "litert-cpu" in done.out

    @pytest.mark.parametrize("path", ["artifacts/onnx/int8.onnx", "artifacts/litert/int8.tflite"])
    def test_both_can_be_asked(self, path: str, ran: tuple[Bench, Done]) -> None:
        bench, _ = ran
        images, labels = splits()["evaluation"]
        np.save(bench.folder / "image.npy", images[0])
        done = bench.lepton("predict", f"runs/tiny/{path}", "image.npy", "--json")
        assert done.code == EXIT_OK, done
        (answer,) = json.loads(done.out)["answers"]
        names = BOTH["postprocess"][0]["classes"]["labels"]
        assert answer["guesses"][0]["label"] == names[labels[0]]

    @pytest.mark.parametrize("name", ["runs/tiny", "runs/tiny:int8"])
    def test_the_format_can_be_chosen(self, name: str, ran: tuple[Bench, Done]) -> None:
        bench, _ = ran
        images, _ = splits()["evaluation"]
        np.save(bench.folder / "images.npy", images[:3])
        for kind, end in (("onnx", ".onnx"), ("litert", ".tflite")):
            done = bench.lepton("predict", name, "images.npy", "--format", kind, "--json")
            assert done.code == EXIT_OK, done
            made = json.loads(done.out)
            assert made["artifact"].endswith(end)
            assert len(made["answers"]) == 3
        refused(
            bench.lepton("predict", name, "images.npy", "--format", "coreml"),
            ("has no coreml artifact; it has onnx, litert",),
        )
        file = "runs/tiny/artifacts/litert/int8.tflite"
        done = bench.lepton("predict", file, "images.npy", "--format", "litert")
        refused(done, ("is one file; drop --format",))

    def test_a_litert_file_is_explained_by_its_layers(self, ran: tuple[Bench, Done]) -> None:
        bench, _ = ran
        done = bench.lepton("explain", "runs/tiny/artifacts/litert/int8.tflite")
        refused(done, ("is a LiteRT file, of which layers alone are explained; add --layers",))
        done = bench.lepton("explain", "runs/tiny", "--layers")
        refused(done, (r"name a candidate: runs/tiny:baseline, runs/tiny:int8$",))

    def test_one_array_is_the_only_input(self, ran: tuple[Bench, Done]) -> None:
        bench, _ = ran
        np.save(bench.folder / "raw.npy", splits()["evaluation"][0])
        file = "runs/tiny/artifacts/litert/int8.tflite"
        more = ("--layers", "--data", "raw.npy", "--json")
        done = bench.lepton("explain", file, *more)
        assert done.code == EXIT_OK, done
        assert json.loads(done.out)["samples"] > 0
        (bench.folder / "none.npy").write_bytes(b"")
        done = bench.lepton("explain", file, "--layers", "--data", "none.npy")
        refused(done, (r"none.npy: not an .npz",))

    def test_the_report_names_the_format(self, ran: tuple[Bench, Done]) -> None:
        report = (ran[0].folder / "runs" / "tiny" / "report.md").read_text()
        for kind in ("litert", "onnx"):
            assert f"| int8 ({kind}) |  | parity | PASS |" in report
        assert "## Samples: int8 (" in report or "## Samples" not in report

    def test_a_report_is_drawn_again(self, ran: tuple[Bench, Done]) -> None:
        bench, _ = ran
        done = bench.lepton("report", "runs/tiny")
        assert done.code == EXIT_OK, done


class TestNarrowed:
    def test_the_baseline_keeps_its_weights(self, narrowed: tuple[Bench, Done]) -> None:
        result = narrowed[0].result("narrow")
        held = {(each["candidate"], each["format"]): each for each in result["artifacts"]}
        plain, small = held["baseline", "litert"], held["narrow", "litert"]
        assert small["bytes"] < plain["bytes"]
        assert "DEQUANTIZE" in small["operators"]
        assert "DEQUANTIZE" not in plain["operators"]
        assert held["baseline", "onnx"]["sha256"] == held["narrow", "onnx"]["sha256"]

    def test_all_samples_are_verified_evaluated_and_timed(
        self, narrowed: tuple[Bench, Done]
    ) -> None:
        result = narrowed[0].result("narrow")
        count = len(splits()["evaluation"][0])
        assert {each["samples"] for each in result["scores"]} == {count}
        strict = [
            each
            for each in result["parities"]
            if (each["candidate"], each["format"]) == ("baseline", "litert")
        ]
        assert {each["metric"] for each in strict} == {METRIC}
        assert all(each["value"] <= each["limit"] for each in strict)
        assert all(each["status"] == "measured" for each in result["profiles"])
        scores = {(each["candidate"], each["format"]): each["value"] for each in result["scores"]}
        assert scores["baseline", "onnx"] == scores["baseline", "litert"]

    def test_what_changes_nothing_is_noted(self, narrowed: tuple[Bench, Done]) -> None:
        notes = narrowed[0].result("narrow")["notes"]
        assert any(each.startswith("no target takes onnx files") for each in notes)
        assert any(
            each.startswith("int8, litert: `weights: int8` changes nothing") for each in notes
        )
        assert not any(each.startswith(("narrow, litert", "baseline, litert")) for each in notes)


class TestRefusals:
    def test_a_target_without_its_format(self, ran: tuple[Bench, Done]) -> None:
        bench, _ = ran
        done = bench.lepton("run", bench.recipe(GRAPH, "lone", targets=["litert-cpu"]))
        says = r"lone.yaml:\d+: targets\[0\]: litert-cpu takes litert files, and none is written"
        refused(done, (says,))

    def test_an_operator_that_litert_lacks_is_named(self, ran: tuple[Bench, Done]) -> None:
        bench, _ = ran
        model = onnx.load(bench.folder / "model.onnx")
        for node in model.graph.node:
            node.output[:] = ["before" if name == "scores" else name for name in node.output]
        model.graph.node.append(helper.make_node("Det", ["image"], ["det"], "odd/one"))
        model.graph.node.append(helper.make_node("Add", ["before", "det"], ["scores"], "sum"))
        onnx.save(model, bench.folder / "odd.onnx")
        recipe = {**GRAPH, "model": {"onnx": "odd.onnx"}}
        done = bench.lepton("run", bench.recipe(recipe, "odd", **BOTH))
        assert done.code == 2, done
        assert "odd/one" in done.err
        assert re.search(r"odd.yaml:\d+: exports\[1\]: ", done.err), done
        assert "Det" in done.err
        assert "Traceback" not in done.err
