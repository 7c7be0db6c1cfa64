"""Small models trained once, and their accounts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from lepton_compress.accounts import Account
from lepton_compress.artifacts import Split
from lepton_compress.explain import account
from lepton_compress.report.silent import Silent
from reference_models.digits_cnn.data import load
from tests.explain import planting
from tests.explain.planting import Array, Weights

Explainer = Callable[..., Account]
VNNI = ("avx2", "avx512f", "avx512_vnni")


@pytest.fixture(scope="session")
def digits() -> dict[str, tuple[Array, Array]]:
    return load()


@pytest.fixture(scope="session")
def trained(digits: dict[str, tuple[Array, Array]]) -> Weights:
    """Weights of the small network on grey digits."""
    return planting.weights_of(planting.train(planting.cnn(), *digits["train"]))


@pytest.fixture(scope="session")
def trained_on_colours(digits: dict[str, tuple[Array, Array]]) -> Weights:
    """The same on coloured ones."""
    images, labels = digits["train"]
    net = planting.train(planting.cnn(3), planting.coloured(images), labels)
    return planting.weights_of(net)


@pytest.fixture
def explained(tmp_path: Path, digits: dict[str, tuple[Array, Array]]) -> Explainer:
    """Accounts of an artifact: `explained(artifact, reference)`."""

    def make(
        artifact: onnx.ModelProto,
        reference: onnx.ModelProto | None,
        *,
        evaluation: Array | None = None,
        calibration: Array | None = None,
        calibration_samples: int | None = None,
        name: str = "image",
        extensions: tuple[str, ...] = VNNI,
        samples: int = 128,
    ) -> Account:
        onnx.save(artifact, tmp_path / "artifact.onnx")
        if reference is not None:
            onnx.save(reference, tmp_path / "float.onnx")
        images = digits["evaluation"][0] if evaluation is None else evaluation
        request = account.Request(
            artifact=tmp_path / "artifact.onnx",
            reference=tmp_path / "float.onnx" if reference is not None else None,
            evaluation=Split({name: np.ascontiguousarray(images)}),
            calibration=None if calibration is None else Split({name: calibration}),
            samples=samples,
            extensions=extensions,
            machine="x86_64",
            calibration_samples=calibration_samples,
        )
        return account.make(request, artifact, reference, Silent())

    return make


def describe(found: Any) -> str:
    """Findings in short, for assertions that fail."""
    return "\n".join(f"{each.confidence:.2f} {each.cause}: {each.evidence}" for each in found)
