"""What a recipe may say of a device, and how results from devices are judged and compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lepton_compress.artifacts import Status
from lepton_compress.errors import RecipeError
from lepton_compress.gate import RUNS, Measured, judge, select
from lepton_compress.job import check_forms
from lepton_compress.recipe import TargetSpec, from_target, from_values
from tests.measured import artifact, parity, profile, recipe, score

PI: dict[str, Any] = {"name": "pi", "runtime": "onnxruntime-cpu", "host": "pi@device"}


@pytest.mark.parametrize("host", ["pi", "pi@10.0.0.7", "pi@[fe80::1%eth0]", "my.host-2", "a_b@c"])
def test_hosts(host: str) -> None:
    assert from_target(PI | {"host": host}).host == host


@pytest.mark.parametrize(
    "host", ["-oProxyCommand=x", "a b", "$(x)", "a;b", "pi@", "`x`@y", "a\nb", "'x'"]
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(RecipeError, match=r"host: .* is no name of a host; write it as"):
        from_target(PI | {"host": host})


@pytest.mark.parametrize(
    ("key", "value"), [("port", 22), ("identity", "key"), ("python", "py"), ("directory", "/d")]
)
def test_how_to_reach_a_host_goes_with_one(key: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=rf"{key}: goes with a `host`"):
        from_target({"runtime": "onnxruntime-cpu", key: value})


def test_a_port_is_in_range_and_a_path_is_one_line() -> None:
    with pytest.raises(RecipeError, match="port"):
        from_target(PI | {"port": 70000})
    with pytest.raises(RecipeError, match="directory: holds a control character"):
        from_target(PI | {"directory": "a\nb"})


def test_a_step_that_measures_does_not_pretend_to_do_so_on_a_device() -> None:
    values: dict[str, Any] = {
        "version": 1,
        "name": "auto",
        "model": {"onnx": "model.onnx"},
        "data": {"python": {"function": "data.py:load"}},
        "metrics": ["accuracy"],
        "variants": {"a": ["quantize_auto"]},
    }
    with pytest.raises(RecipeError, match="quantize_auto measures on this machine, but pi is on"):
        check_forms(from_values(values | {"targets": [PI]}, Path()))
    check_forms(from_values(values | {"targets": [PI, "onnxruntime-cpu"]}, Path()))


@pytest.mark.parametrize(
    ("unreached", "status", "says"),
    [
        (True, Status.NOT_MEASURED, "was not measured there (pi@device: gone)"),
        (False, Status.FAIL, "cannot run there (pi@device: gone)"),
    ],
)
def test_a_device_that_is_gone_is_no_fault_of_the_artifact(
    unreached: bool, status: Status, says: str
) -> None:
    names = ["baseline", "a"]
    failed = {"status": "failed", "reason": "pi@device: gone", "unreached": unreached}
    measured = Measured(
        baseline="baseline",
        artifacts=[artifact(name) for name in names],
        parities=[parity(name) for name in names],
        scores=[score(name) for name in names],
        profiles=[profile(name, None, target="pi", **failed) for name in names],
    )
    asked = recipe(targets=[PI], gates={"latency": "1 h"})
    verdicts = judge(asked, measured)
    assert {(v.status, v.reason) for v in verdicts if v.gate == RUNS} == {(status, says)}
    assert {v.status for v in verdicts if v.gate == "latency"} == {Status.NOT_MEASURED}
    (choice,) = select(asked, measured, verdicts)
    assert (choice.candidate, choice.met) == (None, False)
    assert says in choice.reason


def test_a_target_is_equal_with_and_without_defaults() -> None:
    assert from_target(PI) == TargetSpec(**PI, python="python3")
    assert replace(profile("a"), device={"host": "x"}) != profile("a")
