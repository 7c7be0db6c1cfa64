"""Compress a trained model, prove what it costs and what it gains, and choose what to ship.

import lepton_compress

result = lepton_compress.run("recipe.yaml")
result = lepton_compress.compress(model, data=splits, steps=["quantize"], gates={"drop": "1 %"})
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lepton_compress.artifacts import (
        Artifact,
        Candidate,
        Choice,
        Dataset,
        MetricOutcome,
        Model,
        Parity,
        Profile,
        RunResult,
        Score,
        Split,
        Status,
        StepContext,
        StepOutcome,
        Verdict,
    )
    from lepton_compress.during_training.session import TrainingSession
    from lepton_compress.errors import LeptonError, UserError
    from lepton_compress.library import compress
    from lepton_compress.pipeline import run
    from lepton_compress.placing import place
    from lepton_compress.registry import Params, plugin
    from lepton_compress.report.folder import read_result

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "Candidate",
    "Choice",
    "Dataset",
    "LeptonError",
    "MetricOutcome",
    "Model",
    "Params",
    "Parity",
    "Profile",
    "RunResult",
    "Score",
    "Split",
    "Status",
    "StepContext",
    "StepOutcome",
    "TrainingSession",
    "UserError",
    "Verdict",
    "__version__",
    "compress",
    "place",
    "plugin",
    "read_result",
    "run",
]

_ON_USE = {
    **dict.fromkeys(__all__, "lepton_compress.artifacts"),
    "LeptonError": "lepton_compress.errors",
    "UserError": "lepton_compress.errors",
    "Params": "lepton_compress.registry",
    "plugin": "lepton_compress.registry",
    "compress": "lepton_compress.library",
    "read_result": "lepton_compress.report.folder",
    "run": "lepton_compress.pipeline",
    "TrainingSession": "lepton_compress.during_training.session",
    "place": "lepton_compress.placing",
}
"""Imported when first asked for, so that `import lepton_compress` costs next to nothing."""


# The import system puts a package into its parent when it is first loaded. Loaded later,
# `lepton_compress.compress` would hide the function of that name.
importlib.import_module("lepton_compress.compress")
globals().pop("compress")
importlib.import_module("lepton_compress.place")
globals().pop("place")


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_ON_USE[name]), name)
    globals()[name] = value
    return value
