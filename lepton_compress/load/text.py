"""The loader `text`: sentences from one file a class, or from a table."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from lepton_compress.errors import InputError
from lepton_compress.load.files import locate
from lepton_compress.load.splitting import Labels, Shares
from lepton_compress.registry import nearest, plugin

Rows = list[tuple[str, str, str]]
"""Text, label and where it stands."""


class TextLoader(Shares):
    """Where the texts lie. Either `classes`, or `path` with the names of its columns."""

    classes: dict[str, str] = Field(
        {},
        description="Label to a file with one text a line; their order is that of the model's "
        "scores. Files lie beside the recipe or in `LEPTON_DATA`.",
    )
    path: str | None = Field(
        None, description="A .csv, or a .tsv with tabs, whose first line names the columns."
    )
    text: str = Field("text", description="Column of the texts.")
    label: str = Field("label", description="Column of the labels.")
    labels: Labels = Field(
        [],
        description="All labels of a table in the order of the model's scores; rows with others "
        "are dropped. By default those found, by the alphabet.",
    )
    sha256: dict[str, str] = Field({}, description="Name of a file, as above, to its SHA-256.")
    bytes: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = Field(
        512, description="Longest text in UTF-8; longer ones are cut, and told."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.classes) == bool(self.path):
            raise ValueError("give either classes or a path")
        if self.classes and len(self.classes) < 2:
            raise ValueError("classes need a file for each of two labels or more")
        files = [*self.classes.values(), *([self.path] if self.path else [])]
        for name in self.sha256:
            if name not in files:
                raise ValueError(f"sha256 names {name!r}; {nearest(name, files)}")
        return self


@plugin("loader", "text", TextLoader)
def load_text(params: TextLoader, folder: Path, seed: int) -> Any:
    """Reads texts as UTF-8 in uint8 (bytes), filled up with zeros, with their labels as int64.

    Raises:
        InputError: a file is missing, no UTF-8 or no table, or no text is left.
    """
    import numpy as np

    from lepton_compress.load.cleaning import clean
    from lepton_compress.load.splitting import part, taken

    rows = _listed(params, folder) if params.classes else _table(params, folder)
    where = params.path or ", ".join(params.classes.values())
    encoded = [cut(text.strip(), params.bytes) for text, _, _ in rows]
    words = [label for _, label, _ in rows]
    found = {word for word in words if word.strip()}  # without one a row is dropped
    labels = list(params.classes) or params.labels or sorted(found)
    cleaned = clean(
        {"text": [each.decode() for each in encoded]},
        words,
        where=where,
        labels=set(labels),
        named=lambda row: rows[row][2],
    )
    notes = list(cleaned.notes)
    long = sum(len(rows[row][0].strip().encode()) > params.bytes for row in cleaned.rows)
    if long:
        notes.append(f"{long} texts were longer than {params.bytes} bytes and cut")
    made = taken(
        part(np.arange(len(cleaned.rows)), params, seed, where),
        {"text": padded([encoded[row] for row in cleaned.rows], params.bytes)},
        np.array([labels.index(words[row]) for row in cleaned.rows], np.int64),
    )
    return {**made, "notes": tuple(notes)}


def cut(text: str, most: int) -> bytes:
    """A text in UTF-8, at most that many bytes and no part of a character at the end."""
    return text.encode()[:most].decode(errors="ignore").encode()


def padded(texts: list[bytes], length: int) -> Any:
    """Texts as uint8 (texts, length), filled up with zeros."""
    import numpy as np

    made = np.zeros((len(texts), length), np.uint8)
    for row, text in enumerate(texts):
        made[row, : len(text)] = np.frombuffer(text, np.uint8)
    return made


def _read(given: str, params: TextLoader, folder: Path) -> tuple[str, str]:
    """What a file holds, and its path."""
    path = locate(given, folder, params.sha256.get(given))
    try:
        return path.read_bytes().decode("utf-8-sig"), str(path)
    except OSError as error:
        raise InputError(f"cannot be read ({error})", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"is not UTF-8 at byte {error.start}",
            where=str(path),
            mend="convert it, for example with `iconv -f LATIN1 -t UTF-8`",
        ) from error


def _listed(params: TextLoader, folder: Path) -> Rows:
    """Each line of each class's file."""
    rows = []
    for label, given in params.classes.items():
        held, path = _read(given, params, folder)
        # Other separators of lines that Unicode has may stand within a text.
        lines = held.replace("\r\n", "\n").removesuffix("\n").split("\n")
        rows += [
            (line.replace("\0", " "), label, f"{path}, line {number}")
            for number, line in enumerate(lines, start=1)
        ]
    return rows


def _table(params: TextLoader, folder: Path) -> Rows:
    """Each row of a table."""
    given = str(params.path)
    held, path = _read(given, params, folder)
    delimiter = "\t" if path.lower().endswith(".tsv") else ","
    # Not by `splitlines`: other separators of lines that Unicode has may stand within a text.
    lines = io.StringIO(held, newline="")
    reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
    rows = []
    try:
        columns = list(reader.fieldnames or [])
        for name in (params.text, params.label):
            if name not in columns:
                raise InputError(f"has no column {name!r}", where=path, mend=nearest(name, columns))
        for row in reader:
            text, label = row[params.text] or "", row[params.label] or ""
            rows.append((text.replace("\0", " "), label, f"{path}, line {reader.line_num}"))
    except csv.Error as error:
        raise InputError(f"line {reader.line_num} cannot be read ({error})", where=path) from error
    return rows
