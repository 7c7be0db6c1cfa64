"""Deployments of all kinds, run as real processes on loopback."""

from __future__ import annotations

import ast
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from lepton_compress.errors import InputError, OutputError
from lepton_compress.place.deployment import Deployment, Part, Rule
from lepton_compress.place.exporting import RUNNERS, export
from lepton_compress.place.fleet import HEADER
from lepton_compress.place.runners.link import Link
from lepton_compress.targets.onnxruntime_cpu import onnxruntime_cpu
from tests.place import served
from tests.place.served import Cloud

PROGRAMS = ("batching", "cloud", "edge", "link", "measure", "uplink", "manifest")
KINDS = ("edge", "cloud", "cascade", "split")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A deployment of each kind."""
    made = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        made[kind] = export(served.deployment(kind, folder), folder / "deployed")
    return made


@pytest.fixture(scope="module")
def cascade_cloud(deployed: dict[str, Path]) -> Iterator[Cloud]:
    with served.cloud(deployed["cascade"], "--queue", "4", "--max-batch", "4") as running:
        yield running


def post(url: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    """Status and body of a plain request."""
    host = url.partition("//")[2]
    connection = http.client.HTTPConnection(host, timeout=20)
    try:
        connection.request("POST", "/v1/infer", body, headers)
        got = connection.getresponse()
        return got.status, got.read()
    finally:
        connection.close()


def get(url: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url.partition("//")[2], timeout=20)
    try:
        connection.request("GET", path)
        got = connection.getresponse()
        return got.status, got.read()
    finally:
        connection.close()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_answers_as_the_model_does(kind: str, deployed: dict[str, Path]) -> None:
    folder, given = deployed[kind], served.samples()
    edge = served.program(folder, "edge")
    whole = onnxruntime_cpu(folder.parent / "good.onnx", 1)
    [wanted] = whole.run({"x": given["x"]})

    def check(url: str) -> None:
        with edge.Edge(folder / "edge", url) as device:
            for row in range(10):
                made = device.answer({"x": given["x"][row : row + 1]})
                assert list(made.outputs) == ["scores"]
                sure = made.confidence is not None and made.confidence[0] >= 0.8
                assert made.by == ("edge" if kind == "edge" or sure else "cloud")
                if made.by == "cloud" or kind == "edge":
                    close = pytest.approx(wanted[row], rel=1e-5, abs=1e-6)
                    assert made.outputs["scores"][0] == close
            assert device.counts.requests == 10
            assert device.counts.failed == 0

    if kind == "edge":
        assert not (folder / "cloud").exists()
        check("")
        return
    with served.cloud(folder) as running:
        check(running.url)
        assert running.stop() in (0, -15)


@pytest.mark.parametrize(("kind", "floats"), [("cloud", served.FEATURES), ("split", served.HIDDEN)])
def test_what_crosses_beside_the_arrays_is_what_plans_count(
    kind: str, floats: int, deployed: dict[str, Path]
) -> None:
    folder, x = deployed[kind], served.samples(1)["x"]
    edge = served.program(folder, "edge")
    with (
        served.cloud(folder) as running,
        Link(("127.0.0.1", running.port)) as link,
        edge.Edge(folder / "edge", link.url) as device,
    ):
        device.answer({"x": x})
        before = link.up.passed, link.down.passed
        device.answer({"x": x})
        up, down = link.up.passed - before[0], link.down.passed - before[1]
    assert up - 4 * floats == pytest.approx(HEADER, rel=0.1)
    assert down - 4 * served.CLASSES == pytest.approx(HEADER, rel=0.1)


def test_the_programs_run_without_this_package_and_measure(
    deployed: dict[str, Path], cascade_cloud: Cloud, tmp_path: Path
) -> None:
    folder = deployed["cascade"]
    np.savez(tmp_path / "samples.npz", **served.samples())
    done = subprocess.run(
        [
            *(sys.executable, "-E", str(folder / "edge" / "measure.py")),
            *(str(tmp_path / "samples.npz"), "--rate", "50", "--requests", "120"),
            *("--url", cascade_cloud.url),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["answered"] == told["requests"] == 120
    assert 0 < told["share_up"] < 1
    assert 0.5 < told["accuracy"] <= 1
    assert 0 < told["overhead"] < told["latency"]["p90"]
    assert told["latency"]["p50"] <= told["latency"]["p90"] < 5
    assert told["bytes_up"] > told["sent_up"] * served.FEATURES * 4
    assert "p99" not in told["latency"]  # of 120 requests


def test_the_cascade_is_as_sure_as_the_planner_says(deployed: dict[str, Path]) -> None:
    from lepton_compress.place.cascade import confidence

    edge = served.program(deployed["cascade"], "edge")
    scores = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32) * 3
    rule = {"output": "scores", "scores": "logits", "temperature": 1.7}
    assert edge.confidence({"scores": scores}, rule) == pytest.approx(confidence(scores, 1.7))
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    rule["scores"] = "probabilities"
    assert edge.confidence({"scores": shares}, rule) == pytest.approx(confidence(scores, 1.7))


class TestWithoutTheLink:
    """What stands when the cloud is not reached."""

    def test_a_cascade_goes_on_with_its_own_answers(
        self, deployed: dict[str, Path], cascade_cloud: Cloud
    ) -> None:
        folder, given = deployed["cascade"], served.samples()
        edge = served.program(folder, "edge")
        with (
            Link(("127.0.0.1", cascade_cloud.port)) as link,
            edge.Edge(folder / "edge", link.url, threshold=1.1) as device,
        ):
            assert device.answer({"x": given["x"][:1]}).by == "cloud"
            link.cut()
            without = device.answer({"x": given["x"][:1]})
            assert without.by == "edge"
            assert "no answer from" in without.degraded
            [own] = onnxruntime_cpu(folder.parent / "worse.onnx", 1).run({"x": given["x"][:1]})
            assert without.outputs["scores"] == pytest.approx(own)
            # For a while it does not even try.
            tried = device.counts.attempts
            assert device.answer({"x": given["x"][:1]}).degraded
            assert device.counts.attempts == tried
            link.restore()
            end = time.monotonic() + 20
            while device.answer({"x": given["x"][:1]}).by == "edge":
                assert time.monotonic() < end
                time.sleep(0.05)

    @pytest.mark.parametrize("kind", ["cloud", "split"])
    def test_others_say_that_there_is_no_answer(self, kind: str, deployed: dict[str, Path]) -> None:
        edge = served.program(deployed[kind], "edge")
        url = "http://127.0.0.1:9"  # the discard port, where nobody listens
        with edge.Edge(deployed[kind] / "edge", url) as device:
            with pytest.raises(edge.LinkDownError, match=r"in 3 attempts: .*refused"):
                device.answer({"x": served.samples()["x"][:1]})
            assert device.counts.attempts == 3
            assert device.counts.failed == 1

    def test_a_link_that_breaks_in_mid_run_shows_in_the_measurement(
        self, deployed: dict[str, Path], cascade_cloud: Cloud
    ) -> None:
        folder = deployed["cascade"]
        edge, measure = (served.program(folder, name) for name in ("edge", "measure"))
        with (
            Link(("127.0.0.1", cascade_cloud.port), round_trip=0.002) as link,
            edge.Edge(folder / "edge", link.url, threshold=1.1) as device,
        ):
            load = measure.Load(device, served.samples(), 0)
            load.warm_up()
            timer = threading.Timer(0.4, link.cut)
            timer.start()
            seen = load.run(100.0, 100)
            timer.join()
        told = measure.summary(seen, labelled=True)
        assert told["answered"] == 100
        assert 0 < told["degraded"] < 100
        assert told["sent_up"] == 100 - told["degraded"]


class TestTheCloud:
    """What it takes, and what it refuses."""

    def test_it_says_that_it_is_ready_and_what_it_did(self, cascade_cloud: Cloud) -> None:
        status, body = get(cascade_cloud.url, "/healthz")
        assert status == 200
        assert json.loads(body)["ready"] is True
        post(cascade_cloud.url, b"what?")
        status, body = get(cascade_cloud.url, "/metrics")
        assert status == 200
        assert b'lepton_requests_total{status="400"}' in body
        assert b"lepton_call_seconds_bucket" in body

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"", "no safetensors file"),
            (b"\xff" * 64, "no safetensors file"),
            (b"\x80\x04\x95", "no safetensors file"),
            (save({"y": np.zeros((1, 8), np.float32)}), "has y; the model takes x"),
            (save({"x": np.zeros((1, 8), np.float64)}), "x is float64[1, 8]"),
            (save({"x": np.zeros((1, 9), np.float32)}), "x is float32[1, 9]"),
            (save({"x": np.zeros((8,), np.float32)}), "x is float32[8]"),
            (save({"x": np.zeros((0, 8), np.float32)}), "holds 0 samples"),
            (save({"x": np.zeros((5, 8), np.float32)}), "a request has 1 to 4"),
        ],
    )
    def test_bad_bodies_get_one_line_and_do_no_harm(
        self, cascade_cloud: Cloud, body: bytes, said: str
    ) -> None:
        status, answer = post(cascade_cloud.url, body)
        assert status == 400
        assert said in json.loads(answer)["error"]
        status, answer = post(cascade_cloud.url, save({"x": np.ones((1, 8), np.float32)}))
        assert status == 200
        assert load(answer)["scores"].shape == (1, 3)

    def test_long_bodies_are_not_read(self, tmp_path: Path) -> None:
        given = served.deployment("cloud", tmp_path, max_body=1000)
        with served.cloud(export(given, tmp_path / "deployed")) as running:
            assert post(running.url, b"x" * 1001)[0] == 413
            chunked = iter([b"x" * 600, b"x" * 600])
            connection = http.client.HTTPConnection(running.url.partition("//")[2], timeout=20)
            connection.request("POST", "/v1/infer", chunked, encode_chunked=True,
                               headers={"Transfer-Encoding": "chunked"})  # fmt: skip
            assert connection.getresponse().status == 413
            connection.close()

    def test_a_token_is_asked_for(self, deployed: dict[str, Path]) -> None:
        body = save({"x": np.ones((1, 8), np.float32)})
        folder = deployed["cloud"]
        with served.cloud(folder, LEPTON_TOKEN="open") as running:
            assert post(running.url, body)[0] == 401
            assert post(running.url, body, Authorization="Bearer shut")[0] == 401
            assert post(running.url, body, Authorization="Bearer open")[0] == 200
            assert get(running.url, "/metrics")[0] == 401
            assert get(running.url, "/healthz")[0] == 200
            edge = served.program(folder, "edge")
            with edge.Edge(folder / "edge", running.url, token="wrong") as device:
                with pytest.raises(edge.RefusedError, match="401"):
                    device.answer({"x": served.samples()["x"][:1]})
                assert device.counts.attempts == 1  # which would not help

    def test_it_listens_on_this_machine_alone(self, cascade_cloud: Cloud) -> None:
        assert cascade_cloud.url.startswith("http://127.0.0.1:")

    def test_requests_that_wait_are_computed_together(self, deployed: dict[str, Path]) -> None:
        x = served.samples()["x"]
        whole = onnxruntime_cpu(deployed["cloud"].parent / "good.onnx", 1)
        [wanted] = whole.run({"x": x})
        with served.cloud(deployed["cloud"], "--max-wait", "0.2", "--max-batch", "8") as running:
            with ThreadPoolExecutor(16) as pool:
                bodies = [save({"x": x[row : row + 1]}) for row in range(16)]
                answers = list(pool.map(lambda body: post(running.url, body), bodies))
            for row, (status, body) in enumerate(answers):
                assert status == 200
                assert load(body)["scores"][0] == pytest.approx(wanted[row], rel=1e-5, abs=1e-6)
            _, body = get(running.url, "/metrics")
        calls = next(
            float(line.split()[1])
            for line in body.decode().splitlines()
            if line.startswith("lepton_batch_samples_count")
        )
        assert calls < 16

    def test_more_than_it_can_take_is_refused_and_told_when_to_return(
        self, deployed: dict[str, Path]
    ) -> None:
        """One call waits for others to join it, two requests may wait, and no more."""
        body = save({"x": np.ones((1, 8), np.float32)})
        other = save({"x": np.ones((2, 8), np.float32)})
        options = ("--max-wait", "1.0", "--queue", "2", "--max-batch", "2")
        with served.cloud(deployed["cloud"], *options) as running:
            with ThreadPoolExecutor(12) as pool:
                # Each pair does not fit into one call with the next.
                given = [body, *[other] * 11]
                found = list(pool.map(lambda each: post(running.url, each)[0], given))
            assert set(found) <= {200, 503}
            assert found.count(200) >= 1
            assert post(running.url, other)[0] == 200
            assert any("503" in line for line in running.said) == (503 in found)

    def test_a_model_that_was_exchanged_is_not_served(self, tmp_path: Path) -> None:
        folder = export(served.deployment("cloud", tmp_path), tmp_path / "deployed")
        with (folder / "cloud" / "good.onnx").open("ab") as file:
            file.write(b"\0")
        command = [sys.executable, str(folder / "cloud" / "cloud.py"), "--port", "0"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "another file than the manifest says" in done.stderr
        assert "Traceback" not in done.stderr


class TestExport:
    """The folder that is written."""

    def test_the_programs_import_nothing_of_this_package(self) -> None:
        files = [each for each in RUNNERS.glob("*.py") if each.stem != "__init__"]
        assert {each.stem for each in files} == set(PROGRAMS)
        for file in files:
            nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            named = [
                name
                for node in nodes
                if isinstance(node, ast.Import | ast.ImportFrom)
                for name in [
                    *(alias.name for alias in node.names),
                    getattr(node, "module", None) or "",
                ]
            ]
            assert named
            assert not [name for name in named if name.startswith("lepton_compress")]

    def test_each_side_has_what_it_needs_and_no_more(self, deployed: dict[str, Path]) -> None:
        def names(folder: Path) -> set[str]:
            return {each.name for each in folder.iterdir()} - {"__pycache__"}

        beside = {"manifest.json", "manifest.py", "requirements.txt"}
        common = beside | {"frames.py", "onnxruntime_session.py"}
        cascade = deployed["cascade"]
        assert names(cascade / "edge") == common | {
            "edge.py",
            "uplink.py",
            "measure.py",
            "worse.onnx",
        }
        assert names(cascade / "cloud") == common | {"cloud.py", "batching.py", "good.onnx"}
        assert names(cascade) == {"edge", "cloud", "link.py", "README.md", "deployment.json"}
        sending = names(deployed["cloud"] / "edge")
        assert sending == beside | {"edge.py", "uplink.py", "measure.py"}
        lines = (cascade / "edge" / "requirements.txt").read_text().split()
        assert [line.partition("==")[0] for line in lines] == [
            "numpy",
            "onnxruntime",
            "safetensors",
            "urllib3",
        ]
        assert all("==" in line for line in lines)

    @pytest.mark.parametrize(
        ("kind", "parts", "said"),
        [
            ("edge", (), "an artifact for the edge"),
            ("cloud", ("edge",), "an artifact for the cloud"),
            ("cascade", ("edge", "cloud"), "a threshold"),
            ("split", ("edge", "cloud"), "both halves"),
        ],
    )
    def test_a_part_that_is_missing_is_named(
        self, tmp_path: Path, kind: Any, parts: tuple[str, ...], said: str
    ) -> None:
        model = Part(served.classifier(tmp_path / "model.onnx"))
        given: dict[str, Any] = dict.fromkeys(parts, model)
        with pytest.raises(InputError, match=said):
            export(Deployment(kind, "wrong", **given), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_model_that_takes_one_range_for_a_batch_answers_one_at_a_time(
        self, tmp_path: Path
    ) -> None:
        from onnxruntime.quantization import quantize_dynamic

        plain, rounded = served.classifier(tmp_path / "plain.onnx"), tmp_path / "rounded.onnx"
        quantize_dynamic(plain, rounded)
        most = {}
        for path in (plain, rounded):
            folder = export(Deployment("cloud", "one", cloud=Part(path)), tmp_path / path.stem)
            most[path.stem] = json.loads((folder / "cloud" / "manifest.json").read_text())
        assert most["plain"]["serving"]["max_batch"] == 8
        assert most["rounded"]["serving"]["max_batch"] == 1

    def test_what_is_there_is_not_replaced(self, tmp_path: Path) -> None:
        given = served.deployment("edge", tmp_path)
        with pytest.raises(OutputError, match="is there already"):
            export(given, tmp_path)

    def test_a_runtime_that_needs_this_package_is_refused(self, tmp_path: Path) -> None:
        part = Part(served.classifier(tmp_path / "model.onnx"), runtime="ethos-u")
        with pytest.raises(InputError, match="runs nowhere without"):
            export(Deployment("edge", "there", edge=part), tmp_path / "out")

    def test_an_output_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        given = served.deployment("cascade", tmp_path, rule=Rule(0.5, output="none"))
        with pytest.raises(InputError, match="no output 'none'"):
            export(given, tmp_path / "out")
