"""A judgement for machines: JUnit against its schema, SARIF against what it requires, GitHub."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st

from lepton_compress.artifacts import Status, Verdict
from lepton_compress.judgements import Judgement
from lepton_compress.report.github import commands, summary
from lepton_compress.report.junit import junit
from lepton_compress.report.sarif import sarif

DATA = Path(__file__).parents[1] / "data"


def verdict(status: Status, gate: str = "latency", reason: str = "why") -> Verdict:
    return Verdict("int8", "onnx", "edge", gate, status, 1.0, None, 0.5, False, reason)


def judgement(*verdicts: Verdict) -> Judgement:
    return Judgement(
        "runs/tiny",
        "tiny",
        "2026-01-02T03:04:05+00:00",
        passed=all(each.status is Status.PASS for each in verdicts),
        verdicts=verdicts,
        budget="ci/budget.yaml",
        notes=("a note",),
        places={"latency": ("ci/budget.yaml", 3)},
    )


ALL = judgement(*(verdict(status) for status in Status))


@pytest.fixture(scope="module")
def junit_schema() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(str(DATA / "junit.xsd"))


def test_junit_fits_its_schema(junit_schema: xmlschema.XMLSchema) -> None:
    text = junit(ALL)
    junit_schema.validate(text)
    assert 'tests="4" failures="2" errors="1"' in text
    assert 'type="INCONCLUSIVE"' in text


@given(reason=st.text())
def test_junit_carries_any_reason(junit_schema: xmlschema.XMLSchema, reason: str) -> None:
    junit_schema.validate(junit(judgement(verdict(Status.FAIL, reason=reason))))


def test_the_schema_refuses_what_is_no_junit(junit_schema: xmlschema.XMLSchema) -> None:
    broken = junit(ALL).replace("classname", "klass")
    assert not junit_schema.is_valid(broken)


def test_sarif_fits_what_it_requires() -> None:
    schema = json.loads((DATA / "sarif.schema.json").read_text())
    made = sarif(judgement(*ALL.verdicts, verdict(Status.FAIL, "size")))
    jsonschema.validate(made, schema)
    results = made["runs"][0]["results"]
    assert [each["level"] for each in results] == ["none", "error", "error", "error", "error"]
    place = results[0]["locations"][0]["physicalLocation"]
    assert place == {
        "artifactLocation": {"uri": "ci/budget.yaml"},
        "region": {"startLine": 3},
    }
    made["runs"][0]["results"][0]["level"] = "error"  # of a pass
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(made, schema)


def test_github_gets_a_line_for_each_that_does_not_pass() -> None:
    lines = list(commands(judgement(verdict(Status.PASS), verdict(Status.FAIL, reason="5 %\nbad"))))
    assert lines == [
        "::error file=ci/budget.yaml,line=3,title=gate latency%3A FAIL::int8 on edge: 5 %25%0Abad",
        "::notice title=lepton-compress gate::a note",
    ]


def test_github_gets_a_summary() -> None:
    text = summary(ALL)
    assert text.startswith("### Gates: FAILED\n")
    assert "| INCONCLUSIVE | latency | int8 on edge | why |" in text
