"""Deployments of small artifacts, and their clouds as real processes."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lepton_compress.place.deployment import Deployment, Part, Rule

FEATURES, HIDDEN, CLASSES = 8, 16, 3
_READY = re.compile(r" on (https?://\S+?)/v1/infer")


def classifier(path: Path, *, noise: float = 0.0, probabilities: bool = False) -> Path:
    """Two dense layers; with `noise` a worse model of the same task."""
    draw = np.random.default_rng(0)
    weights = [draw.normal(size=s) for s in ((FEATURES, HIDDEN), (HIDDEN, CLASSES))]
    spoilt = np.random.default_rng(1)
    held = [each + noise * spoilt.normal(size=each.shape) for each in weights]
    last = "logits" if probabilities else "scores"
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["hidden"], "first"),
        helper.make_node("Relu", ["hidden"], ["active"], "relu"),
        helper.make_node("MatMul", ["active", "second"], [last], "second"),
    ]
    if probabilities:
        nodes.append(helper.make_node("Softmax", [last], ["scores"], "softmax"))
    value, kind = helper.make_tensor_value_info, TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "classifier",
        [value("x", kind, ["batch", FEATURES])],
        [value("scores", kind, ["batch", CLASSES])],
        [
            numpy_helper.from_array(each.astype(np.float32), name)
            for each, name in zip(held, ("first", "second"), strict=True)
        ],
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def samples(count: int = 60) -> dict[str, Any]:
    """Inputs, with the classes that the good model tells."""
    x = np.random.default_rng(2).normal(size=(count, FEATURES)).astype(np.float32)
    draw = np.random.default_rng(0)
    first, second = (
        draw.normal(size=s).astype(np.float32) for s in ((FEATURES, HIDDEN), (HIDDEN, CLASSES))
    )
    return {"x": x, "labels": (np.maximum(x @ first, 0) @ second).argmax(axis=1)}


def deployment(kind: str, folder: Path, **more: Any) -> Deployment:
    """Of each kind; a cascade's edge is the worse model."""
    cloud = Part(classifier(folder / "good.onnx"))
    more = {"timeout": 2.0, "backoff": 0.01, **more}
    if kind == "edge":
        return Deployment("edge", "on the edge", edge=cloud, **more)
    if kind == "cloud":
        return Deployment("cloud", "in the cloud", cloud=cloud, **more)
    if kind == "cascade":
        edge = Part(classifier(folder / "worse.onnx", noise=0.6))
        more.setdefault("rule", Rule(threshold=0.8, temperature=1.5))
        return Deployment("cascade", "both", edge=edge, cloud=cloud, **more)
    from lepton_compress.artifacts import Split
    from lepton_compress.halving import CLOUD, EDGE, halves

    made = halves(cloud.path, "relu", Split({"x": samples()["x"]}), folder / "halves")
    return Deployment(
        "split",
        "cut",
        edge=Part(folder / "halves" / EDGE),
        cloud=Part(folder / "halves" / CLOUD),
        crossing=made.crossing,
        passed=made.passed,
        early=made.early,
        outputs=made.outputs,
        **more,
    )


class Cloud:
    """A running cloud; `url` is its address, `said` its log so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.said, self.url = process, list[str](), ""
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self) -> None:
        """Until it listens."""
        assert self._ready.wait(60), self.said
        assert self.url, "".join(self.said)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            found = _READY.search(line)
            if found:
                self.url = found[1]
                self._ready.set()
        self._ready.set()

    def stop(self, how: int = signal.SIGTERM) -> int:
        """End it as an operator would; its exit code."""
        self.process.send_signal(how)
        return self.process.wait(20)

    def close(self) -> None:
        """End it whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        if self.process.stderr is not None:
            self.process.stderr.close()


@contextlib.contextmanager
def cloud(folder: Path, *arguments: str, **environment: str) -> Iterator[Cloud]:
    """The cloud of a deployment, as its README starts it, without this package in reach."""
    command = [sys.executable, "-u", str(folder / "cloud" / "cloud.py"), "--port", "0", *arguments]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        command, env=kept | environment, stderr=subprocess.PIPE, text=True, cwd=folder
    )
    served = Cloud(process)
    try:
        served.wait()
        yield served
    finally:
        served.close()


def program(folder: Path, name: str) -> ModuleType:
    """`edge.py` or `measure.py` of a deployment, imported from there."""
    path = folder / "edge" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"deployed_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made  # dataclasses look their module up
    spec.loader.exec_module(made)
    return made
