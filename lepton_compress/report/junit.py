"""A judgement as JUnit XML, which CI systems show as tests.

FAIL and INCONCLUSIVE are failures, NOT_MEASURED is an error: none of them is let through.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree  # only written with, never read with

from lepton_compress.artifacts import Status, Verdict
from lepton_compress.judgements import Judgement

_OUTSIDE_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(judgement: Judgement) -> str:
    """The text of the file."""
    bad = judgement.bad
    counts = {
        "tests": str(len(judgement.verdicts)),
        "failures": str(sum(each.status is not Status.NOT_MEASURED for each in bad)),
        "errors": str(sum(each.status is Status.NOT_MEASURED for each in bad)),
    }
    root = ElementTree.Element("testsuites", {"name": "lepton-compress gate", **counts})
    about = {"name": _clean(judgement.recipe), **counts, "skipped": "0", "time": "0"}
    suite = ElementTree.SubElement(root, "testsuite", {**about, "timestamp": _stamp(judgement)})
    for verdict in judgement.verdicts:
        suite.append(_case(judgement, verdict))
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(judgement: Judgement, verdict: Verdict) -> ElementTree.Element:
    parts = [judgement.recipe, verdict.target or "every target", verdict.candidate or "nothing"]
    attributes = {"classname": _clean("/".join(parts)), "name": verdict.gate, "time": "0"}
    case = ElementTree.Element("testcase", attributes)
    if verdict.status is not Status.PASS:
        kind = "error" if verdict.status is Status.NOT_MEASURED else "failure"
        said = {"message": _clean(verdict.reason), "type": str(verdict.status)}
        ElementTree.SubElement(case, kind, said).text = _clean(verdict.reason)
    return case


def _stamp(judgement: Judgement) -> str:
    """When the run started, without the zone: the schema knows none."""
    return judgement.started.partition("+")[0].removesuffix("Z")


def _clean(text: str) -> str:
    """Without what XML 1.0 cannot carry."""
    return _OUTSIDE_XML.sub("?", text)
