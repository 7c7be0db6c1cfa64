"""`manifest.json`: what a deployer needs of each artifact, beside the artifacts.

Its digest and tensors, and for each target the settings of the session to open it with: those that
everything was measured with, and over them those that tuning found to be faster.
"""

from __future__ import annotations

import json

from lepton_compress.artifacts import Artifact, Json, Profile, RunResult
from lepton_compress.report.plain import plain

MANIFEST = "manifest.json"
VERSION = 1


def manifest(result: RunResult) -> str:
    """The text of the file."""
    body = {
        "manifest": VERSION,
        "recipe": result.recipe,
        "started": result.started,
        "artifacts": [_artifact(result, each) for each in result.artifacts],
    }
    return json.dumps(plain(body), indent=1, allow_nan=False) + "\n"


def _artifact(result: RunResult, one: Artifact) -> dict[str, Json]:
    targets = [
        _target(result, one, each)
        for each in result.profiles
        if (each.candidate, each.format) == (one.candidate, one.format)
    ]
    return {
        "candidate": one.candidate,
        "format": one.format,
        "path": one.path,
        "beside": one.beside,
        "sha256": one.sha256,
        "bytes": one.bytes,
        "inputs": one.inputs,
        "outputs": one.outputs,
        "targets": targets,
    }


def _target(result: RunResult, one: Artifact, profile: Profile) -> dict[str, Json]:
    chosen = any(
        (each.target, each.candidate, each.format) == (profile.target, one.candidate, one.format)
        for each in result.chosen
    )
    tuning = profile.tuning
    tuned = None
    if tuning is not None and tuning.settings:
        tuned = {
            "settings": tuning.settings,
            "latency_ratio": tuning.ratio,
            "latency_ratio_interval": tuning.ratio_interval,
        }
    return {
        "target": profile.target,
        "runtime": profile.runtime,
        "batch": profile.batch,
        "threads": profile.threads,
        "chosen": chosen,
        "measured": profile.status == "measured",
        "session": {**profile.session, **(tuning.settings if tuning else {})},
        "tuned": tuned,
    }
