"""Reading what TensorFlow Lite Micro tells of an artifact that it was given."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compress.artifacts import Fallback, Fit, Json
from lepton_compress.errors import LeptonError, MissingExtraError
from lepton_compress.targets import flatbuffer, micro_program
from lepton_compress.targets.flatbuffer import Operator
from lepton_compress.targets.remedies import remedy
from lepton_compress.units import show_bytes

if TYPE_CHECKING:
    from lepton_compress.targets.tflite_micro import TfliteMicro

TIMEOUT = 300.0
LARGE = 16
"""Outputs further apart than this share of their range, one part in so many, are wrong."""
_NAME = "TensorFlow Lite Micro"
_PART = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
_LACKING = re.compile(r"Didn't find op for builtin opcode '(?P<type>\w+)'")
_REFUSED = re.compile(
    r"Node (?P<type>\w+) \(number (?P<number>\d+)\) failed to (?P<what>prepare|invoke)"
)
_SMALL = re.compile(
    r"(?:Requested: (\d+), available (\d+), missing: (\d+))|Arena size is too small|"
    r"Failed to (?:resize|allocate) (?:buffer|tail|head|persistent)"
)
_FLOAT = re.compile(r"hybrid|Type FLOAT\d+ \(\d+\) not supported", re.IGNORECASE)
_MOST_SAID = 200


def fit(path: Path, params: TfliteMicro) -> Fit:
    """As the plug-in `tflite-micro`.

    Raises:
        MissingExtraError: the interpreter, or LiteRT, is not installed.
        InputError: the file is no LiteRT model.
    """
    try:
        from ai_edge_litert.schema_py_generated import BuiltinOperator, Model

        tool = f"tflite-micro {importlib.metadata.version('tflite-micro')}"
        against = f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"
    except ImportError as error:
        raise MissingExtraError(
            f"tflite-micro needs its interpreter and LiteRT ({error})",
            mend="pip install 'lepton-compress[microcontroller]'",
        ) from error
    held = flatbuffer.operators(path, Model, BuiltinOperator)
    asked: dict[str, Json] = {
        "arena": params.arena,
        "pointer_bits": 64 if sys.maxsize > 2**32 else 32,
        "compared_with": against,
        "draws": micro_program.DRAWS,
        "seed": micro_program.SEED,
    }
    said, found, code = _run(path, params.arena)
    flash = path.stat().st_size
    if found is None:
        fallbacks, problem = refusal(said, held, code, params.arena)
        return Fit(
            tool,
            asked,
            flash=flash,
            operators=len(held),
            fallbacks=fallbacks,
            problem=problem,
        )
    parts = arena(said)
    return Fit(
        tool,
        asked,
        ram=parts["total"],
        flash=flash,
        operators=len(held),
        figures={
            "arena_head_bytes": parts["head"],
            "arena_tail_bytes": parts["tail"],
            "largest_difference_steps": max(found["steps"], default=0.0),
            **_note(found),
        },
        problem=difference(found),
    )


def _run(path: Path, size: int) -> tuple[str, dict[str, list[float]] | None, int]:
    """What was printed, what was found (None where it ended early), and the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        # `-P`: the folder of the program holds a module that is named like the interpreter.
        command = [sys.executable, "-P", micro_program.__file__, str(path.resolve()), str(size)]
        try:
            done = subprocess.run(
                [*command, str(result)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"took longer than {TIMEOUT:.0f} s", None, 0
        said = done.stdout.decode(errors="replace")
        if done.returncode or not result.is_file():
            return said, None, done.returncode
        return said, json.loads(result.read_text(encoding="utf-8")), 0


def arena(said: str) -> dict[str, int]:
    """Bytes of the arena: `head` for activations, `tail` for what stays, and their total.

    Raises:
        LeptonError: it is not told, as by an interpreter that is not known.
    """
    found = {name: int(size) for name, size in _PART.findall(said)}
    if set(found) != {"total", "head", "tail"}:
        raise LeptonError(f"{_NAME} does not tell what it takes of its arena")
    return found


def refusal(
    said: str, held: list[Operator], code: int, size: int
) -> tuple[tuple[Fallback, ...], str]:
    """What it does not run, and why, from what it printed before it ended."""
    before = said.partition("Traceback (most recent call last)")[0].strip()
    if lacking := _LACKING.search(said):
        kind = lacking["type"]
        found = tuple(
            Fallback(kind, each.place, f"{_NAME} has no such operator", remedy(kind))
            for each in held
            if each.type == kind
        )
        where = ", ".join(repr(each.name) for each in found) or "an unknown place"
        helps = f"; {remedy(kind)}" if remedy(kind) else ""
        return found, f"{_NAME} has no operator {kind}, which stands at {where}{helps}"
    if _SMALL.search(said):
        return (), f"it needs more than the arena of {show_bytes(size)}; raise `arena`"
    if refused := _REFUSED.search(said):
        index = int(refused["number"])
        name = held[index].place if index < len(held) else ""
        why = " ".join(before[: before.find(refused[0])].split())[-_MOST_SAID:]
        why = why.rstrip(".") or f"it fails to {refused['what']}"
        # A kernel that asks for floats says so too: that is not to be mended by integers.
        helps = remedy(refused["type"], "float32" if _FLOAT.search(why) else "")
        one = Fallback(refused["type"], name, why, helps)
        return (one,), f"{_NAME} cannot run {one.operator} at {name!r}: {why}" + (
            f"; {helps}" if helps else ""
        )
    if code < 0:
        return (), f"{_NAME} crashed on it (signal {-code})"
    last = [line.strip() for line in said.splitlines() if line.strip()]
    return (), f"it cannot be run: {last[-1][:_MOST_SAID] if last else f'exit code {code}'}"


def difference(found: dict[str, list[float]]) -> str:
    """Why the outputs cannot be trusted; empty where they can."""
    worst = max(
        zip(found["steps"], found["levels"], found["outputs"], strict=True),
        key=lambda each: each[0] / each[1],
        default=None,
    )
    if worst is None or worst[0] * LARGE <= worst[1]:
        return ""
    return (
        f"{_NAME} computes something else than LiteRT: {worst[2]!r} is up to {worst[0]:.4g} of "
        f"{worst[1]:.0f} steps apart"
    )


def _note(found: dict[str, list[float]]) -> dict[str, Json]:
    """A difference that is more than rounding is told in words."""
    most = max(found["steps"], default=0.0)
    return {"note": f"outputs up to {most:.3g} steps from LiteRT's"} if most > 1 else {}
