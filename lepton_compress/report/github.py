"""A judgement for GitHub Actions: annotations, and Markdown for the summary of the job.

Source: GitHub's documentation of workflow commands; in a message `%`, CR and LF are escaped, in a
property `:` and `,` as well.
"""

from __future__ import annotations

from collections.abc import Iterator

from lepton_compress.judgements import Judgement
from lepton_compress.report.gate import about, headline


def commands(judgement: Judgement) -> Iterator[str]:
    """A workflow command for each verdict that does not pass, and one for each note."""
    for verdict in judgement.bad:
        title = _property(f"gate {verdict.gate}: {verdict.status}")
        place = judgement.places.get(verdict.gate)
        where = f"file={_property(place[0])},line={place[1]}," if place else ""
        said = _message(f"{about(verdict)}: {verdict.reason}")
        yield f"::error {where}title={title}::{said}"
    for note in judgement.notes:
        yield f"::notice title=lepton-compress gate::{_message(note)}"


def summary(judgement: Judgement) -> str:
    """Markdown: the outcome and a row for each verdict."""
    state = "passed" if judgement.passed else "FAILED"
    lines = [f"### Gates: {state}", "", headline(judgement), ""]
    lines += [_row(["", "gate", "artifact", "why"]), _row(["---"] * 4)]
    lines += [
        _row([str(each.status), each.gate, about(each), each.reason]) for each in judgement.verdicts
    ]
    lines += ["", *(f"- note: {note}" for note in judgement.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
