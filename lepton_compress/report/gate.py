"""A judgement on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lepton_compress.artifacts import Status, Verdict
from lepton_compress.judgements import Judgement

STYLES = {
    Status.PASS: "green",
    Status.FAIL: "bold red",
    Status.INCONCLUSIVE: "yellow",
    Status.NOT_MEASURED: "magenta",
}


def show(judgement: Judgement, console: Console) -> None:
    """A row for each verdict, and whether all is well."""
    console.print(Text(headline(judgement), style="bold"))
    drawn = Table(box=None, header_style="bold", show_header=False)
    for verdict in judgement.verdicts:
        drawn.add_row(
            Text(verdict.status, style=STYLES[verdict.status]),
            Text(verdict.gate),
            Text(about(verdict)),
            Text(verdict.reason),
        )
    console.print(drawn, crop=False)
    for note in judgement.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    bad = len(judgement.bad)
    failed = f"failed: {bad} of {len(judgement.verdicts)} gates"
    state = ("passed", "bold green") if judgement.passed else (failed, "bold red")
    console.print(Text.assemble(state))


def headline(judgement: Judgement) -> str:
    """What was judged, by what."""
    said = f"{judgement.recipe} of {judgement.started}"
    if judgement.budget:
        said += f" by {judgement.budget}"
    if judgement.against:
        said += f" against {judgement.against}"
    return said + (", measured again" if judgement.measured_again else "")


def about(verdict: Verdict) -> str:
    """Which artifact a verdict is about, and on which target."""
    where = f" on {verdict.target}" if verdict.target else ""
    return f"{verdict.candidate or 'nothing'}{where}"
