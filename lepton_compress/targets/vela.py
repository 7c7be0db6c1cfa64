"""Running Vela on an artifact, and reading what it writes.

Vela runs in a process of its own: it prints a lot, may exit, and its core is C++. What it says of
operators that it leaves to the host is in its output; figures are in two CSV files.
"""

from __future__ import annotations

import csv
import importlib.metadata
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compress.artifacts import Fallback, Fit, Json, LayerCost
from lepton_compress.errors import LeptonError, MissingExtraError
from lepton_compress.targets import flatbuffer
from lepton_compress.targets.flatbuffer import Operator
from lepton_compress.targets.remedies import QUANTISE, remedy

if TYPE_CHECKING:
    from lepton_compress.targets.ethos_u import EthosU

TIMEOUT = 600.0
COMPILED = "ethos-u"
"""The custom code of what runs on the accelerator."""
_KIBI = 1024
_MOST_SAID = 200
_CAUSE = re.compile(r"ofm: '(?P<name>[^\n]*)'\s*\nReason: (?P<why>[^\n]+)")
_MEMORIES = ("sram", "dram", "on_chip_flash", "off_chip_flash")
_COLUMNS = {
    "Op Cycles": "cycles",
    "NPU": "npu_cycles",
    "SRAM AC": "sram_cycles",
    "DRAM AC": "dram_cycles",
    "OnFlash AC": "on_chip_flash_cycles",
    "OffFlash AC": "off_chip_flash_cycles",
    "MAC Count": "macs",
    "Util% (MAC)": "utilisation_percent",
    "Staging Usage": "staging_bytes",
}


def fit(path: Path, params: EthosU) -> Fit:
    """As the plug-in `ethos-u`.

    Raises:
        MissingExtraError: Vela is not installed.
        InputError: the file is no LiteRT model.
    """
    try:
        from ethosu.vela.tflite.BuiltinOperator import BuiltinOperator
        from ethosu.vela.tflite.Model import Model

        version = importlib.metadata.version("ethos-u-vela")
    except ImportError as error:
        raise MissingExtraError(
            f"ethos-u needs Vela ({error})", mend="pip install 'lepton-compress[ethos-u]'"
        ) from error
    before = flatbuffer.operators(path, Model, BuiltinOperator)
    tool = f"ethos-u-vela {version}"
    asked: dict[str, Json] = {
        "accelerator": params.accelerator,
        "system_config": params.system,
        "memory_mode": params.mode,
        "optimise": params.optimise,
    }
    if params.arena_cache_size is not None:
        asked["arena_cache_size"] = params.arena_cache_size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(path, folder / "model.tflite")
        said, problem = _compile(folder, params)
        if problem:
            return Fit(tool, asked, operators=len(before), problem=problem)
        after = flatbuffer.operators(folder / "model_vela.tflite", Model, BuiltinOperator)
        compiled = (folder / "model_vela.tflite").stat().st_size
        (summary,) = rows(next(folder.glob("*_summary_*.csv")))
        nodes = {each.name: each.place for each in before}
        layers = layer_costs(rows(folder / "model_per-layer.csv"), nodes)
    reasons = causes(said)
    # What Vela leaves alone stays in the graph as it was; all else is in its own operators.
    left = [each for each in after if each.type != COMPILED]
    fallbacks = tuple(
        fallback(
            each,
            reasons.get(each.name, ""),
            original(each, before),
            mixed=len(left) < len(after),
        )
        for each in left
    )
    asked["clock_hz"] = number(summary, "core_clock")
    if len(left) == len(after):
        # Vela gives zeros for what it leaves alone.
        problem, many = _nothing(fallbacks), len(before)
        return Fit(tool, asked, operators=many, fallbacks=fallbacks, problem=problem)
    return Fit(
        tool,
        asked,
        seconds=_seconds(summary, left, before),
        ram=_bytes(summary, "sram"),
        flash=_flash(summary),
        operators=len(before),
        fallbacks=fallbacks,
        layers=layers,
        figures={**figures(summary), "compiled_bytes": compiled},
    )


def _compile(folder: Path, params: EthosU) -> tuple[str, str]:
    """What Vela printed, and why it refuses the model."""
    command = [sys.executable, "-m", "ethosu.vela", "model.tflite", "--output-dir", "."]
    command += ["--accelerator-config", params.accelerator, "--config", "Arm/vela.ini"]
    command += ["--system-config", params.system, "--memory-mode", params.mode]
    command += ["--optimise", params.optimise, "--verbose-performance"]
    if params.arena_cache_size is not None:
        command += ["--arena-cache-size", str(params.arena_cache_size)]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", f"Vela did not finish within {TIMEOUT:.0f} s"
    said = done.stdout.decode(errors="replace")
    if done.returncode:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        last = lines[-1][:_MOST_SAID] if lines else f"exit code {done.returncode}"
        return said, f"Vela cannot compile it: {last}"
    return said, ""


