"""The state of another machine: whether artifacts can be measured there, and how well."""

from __future__ import annotations

import contextlib
import importlib.metadata
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lepton_compress.doctor import int8
from lepton_compress.errors import DeviceError
from lepton_compress.overviews import DeviceCheckup
from lepton_compress.profile.address import Address, environment, lacking
from lepton_compress.profile.places import address, portable
from lepton_compress.profile.ssh import Connection
from lepton_compress.recipe import TargetSpec, from_target
from lepton_compress.units import show_bytes, show_seconds

_ROOM = 500_000_000
"""Bytes below which a device is called short of room."""
_CLOCK = 60.0
"""Seconds that its clock may be off."""
_PINGS = 5


def examine_device(values: dict[str, Any]) -> DeviceCheckup:
    """Connect to a device and look at what measuring there needs.

    Args:
        values: the keys of a recipe's target; paths are relative to the current folder.

    Raises:
        RecipeError: they are wrong.
    """
    target = from_target(values)
    program, packages = portable(target.runtime)
    where = address(target, Path())
    try:
        with Connection(where, packages) as connection:
            received, facts = time.time(), connection.facts
            trip = min(_pings(connection, program))
    except DeviceError as error:
        return DeviceCheckup(target.host, target.runtime, reached=False, problems=(str(error),))
    device = environment(target.host, facts)
    # The answer was on its way for half a round trip.
    ahead = facts["time"] + facts["probing"] + trip / 2 - received
    return DeviceCheckup(
        host=target.host,
        runtime=target.runtime,
        reached=True,
        problems=tuple(_problems(where, facts, target)),
        warnings=tuple(_warnings(device, facts, ahead)),
        device=device,
        executable=facts["executable"],
        int8=int8(device["cpu"]),
        folder=str(Path(facts["folder"]).parent),
        free=facts["free"],
        clock=ahead,
        round_trip=trip,
    )


def _pings(connection: Connection, program: Path) -> Iterator[float]:
    """Seconds of each of a few round trips; a small file proves that the folder can be written."""
    connection.put(program, program.name)
    for _ in range(_PINGS):
        start = time.perf_counter()
        connection.ask({"do": "stop", "worker": ""}, 60.0)
        yield time.perf_counter() - start


def _problems(where: Address, facts: dict[str, Any], target: TargetSpec) -> Iterator[str]:
    yield from map(str, lacking(where, facts))
    if tuple(map(int, facts["python"].split(".")[:2])) < (3, 8):
        yield f"Python there is {facts['python']}, 3.8 or newer is needed; name another `python`"


def _warnings(device: dict[str, Any], facts: dict[str, Any], ahead: float) -> Iterator[str]:
    for name, version in device["libraries"].items():
        here = version
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # not all are packages
            here = importlib.metadata.version(name)
        if version != here:
            yield (
                f"{name} there is {version}, here {here}: accuracy is evaluated here; "
                "install the same to be sure that it holds there"
            )
    if facts["governor"] not in ("", "performance"):
        yield (
            f"its processor's clock follows the load (governor {facts['governor']}), which makes "
            "latencies vary; `sudo cpupower frequency-set -g performance` while measuring"
        )
    if facts["cpus"] is None:
        yield "it cannot pin processes to processors, so latencies vary more"
    if facts["free"] < _ROOM:
        yield (
            f"only {show_bytes(facts['free'])} are free there; free some, or name another "
            "`directory`"
        )
    if abs(ahead) > _CLOCK:
        yield (
            f"its clock is {show_seconds(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}; "
            "set it (`timedatectl set-ntp true`), or dates in its logs mislead"
        )
