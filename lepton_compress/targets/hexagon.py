"""Reading what ONNX Runtime's QNN provider makes of an artifact, and what it says of it."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress.artifacts import Fallback, Fit, Json
from lepton_compress.errors import InputError, MissingExtraError
from lepton_compress.targets import hexagon_program

if TYPE_CHECKING:
    from lepton_compress.targets.onnxruntime_qnn import OnnxruntimeQnn

TIMEOUT = 600.0
LARGE = 16
"""Outputs further apart than this share of their range, one part in so many, are wrong."""
_NAME = "the Hexagon's simulator"
_MOST_SAID = 200
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
"""They belong to their neighbours; those of the model's borders the processor does."""
_SAID = re.compile(
    r"Validation FAILED for \d+ nodes? in OrtNodeUnit \((?P<type>\w+)\) :\n"
    r"(?P<nodes>(?:\tOperator type: .*\n)+)\tREASON : (?P<why>[^\n]*)"
)
_NODE = re.compile(r"Operator type: (?P<type>\S+) Node name: (?P<name>.*) Node index: \d+")
_GIVEN = re.compile(r"(?:_token_\d+|/duplicated)+$")
"""What ONNX Runtime adds to names of nodes that it moves."""
_NOISE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |\S+\.(?:cc|h):\d+ \S+\(.*?\) ")
_ALIGNED = re.compile(r"/align$")
_KEEP = (
    "its channels are filled up for the integer kernels of x86: export it with "
    "`exports: [{onnx: {layout: keep}}]`"
)
_FLOATS = "operators in float32 are often what it cannot: `float16` leaves none"
_QUANTISE = "quantise it to int8, weights and activations, as `quantize` does"
_REMEDIES = {
    **dict.fromkeys(("GRU", "LSTM", "RNN"), "give the model one step: `onnx: {recurrent: step}`"),
    **dict.fromkeys(
        ("Shrink", "Selu", "Celu", "Mish", "Softplus", "ThresholdedRelu"), "use Relu or HardSwish"
    ),
    **dict.fromkeys(
        ("NonZero", "NonMaxSuppression", "Unique", "Compress"),
        "move it out of the model, into what reads the outputs",
    ),
    **dict.fromkeys(
        ("MatMulInteger", "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "MatMulNBits"), _QUANTISE
    ),
}


def fit(path: Path, params: OnnxruntimeQnn) -> Fit:
    """As the plug-in `onnxruntime-qnn`.

    Raises:
        MissingExtraError: the provider is not installed.
        InputError: the file is no ONNX model.
    """
    try:
        version = importlib.metadata.version("onnxruntime-qnn")
    except ImportError as error:
        raise MissingExtraError(
            f"onnxruntime-qnn needs the provider ({error})",
            mend="pip install 'lepton-compress[hexagon]'",
        ) from error
    graph = _graph(path)
    tool = f"onnxruntime-qnn {version}"
    asked: dict[str, Json] = {
        "architecture": params.architecture,
        "compared_with": f"onnxruntime {importlib.metadata.version('onnxruntime')}",
        "draws": hexagon_program.DRAWS,
        "seed": hexagon_program.SEED,
    }
    held = {node.name: node.op_type for node in graph.node}
    count = sum(kind not in (*_CONVERSIONS, "Constant") for kind in held.values())
    if left := _open(graph):
        problem = f"{left}; Hexagons take fixed sizes"
        return Fit(tool, asked, operators=count, problem=problem)
    said, found, context = _run(path, params.architecture)
    why = reasons(said)
    if found is None or "refused" in found:
        last = _last(said) if found is None else _clean(found["refused"])
        aligned = any(map(_ALIGNED.search, held))
        helps = _KEEP if aligned else _FLOATS if "finalize" in last else ""
        problem = f"QNN cannot compile it: {last}{f'; {helps}' if helps else ''}"
        return Fit(tool, asked, operators=count, problem=problem)
    fallbacks = left_over(found["placed"], held, why)
    parts = sum(provider == hexagon_program.PROVIDER for provider, _ in found["placed"])
    if not parts:
        problem = _nothing(fallbacks)
        return Fit(tool, asked, operators=count, fallbacks=fallbacks, problem=problem)
    figures: dict[str, Json] = {
        "parts": parts,
        "context_bytes": context,
        "largest_difference_steps": max(found["steps"], default=0.0),
    }
    return Fit(
        tool,
        asked,
        # What the processor computes has its constants in the artifact, and not in the context.
        flash=None if fallbacks else context,
        operators=count,
        fallbacks=fallbacks,
        figures=figures,
        problem=difference(found),
    )


def reasons(said: str) -> dict[str, str]:
    """Why nodes stay on the processor, by their names in the artifact."""
    found: dict[str, str] = {}
    for unit in _SAID.finditer(said):
        for node in _NODE.finditer(unit["nodes"]):
            # The node's own name follows without a space.
            why = re.split(r"\.(?=[A-Z])", unit["why"].strip())[0].rstrip(".")
            found.setdefault(_GIVEN.sub("", node["name"]), why)
    return found


def left_over(
    placed: Sequence[tuple[str, Sequence[tuple[str, str]]]],
    held: dict[str, str],
    why: dict[str, str],
) -> tuple[Fallback, ...]:
    """The artifact's operators on the processor.

    Args:
        placed: parts of the graph as ONNX Runtime made it: the provider, and its nodes.
        held: the artifact's nodes, name to type.
        why: reasons by name.
    """
    found: dict[str, Fallback] = {}
    for provider, nodes in placed:
        for given, kind in nodes:
            name = _GIVEN.sub("", given)
            # ONNX Runtime adds some to move axes, which are none of the artifact's.
            added = kind == "Transpose" and name not in held
            if provider == hexagon_program.PROVIDER or kind in _CONVERSIONS or added:
                continue
            reason = why.get(name, "")
            found.setdefault(name, Fallback(kind, name, reason, remedy(kind, name)))
    return tuple(found.values())


def remedy(kind: str, name: str) -> str:
    """What helps against a fallback; empty where nothing is known."""
    return _KEEP if _ALIGNED.search(name) else _REMEDIES.get(kind, "")


def difference(found: dict[str, Any]) -> str:
    """Why the outputs cannot be trusted; empty where they can."""
    rows = zip(found["steps"], found["levels"], found["outputs"], strict=True)
    worst = max(rows, key=lambda each: each[0] / each[1], default=None)
    if worst is None or worst[0] * LARGE <= worst[1]:
        return ""
    return (
        f"{_NAME} computes something else than ONNX Runtime: {worst[2]!r} is up to "
        f"{worst[0]:.4g} of {worst[1]:.0f} steps apart"
    )


def _graph(path: Path) -> Any:
    import onnx

    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except Exception as error:  # a parser's, which share no base class
        mend = "give an .onnx file"
        raise InputError("is no ONNX model", where=str(path), mend=mend) from error
    if not graph.node:
        raise InputError("holds no operators", where=str(path))
    return graph


def _open(graph: Any) -> str:
    """Which size of an input is left open beside the batch."""
    constants = {each.name for each in graph.initializer}
    for each in graph.input:
        for axis, size in enumerate(each.type.tensor_type.shape.dim):
            known = size.HasField("dim_value") or size.dim_param == hexagon_program.BATCH
            if each.name not in constants and not known:
                return f"{each.name!r} leaves its size {size.dim_param or axis!r} open"
    return ""


def _run(path: Path, architecture: str) -> tuple[str, dict[str, Any] | None, int]:
    """What was printed, what was found (None where it ended early), and bytes of the context."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-P", hexagon_program.__file__, str(path.resolve())]
        try:
            done = subprocess.run(
                [*command, architecture, name, str(folder / "result.json")],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it took longer than {TIMEOUT:.0f} s", None, 0
        said = done.stdout.decode(errors="replace")
        if done.returncode < 0:
            return f"it crashed (signal {-done.returncode})", None, 0
        if done.returncode or not (folder / "result.json").is_file():
            return said, None, 0
        context = sum(each.stat().st_size for each in folder.glob("*.bin"))
        return said, json.loads((folder / "result.json").read_text(encoding="utf-8")), context


def _nothing(fallbacks: tuple[Fallback, ...]) -> str:
    """Why an artifact that loads all the same does not fit."""
    if not fallbacks:
        return "nothing of it runs on the Hexagon"
    first = next((each for each in fallbacks if each.remedy), fallbacks[0])
    why = f": {first.reason}" if first.reason else ""
    helps = f"; {first.remedy}" if first.remedy else ""
    return f"nothing of it runs on the Hexagon ({first.operator} at {first.name!r}{why}){helps}"


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:_MOST_SAID] if lines else "it ended without a word"


def _clean(said: str) -> str:
    """What ONNX Runtime said, on one line, without codes and its source's signatures."""
    return " ".join(_NOISE.sub("", said).split())[:_MOST_SAID].rstrip(".")
