"""The state of another machine, on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lepton_compress.overviews import DeviceCheckup
from lepton_compress.units import show_bytes, show_seconds


def show(checkup: DeviceCheckup, console: Console) -> None:
    """What is there, then what must be mended."""
    console.print(Text(checkup.host, style="bold"))
    if checkup.reached:
        console.print(_machine(checkup), soft_wrap=False, highlight=False)
    for warning in checkup.warnings:
        console.print(Text.assemble(("warning", "yellow"), f"  {warning}"))
    for problem in checkup.problems:
        console.print(Text.assemble(("mend", "bold red"), f"  {problem}"))
    if not checkup.problems:
        ready = f"ready: {checkup.runtime} can be measured there"
        console.print(Text(ready, style="bold green"))


def _machine(checkup: DeviceCheckup) -> Table:
    device, cpu = checkup.device, checkup.device["cpu"]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    trip = f"connected, its host key is known, {show_seconds(checkup.round_trip)} a round trip"
    grid.add_row("connection", trip)
    grid.add_row("system", Text(f"{device['system']}, {cpu['machine']}"))
    grid.add_row("processor", Text(f"{cpu['name']}, {cpu['cores']} usable cores"))
    grid.add_row("int8", Text(checkup.int8))
    grid.add_row("python", Text(f"{device['python']}, {checkup.executable}"))
    for name, version in device["libraries"].items():
        grid.add_row(name, Text(version))
    grid.add_row("folder", Text(f"{checkup.folder}, {show_bytes(checkup.free)} free"))
    side = "ahead" if checkup.clock > 0 else "behind"
    grid.add_row("clock", f"{show_seconds(abs(checkup.clock))} {side} of this machine's")
    return grid
