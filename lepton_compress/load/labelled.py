"""Files in a folder or .zip, and the labels that folders, names or a table give them."""

from __future__ import annotations

import csv
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lepton_compress.errors import InputError
from lepton_compress.load.splitting import SPLITS

_DIGITS = 18
"""Those that every whole number of 64 bits may have."""


@dataclass(frozen=True)
class Files:
    """What lies in a folder or .zip: names by their path in it, sorted, and how to read one."""

    names: list[str]
    read: Callable[[str], bytes]
    where: str


def opened(path: Path) -> Files:
    """A folder or a .zip.

    Raises:
        InputError: it is neither.
    """
    if path.is_dir():
        held = (each for each in path.rglob("*") if each.is_file())
        names = sorted(each.relative_to(path).as_posix() for each in held)
        return Files(names, lambda name: (path / name).read_bytes(), str(path))
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, NotImplementedError, zipfile.BadZipFile) as error:
        raise InputError(f"neither a folder nor a .zip ({error})", where=str(path)) from error
    names = sorted(each.filename for each in archive.infolist() if not each.is_dir())
    tops = {name.partition("/")[0] for name in names}
    # One folder around everything is how most archives are made.
    top = f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in names) else ""

    def read(name: str) -> bytes:
        try:
            return archive.read(top + name)
        except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError) as error:
            raise InputError(f"cannot be unpacked ({error})", where=f"{path}/{name}") from error

    return Files([name.removeprefix(top) for name in names], read, str(path))


def by_table(table: str, files: Files) -> dict[str, str]:
    """Name of each file that a CSV with the columns `file` and `label` names, to its label.

    Raises:
        InputError: it is missing or malformed, or names a file that is not there.
    """
    return dict(sorted(_tabled(table, files)))


def by_name(names: list[str], pattern: str, where: str) -> dict[str, str]:
    """Each name to what the group `label` of a pattern matches in its last part.

    Raises:
        InputError: a name does not match.
    """
    found = {}
    for name in names:
        match = re.fullmatch(pattern, PurePosixPath(name).name)
        if match is None or match["label"] is None:
            raise InputError(
                f"the name of {name} does not match {pattern!r}",
                where=where,
                mend="correct `label`; it must match the whole name",
            )
        found[name] = match["label"]
    return found


def by_folder(names: list[str], where: str) -> dict[str, str]:
    """Each name to the folder that it is in; those of the splits are no labels.

    Raises:
        InputError: one lies in none.
    """
    split = has_splits(names)
    found = {}
    for name in names:
        parents = PurePosixPath(name).parts[1 if split else 0 : -1]
        if not parents:
            raise InputError(
                f"{name} is in no folder that could be its label",
                where=where,
                mend="sort the files into a folder for each label, or give `label` or `table`",
            )
        found[name] = parents[-1]
    return found


def has_splits(names: Collection[str]) -> bool:
    """Whether they lie in folders of their splits."""
    return {"train", "evaluation"} <= {PurePosixPath(name).parts[0] for name in names}


def splits_of(names: list[str], where: str) -> list[str] | None:
    """The split of each name, if they lie in folders of their splits.

    Raises:
        InputError: some do and one does not.
    """
    if not has_splits(names):
        return None
    found = [PurePosixPath(name).parts[0] for name in names]
    for name, split in zip(names, found, strict=True):
        if split not in SPLITS:
            raise InputError(
                f"{name} is in none of the folders {', '.join(SPLITS)}",
                where=where,
                mend="move it into one of them, or take it out",
            )
    return found


def _tabled(table: str, files: Files) -> Iterator[tuple[str, str]]:
    where = f"{files.where}/{table}"
    if table not in files.names:
        raise InputError("no such file", where=where, mend="`table` is a file in `path`")
    try:
        rows = list(csv.DictReader(io.StringIO(files.read(table).decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not a CSV in UTF-8 ({error})", where=where) from error
    if not rows or not {"file", "label"} <= rows[0].keys():
        raise InputError(
            "lacks the columns file and label", where=where, mend="its first line names them"
        )
    known, seen = set(files.names), set[str]()
    for line, row in enumerate(rows, start=2):
        name, label = row["file"], row["label"]
        if name not in known:
            raise InputError(f"no such file {name!r}", where=f"{where}:{line}")
        if name in seen or not label:
            problem = f"{name} stands twice" if label else f"{name} has no label"
            raise InputError(problem, where=f"{where}:{line}")
        seen.add(name)
        yield name, label


def numbers(labels: list[str] | None, labelled: dict[str, str], where: str) -> list[int]:
    """The label of each file as a number.

    Raises:
        InputError: one is not among the labels that there are to be, or too large a number.
    """
    if labels is None and all(re.fullmatch("[0-9]+", label) for label in labelled.values()):
        for name, label in labelled.items():
            if len(label) > _DIGITS:
                raise InputError(
                    f"the label {label!r} of {name} is too large for the number of a class",
                    where=where,
                    mend="give all labels, in the order of the model's scores, as `labels`",
                )
        return [int(label) for label in labelled.values()]
    index = {label: row for row, label in enumerate(labels or sorted(set(labelled.values())))}
    for name, label in labelled.items():
        if label not in index:
            raise InputError(
                f"the label {label!r} of {name} is not among `labels`",
                where=where,
                mend=f"known are {', '.join(index)}",
            )
    return [index[label] for label in labelled.values()]