def causes(said: str) -> dict[str, str]:
    """Why operators stay on the host, by the tensor that they give."""
    return {found["name"]: found["why"].strip() for found in _CAUSE.finditer(said)}


def fallback(operator: Operator, reason: str, known: Operator | None, *, mixed: bool) -> Fallback:
    """An operator on the host, with what helps."""
    edge = known.edge if known is not None else False
    helps = remedy(operator.type, reason, edge=edge, mixed=mixed)
    place = known.place if known is not None else operator.name
    return Fallback(operator.type, place, reason, helps)


def original(operator: Operator, before: list[Operator]) -> Operator | None:
    """The same operator in the artifact."""
    same = (each for each in before if (each.type, each.name) == (operator.type, operator.name))
    return next(same, None)


def rows(file: Path) -> list[dict[str, str]]:
    """A CSV file that Vela wrote.

    Raises:
        LeptonError: it is empty.
    """
    with file.open(encoding="utf-8", newline="") as opened:
        found = list(csv.DictReader(opened))
    if not found:
        raise LeptonError(f"Vela wrote an empty {file.name}")
    return found


def number(row: Mapping[str, str], column: str) -> float:
    """A figure of a row; zero where Vela divided by nothing.

    Raises:
        LeptonError: the column is absent or holds no number, as of a Vela that is not known.
    """
    try:
        value = float(row[column])
    except (KeyError, TypeError, ValueError) as error:
        raise LeptonError(f"Vela's output has no number in the column {column!r}") from error
    return value if math.isfinite(value) else 0.0


def layer_costs(table: list[dict[str, str]], nodes: Mapping[str, str]) -> tuple[LayerCost, ...]:
    """Vela's layers in order; one operator of the artifact may be many.

    Args:
        nodes: what to call the place of an operator, by the tensor that it gives.
    """
    return tuple(
        LayerCost(
            name=_named(row["Name"], nodes),
            operator=row["Original Operator"],
            place=row["Target"].lower(),
            figures={ours: number(row, theirs) for theirs, ours in _COLUMNS.items()},
        )
        for row in table
    )


def _named(tensor: str, nodes: Mapping[str, str]) -> str:
    """Vela's own operators are named after a tensor of the artifact, with a word behind it."""
    return nodes.get(tensor) or nodes.get(tensor.rpartition("_")[0]) or tensor


def figures(summary: Mapping[str, str]) -> dict[str, Json]:
    """Cycles, multiply-accumulates and bytes moved, by memory."""
    found: dict[str, Json] = {"macs": number(summary, "nn_macs")}
    for each in ("total", "npu", *(f"{memory}_access" for memory in _MEMORIES)):
        found[f"cycles_{each}"] = number(summary, f"cycles_{each}")
    for memory in _MEMORIES:
        moved = number(summary, f"{memory}_total_bytes")
        used = _bytes(summary, memory)
        if moved or used:
            found[f"{memory}_moved_bytes"] = moved
            found[f"{memory}_used_bytes"] = used
            found[f"{memory}_bandwidth_bytes_per_second"] = (
                number(summary, f"{memory}_bandwidth") * _KIBI**3
            )
    found["weights_bytes"] = number(summary, "total_original_weights")
    found["encoded_weights_bytes"] = number(summary, "total_npu_encoded_weights")
    found["npu_seconds"] = number(summary, "inference_time")
    return found


def _seconds(
    summary: Mapping[str, str], left: list[Operator], before: list[Operator]
) -> float | None:
    """Vela counts no time for operators on the host. Without those that only convert what goes in
    and comes out, a time with any of them missing would be too short."""
    known = [original(each, before) for each in left]
    if any(each is None or not each.edge for each in known):
        return None
    return number(summary, "inference_time") or None


def _bytes(summary: Mapping[str, str], memory: str) -> int:
    return round(number(summary, f"{memory}_memory_used") * _KIBI)


def _flash(summary: Mapping[str, str]) -> int | None:
    """Where the weights are read from DRAM, Vela does not tell what they come from."""
    if summary.get("weights_storage_area", "").lower() == "dram":
        return None
    return _bytes(summary, "on_chip_flash") + _bytes(summary, "off_chip_flash")


def _nothing(fallbacks: tuple[Fallback, ...]) -> str:
    """Why an artifact that compiles all the same does not fit."""
    first = next((each for each in fallbacks if each.remedy == QUANTISE), fallbacks[0])
    why = f": {first.reason}" if first.reason else ""
    helps = first.remedy or QUANTISE
    return f"nothing of it runs on the NPU ({first.operator} at {first.name!r}{why}); {helps}"
