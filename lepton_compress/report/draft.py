"""A recipe that `init` wrote, on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from lepton_compress.overviews import Written


def show(written: Written, console: Console) -> None:
    """What is left to fill in, and the command that comes next."""
    console.print(Text.assemble("wrote ", (str(written.path), "bold")))
    for blank in written.draft.blanks:
        console.print(Text.assemble(("fill in", "yellow"), f"  {blank}"))
    for note in written.draft.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    console.print(Text.assemble("next: ", (written.next, "bold")))
