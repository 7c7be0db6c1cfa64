"""The runtime `tflite-micro`: what an artifact takes on a microcontroller, by its interpreter."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from lepton_compress.artifacts import Fit
from lepton_compress.registry import Params, plugin
from lepton_compress.targets.installed import lacking
from lepton_compress.units import Size

PACKAGES = ("tflite_micro", "ai_edge_litert")


class TfliteMicro(Params):
    """How much memory there is to try it with; limits belong to the target."""

    arena: Size = Field(
        64 * 1024 * 1024,
        description="The arena to load it into, as `64 MiB`; what it takes of it is told.",
    )


def _requires(params: TfliteMicro, targets: tuple[str, ...]) -> list[str]:
    return lacking("tflite-micro", PACKAGES, "microcontroller")


@plugin(
    "runtime",
    "tflite-micro",
    TfliteMicro,
    formats=("litert",),
    simulates=True,
    tells=("ram", "flash"),
    alone=True,
    requires=_requires,
)
def tflite_micro(path: Path, params: TfliteMicro) -> Fit:
    """TensorFlow Lite Micro's interpreter, run on this machine (extra `microcontroller`).

    Its reference kernels on this processor say nothing of a microcontroller's time, so that none
    is told. Pointers are of 64 bits here: what a 32-bit device takes is less than the arena told.

    Args:
        path: a .tflite file.
        params: the arena.

    Returns:
        Bytes of the arena as RAM and of the file as flash. An operator that the interpreter lacks
        or refuses, and outputs far from those of LiteRT's own kernels, are a `problem`.

    Raises:
        MissingExtraError: the interpreter, or LiteRT, is not installed.
        InputError: the file is no LiteRT model.
    """
    from lepton_compress.targets import micro

    return micro.fit(path, params)
