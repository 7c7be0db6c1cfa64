"""Ranking, and numbers on the edge, without measuring anything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lepton_compress.accounts import (
    Account,
    KernelAccount,
    NodeAccount,
    RangeAccount,
    WeightAccount,
)
from lepton_compress.explain.diagnose import diagnose

RANGE = RangeAccount("x", "uint8", (0.0, 6.0), (0.0, 5.9), 0.0, sqnr_db=40.0, channels=8)
NODE = NodeAccount("conv", "Conv", "x", "int8", "QLinearConv")
ACCOUNT = Account(
    artifact="a.onnx",
    reference="f.onnx",
    exact=True,
    samples=64,
    nodes=(NODE,),
    ranges=(RANGE,),
    stored={},
    levels={},
    kernels=(KernelAccount("QLinearConv", "uint8", 1, 1e-3, 1.0),),
    output_db=40.0,
    arithmetic_db=60.0,
    changed=0.0,
    latency=1e-3,
    reference_latency=2e-3,
    floor=1e-6,
    extensions=("avx2", "avx512_vnni"),
    machine="x86_64",
)
CLIPPED = replace(RANGE, seen=(0.0, 31.2), beyond=0.041, clipping=0.99, sqnr_db=8.0)


def causes(account: Account) -> list[str]:
    return [each.cause for each in diagnose(account)]


def test_nothing_to_find() -> None:
    assert diagnose(ACCOUNT) == ()


def test_numbers_stand_in_the_evidence() -> None:
    (found,) = diagnose(replace(ACCOUNT, ranges=(CLIPPED, RANGE, RANGE)))
    assert found.cause == "clipped_range"
    assert "values reach 31.2 where the range ends at 6: 4.1 % are clipped" in found.evidence


def test_what_the_outputs_suffer_makes_a_finding_surer() -> None:
    ranges = (CLIPPED, RANGE)
    (mild,) = diagnose(replace(ACCOUNT, ranges=ranges))
    (bad,) = diagnose(replace(ACCOUNT, ranges=ranges, output_db=3.0))
    assert bad.confidence > mild.confidence


def test_a_cause_hides_what_follows_from_it() -> None:
    wrong = replace(CLIPPED, is_input=True, beyond=0.6)
    assert causes(replace(ACCOUNT, ranges=(wrong, RANGE))) == ["calibration_normalised_differently"]


def test_findings_stand_in_order_of_confidence() -> None:
    islands = replace(NODE, name="elu", operator="Elu", precision="float32", split=True)
    account = replace(ACCOUNT, ranges=(CLIPPED, RANGE), nodes=(NODE, islands), output_db=1.0)
    found = diagnose(account)
    assert [each.cause for each in found] == ["clipped_range", "float_island"]
    assert found[0].confidence > found[1].confidence


def test_arithmetic_that_differs() -> None:
    assert causes(replace(ACCOUNT, arithmetic_db=4.0)) == ["arithmetic_differs"]


@pytest.mark.parametrize(("machine", "found"), [("x86_64", True), ("aarch64", False)])
def test_signed_activations_are_no_fault_elsewhere(machine: str, found: bool) -> None:
    signed = replace(RANGE, dtype="int8", range=(-6.0, 6.0))
    relu = replace(NODE, name="relu", operator="Relu", precision="float32", split=True)
    account = replace(ACCOUNT, ranges=(signed,), nodes=(NODE, relu), machine=machine)
    assert ("signed_activations" in causes(account)) is found
    # Where the runtime shifts them all to uint8, they cost nothing.
    assert causes(replace(account, nodes=(NODE,))) == []


@pytest.mark.parametrize(
    ("extensions", "found"), [(("avx2",), True), (("avx2", "avx_vnni"), False)]
)
def test_saturation_is_a_matter_of_the_processor(extensions: tuple[str, ...], found: bool) -> None:
    weight = WeightAccount("w", "int8", 9, (-1.0, 1.0), peak=127)
    node = replace(NODE, weight=weight, saturating=0.02)
    account = replace(ACCOUNT, nodes=(node,), extensions=extensions)
    assert ("saturating_target" in causes(account)) is found
    seven = replace(node, weight=replace(weight, peak=64))
    assert causes(replace(account, nodes=(seven,))) == []


def test_overhead_is_told_by_the_floor() -> None:
    small = (KernelAccount("QGemm", "uint8", 3, 4.5e-6, 1.0),)
    account = replace(ACCOUNT, kernels=small, latency=1e-5, reference_latency=1e-5)
    (found,) = diagnose(account)
    assert found.cause == "overhead"
    quick = replace(account, reference_latency=3e-5)
    assert diagnose(quick)[0].confidence < found.confidence
