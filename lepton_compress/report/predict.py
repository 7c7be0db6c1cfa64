"""Answers on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lepton_compress.predictions import Answer, Answers, Heard, Listening

_BAR = 24


def show(found: Answers, console: Console) -> None:
    """Each sample with its likeliest classes, and what a call takes."""
    for each in found.answers:
        console.print(Text(each.given, style="bold"), highlight=False)
        for note in each.notes:
            console.print(Text(f"  note: {note}", style="yellow"))
        if each.unsure is not None:
            said = f"  no class reaches the threshold of {each.unsure:.0%}; the nearest are"
            console.print(Text(said, style="yellow"))
        if each.guesses:
            console.print(_guesses(each))
        else:
            console.print(f"  {each.output}: {_values(each)}", markup=False, highlight=False)
    threads = f"{found.threads} thread{'s' * (found.threads > 1)}"
    said = f"{found.milliseconds:.3g} ms a sample on {threads}, preprocessing inside"
    console.print(Text(said, style="dim"))


def heard(one: Heard) -> Text:
    """A line for a window."""
    answer = one.answer
    place = f"{one.start:7.2f} to {one.end:7.2f} s  "
    if not answer.guesses:
        return Text(place + _values(answer))
    best = answer.guesses[0]
    text = "-" if answer.unsure is not None else best.label
    return Text.assemble(place, (f"{text:<16}", "bold"), f" {best.probability:6.1%}")


def listening(found: Listening, console: Console) -> None:
    """Whether the artifact keeps up."""
    state = "keeps up" if found.factor < 1 else "does not keep up"
    said = (
        f"real-time factor {found.factor:.4g}: {state}. {len(found.heard)} windows of "
        f"{found.window:g} s every {found.hop:g} s; {found.busy * 1e3:.3g} ms in all, "
        f"{found.worst:.3g} ms at worst"
    )
    if found.frame is not None and found.typical is not None:
        said = (
            f"real-time factor {found.factor:.4g}: {state}. Each frame of {found.frame * 1e3:g} ms "
            f"is computed once, in {found.typical:.3g} ms, {found.worst:.3g} ms at worst; "
            f"{found.busy * 1e3:.3g} ms in all, {len(found.heard)} answers every {found.hop:g} s"
        )
    console.print(Text(said, style="dim" if found.factor < 1 else "bold red"))


def _guesses(answer: Answer) -> Table:
    drawn = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 1))
    drawn.add_column(no_wrap=True)
    drawn.add_column(justify="right")
    drawn.add_column()
    for number, each in enumerate(answer.guesses):
        bar = "█" * round(_BAR * each.probability)
        style = "bold green" if number == 0 and answer.unsure is None else ""
        drawn.add_row(Text(f" {each.label}", style), f"{each.probability:.1%}", Text(bar, "cyan"))
    return drawn


def _values(answer: Answer) -> str:
    more = " ..." if answer.size > len(answer.values) else ""
    return ", ".join(f"{each:.4g}" for each in answer.values) + more
