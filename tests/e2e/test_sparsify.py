"""Sparse variants by the command line: zeros in the file that ships, and what they buy."""

from __future__ import annotations

import zlib

from tests.bench import MODULE, Bench, refused

STEPS = [{"sparsify": {"pattern": "2:4"}}, {"finetune": {"epochs": 1}}, "quantize"]


def test_a_sparse_file_packs_better(bench: Bench) -> None:
    recipe = bench.recipe(MODULE, "asked", variants={"sparse": STEPS, "int8": ["quantize"]})
    done = bench.lepton("run", recipe)
    assert done.code == 0, done
    import onnx
    from onnx import numpy_helper

    artifacts = {each["candidate"]: each for each in bench.result()["artifacts"]}
    for each in artifacts.values():
        data = (bench.folder / "runs/tiny" / each["path"]).read_bytes()
        assert each["deflated"] == len(zlib.compress(data, 6))
    sparse, dense = artifacts["sparse"], artifacts["int8"]
    assert sparse["deflated"] < dense["deflated"]
    graph = onnx.load(bench.folder / "runs/tiny" / sparse["path"]).graph
    held = [numpy_helper.to_array(each) for each in graph.initializer]
    weights = [each for each in held if each.dtype == "int8" and each.ndim > 1]
    shares = sorted((each == 0).mean() for each in weights)
    assert shares[-2] >= 0.5  # all but the first convolution, which has one input channel
    assert bench.result()["controls"][0]["steps"] == ["finetune"]
    assert "no faster by it" in " ".join(done.out.split())
    for name in ("report.md", "report.html"):
        assert "What sparsity buys" in (bench.folder / "runs/tiny" / name).read_text()


def test_contradictions_are_one_line(bench: Bench) -> None:
    steps = [{"sparsify": {"pattern": "4:2"}}]
    recipe = bench.recipe(MODULE, "asked", variants={"sparse": steps})
    refused(bench.lepton("run", recipe), (r"asked\.yaml:.*pattern: 4:2 would leave every weight",))
