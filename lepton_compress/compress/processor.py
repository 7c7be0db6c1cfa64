"""What a processor's integer arithmetic asks of a quantised model.

Unsigned activations by signed weights are what x86 multiplies fastest. Without VNNI it does so by
`vpmaddubsw`, which adds two products in a saturating 16-bit integer: 255 * 127 * 2 does not fit,
255 * 64 * 2 does, hence weights of seven bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lepton_compress.provenance import is_x86

_BLOCK_KERNELS = ("avx512_vnni", "avx512f", "avx_vnni", "avx2", "asimddp")
_EXACT = ("avx_vnni", "avx512_vnni", "amx_int8")
"""Extensions that add products in 32 bits."""


@dataclass(frozen=True)
class Decision:
    """A value, and why it was taken."""

    value: Any
    why: str

    def told(self) -> dict[str, Any]:
        """As it stands in a step's statistics."""
        return {"value": self.value, "why": self.why}


def activations(asked: str, processor: Mapping[str, Any]) -> Decision:
    """The integer type of activations: `asked`, or what the processor multiplies fastest.

    Args:
        asked: "auto", or a numpy name of an integer type.
        processor: as `provenance.cpu` describes it.
    """
    if asked != "auto":
        return Decision(asked, "asked for")
    if is_x86(processor):
        return Decision("uint8", "x86 multiplies unsigned activations by signed weights fastest")
    return Decision("int8", f"{processor['machine']} multiplies signed by signed fastest")


def saturates(asked: bool | Literal["auto"], processor: Mapping[str, Any]) -> Decision:
    """Whether sums of two 8-bit products saturate on the target.

    Args:
        asked: "auto" looks at the processor; a bool speaks of another one.
        processor: as `provenance.cpu` describes it.
    """
    if asked != "auto":
        return Decision(asked, "asked for")
    if not is_x86(processor):
        return Decision(False, f"{processor['machine']} adds products in 32 bits")
    found = [name for name in _EXACT if name in processor["extensions"]]
    if found:
        return Decision(False, f"{found[0]} adds products in 32 bits")
    if not processor["extensions"]:
        return Decision(True, "the processor's extensions are not known, so the worst is assumed")
    return Decision(True, "x86 without VNNI adds two products in a saturating 16-bit integer")


def weight_bits(asked: int | Literal["auto"], *, saturating: bool) -> Decision:
    """Seven bits where eight would saturate."""
    if asked != "auto":
        return Decision(asked, "asked for")
    if saturating:
        return Decision(7, "sums of two products with 8-bit weights would saturate")
    return Decision(8, "sums of products are exact")


def pools(
    asked: Literal["auto", "keep"], activations: str, processor: Mapping[str, Any]
) -> Decision:
    """Whether to write means over an image as pools, which have an integer kernel on x86.

    Args:
        asked: "keep" leaves the graph as it is.
        activations: numpy name of an integer type.
        processor: as `provenance.cpu` describes it.
    """
    if asked == "keep":
        return Decision(False, "asked for")
    if activations == "uint8" and is_x86(processor):
        return Decision(True, "pools over an image have an integer kernel on x86, means have none")
    return Decision(False, "only the kernels for unsigned activations on x86 ask for it")


def blocked(asked: str, processor: Mapping[str, Any]) -> Decision:
    """What products with weights in blocks are computed in: `asked`, or what is fastest.

    Args:
        asked: "auto", "int8" or "float32".
        processor: as `provenance.cpu` describes it.
    """
    if asked != "auto":
        return Decision(asked, "asked for")
    found = [name for name in _BLOCK_KERNELS if name in processor["extensions"]]
    if found:
        return Decision("int8", f"ONNX Runtime multiplies blocks in int8 with {found[0]}, faster")
    return Decision("float32", "ONNX Runtime has no int8 kernel for blocks here")


def core_cache() -> float | None:
    """Bytes of the largest cache that a core of this machine has for itself, its second level; None
    where the system does not tell."""
    file = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
    text = file.read_text().strip() if file.is_file() else ""
    units = {"K": 1024, "M": 1024**2}
    if text[:-1].isdigit() and text[-1:] in units:
        return float(int(text[:-1]) * units[text[-1]])
    return None
