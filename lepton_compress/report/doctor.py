"""The state of an installation, on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lepton_compress.overviews import Checkup, ExtraCheck, LibraryCheck
from lepton_compress.units import show_bytes


def show(checkup: Checkup, console: Console) -> None:
    """What is there, then what must be mended."""
    libraries = Table.grid(padding=(0, 2))
    for _ in range(4):
        libraries.add_column(no_wrap=True)
    for each in (checkup.python, *checkup.libraries):
        libraries.add_row(*_library(each))
    console.print(Text(f"lepton-compress {checkup.tool}".strip(), style="bold"))
    console.print(libraries, soft_wrap=False)
    console.print()
    console.print(_machine(checkup), soft_wrap=False, highlight=False)
    if checkup.warnings or checkup.problems:
        console.print()
    for warning in checkup.warnings:
        console.print(Text.assemble(("warning", "yellow"), f"  {warning}"))
    for problem in checkup.problems:
        console.print(Text.assemble(("mend", "bold red"), f"  {problem}"))
    if not checkup.problems:
        console.print(Text("ready: everything that is required is there", style="bold green"))


def _library(each: LibraryCheck) -> tuple[Text, Text, Text, Text]:
    state = Text("ok", style="green") if each.met else Text("wrong", style="bold red")
    if not each.version:
        state = Text("missing", style="bold red")
    return state, Text(each.name), Text(each.version), Text(each.wanted, style="dim")


def _machine(checkup: Checkup) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    cores = checkup.cpu["cores"]
    grid.add_row("processor", f"{checkup.cpu['name']}, {cores} usable cores")
    grid.add_row("int8", Text(checkup.int8))
    limits = ", ".join(f"{name}={value}" for name, value in checkup.threads.items())
    grid.add_row("threads", f"at most {cores}" + (f"; {limits}" if limits else ""))
    for number, extra in enumerate(checkup.extras):
        grid.add_row("extras" if number == 0 else "", _extra(extra))
    grid.add_row("workspace", f"{checkup.workspace}, {show_bytes(checkup.free)} free")
    return grid


def _extra(extra: ExtraCheck) -> Text:
    if extra.met:
        return Text.assemble((extra.name, "bold"), "  ", ("installed", "green"))
    lacking = ", ".join(each.name for each in extra.packages if not each.met)
    return Text.assemble(
        (extra.name, "bold"), f"  lacks {lacking}: ", (extra.install, "bold"), style="dim"
    )
