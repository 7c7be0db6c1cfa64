"""The runtime `onnxruntime-qnn`: what Qualcomm's compiler makes of an artifact for a Hexagon."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from lepton_compress.artifacts import Fit
from lepton_compress.registry import Params, plugin
from lepton_compress.targets.installed import lacking

PACKAGES = ("onnxruntime_qnn",)


class OnnxruntimeQnn(Params):
    """Which Hexagon."""

    architecture: Literal["v68", "v69", "v73", "v75", "v79", "v81"] = Field(
        description="The version of its tensor processor (HTP)."
    )


def _requires(params: OnnxruntimeQnn, targets: tuple[str, ...]) -> list[str]:
    return lacking("onnxruntime-qnn", PACKAGES, "hexagon")


@plugin(
    "runtime",
    "onnxruntime-qnn",
    OnnxruntimeQnn,
    formats=("onnx",),
    simulates=True,
    tells=("flash",),
    requires=_requires,
)
def onnxruntime_qnn(path: Path, params: OnnxruntimeQnn) -> Fit:
    """Qualcomm Hexagon, by ONNX Runtime's QNN provider on this machine (extra `hexagon`).

    Args:
        path: an .onnx file with a batch named `batch`, and no other size open.
        params: the architecture.

    Returns:
        Bytes of the compiled context as flash where all of the artifact is in it, and each operator
        that is left to the processor. No time and no RAM: the simulator tells neither. An artifact
        of which nothing runs on the Hexagon, which the compiler refuses, or whose outputs on the
        simulator are far from ONNX Runtime's, has a `problem`.

    Raises:
        MissingExtraError: the provider is not installed.
        InputError: the file is no ONNX model.
    """
    from lepton_compress.targets import hexagon

    return hexagon.fit(path, params)
