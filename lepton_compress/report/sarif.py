"""A judgement as SARIF 2.1.0, which code hosts show as alerts at the line that sets the gate.

Source: OASIS, Static Analysis Results Interchange Format 2.1.0, sections 3.13 to 3.27.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lepton_compress import __version__
from lepton_compress.artifacts import Status, Verdict
from lepton_compress.judgements import Judgement
from lepton_compress.report.gate import about

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif(judgement: Judgement) -> dict[str, Any]:
    """The file's content."""
    gates = list(dict.fromkeys(each.gate for each in judgement.verdicts))
    rules = [{"id": name, "shortDescription": {"text": f"gate {name}"}} for name in gates]
    driver = {"name": "lepton-compress", "version": __version__, "rules": rules}
    results = [
        _result(judgement, verdict, gates.index(verdict.gate)) for verdict in judgement.verdicts
    ]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(judgement: Judgement, verdict: Verdict, rule: int) -> dict[str, Any]:
    good = verdict.status is Status.PASS
    file, line = judgement.places.get(verdict.gate, (judgement.result, 1))
    place = {"artifactLocation": {"uri": _uri(file)}, "region": {"startLine": line}}
    return {
        "ruleId": verdict.gate,
        "ruleIndex": rule,
        # Of what is no failure the level must be none; what was not decided is let through by
        # nobody, so it is a failure here.
        "kind": "pass" if good else "fail",
        "level": "none" if good else "error",
        "message": {"text": f"{verdict.status} {about(verdict)}: {verdict.reason}"},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {
            "gate/v1": "/".join((verdict.gate, verdict.candidate, verdict.target or ""))
        },
        "properties": {"status": str(verdict.status)},
    }


def _uri(file: str) -> str:
    path = Path(file)
    return path.as_uri() if path.is_absolute() else path.as_posix()
