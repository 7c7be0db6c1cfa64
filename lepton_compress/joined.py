"""Runs that are over, as one report: in HTML, Markdown, JSON or a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lepton_compress.artifacts import RunResult
from lepton_compress.compare import differences
from lepton_compress.errors import InputError, OutputError
from lepton_compress.report import folder
from lepton_compress.report.chart import Chart, charts
from lepton_compress.report.markdown import markdown
from lepton_compress.store import writing

Kind = Literal["html", "markdown", "json", "png", "svg"]
SUFFIXES: dict[str, Kind] = {
    ".html": "html",
    ".htm": "html",
    ".md": "markdown",
    ".json": "json",
    ".png": "png",
    ".svg": "svg",
}


def report(paths: Sequence[Path], kind: Kind) -> bytes:
    """The results in these run folders as one report of that kind.

    Raises:
        InputError: one is no result, or there is nothing to draw in a picture.
        MissingExtraError: a picture is asked for and matplotlib is not installed.
    """
    results = [folder.read_result(path) for path in paths]
    notes = list(differences(results))
    if kind == "markdown":
        return "\n".join([*(f"> {note}\n" for note in notes), *map(markdown, results)]).encode()
    if kind == "json":
        held = [json.loads(folder.to_json(result)) for result in results]
        return (json.dumps({"notes": notes, "results": held}, indent=1) + "\n").encode()
    if kind == "html":
        from lepton_compress.report.html import html

        return html(results, [_recipe(result) for result in results], notes).encode()
    from lepton_compress.report.figure import figure

    drawn = [one for result in results for one in _latency(result)]
    if not drawn:
        raise InputError("has nothing to draw: no score, or no latency", where=str(paths[0]))
    title = ", ".join(dict.fromkeys(result.recipe for result in results))
    return figure(drawn, title, kind=kind)


def kind_of(out: Path | None) -> Kind:
    """What a file's name asks for; HTML where it asks for nothing."""
    return SUFFIXES.get(out.suffix.lower(), "html") if out else "html"


def place(out: Path | None, kind: Kind) -> Path:
    """The file to write: as named, or called `report` in the folder named, or in this one.

    Raises:
        OutputError: the folder that it would lie in does not exist.
    """
    suffix = next(suffix for suffix, each in SUFFIXES.items() if each == kind)
    file = Path("report").with_suffix(suffix)
    made = file if out is None else out / file if out.is_dir() else out
    if not made.parent.is_dir():
        raise OutputError("no such folder", where=str(made.parent), mend="make it, or name another")
    if made.name == folder.RESULT:
        raise OutputError("is where a run keeps its result", where=str(made), mend="name another")
    return made


def write(content: bytes, file: Path) -> None:
    """Write a report whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(file):
        part = file.with_name(f".{file.name}.part")
        try:
            part.write_bytes(content)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)


def _recipe(result: RunResult) -> str | None:
    """The text of the recipe that a run keeps beside its result."""
    file = result.folder / folder.RECIPE if result.folder else None
    return file.read_text(encoding="utf-8") if file and file.is_file() else None


def _latency(result: RunResult) -> list[Chart]:
    """A chart of each target, over latency if there is one."""
    found = (next(charts(result, choice.target), None) for choice in result.chosen)
    return [each for each in found if each is not None]
