"""The run folder: result.json, the artifacts and their manifest, the reports, the ranges that
calibrations found. Written whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_compress import __version__
from lepton_compress.artifacts import SCHEMA_VERSION, RunResult
from lepton_compress.errors import InputError, OutputError, UserError
from lepton_compress.provenance import digest
from lepton_compress.report import migrate
from lepton_compress.report.plain import plain as plain
from lepton_compress.report.plain import restore as restore

# Judging a result reads it and nothing more: what writing needs is imported there.
if TYPE_CHECKING:
    from lepton_compress.ranges import Ranges
    from lepton_compress.recipe import Source

RESULT = "result.json"
REPORT = "report.md"
PAGE = "report.html"
RECIPE = "recipe.yaml"
RANGES = "ranges"


def check_writable(out: Path, workspace: Path) -> None:
    """Find out before a long run whether its folder can be made.

    Raises:
        OutputError: it cannot, or something that is not a run stands in its place.
    """
    if workspace.resolve().is_relative_to(out.resolve()):
        raise OutputError(
            "would replace the workspace, which lies in it",
            where=str(out),
            mend="name another folder",
        )
    if out.is_dir() and any(out.iterdir()) and not (out / RESULT).is_file():
        raise OutputError(
            f"is not empty and holds no {RESULT}", where=str(out), mend="name another folder"
        )
    above = out if out.exists() else next(each for each in out.parents if each.exists())
    if not above.is_dir():
        raise OutputError("is a file, not a folder", where=str(above), mend="name another folder")
    if not os.access(above, os.W_OK):
        raise OutputError("cannot be written", where=str(above), mend="name another folder")


def write(result: RunResult, files: Mapping[str, Path], out: Path, source: Source) -> RunResult:
    """Write a run's folder, in place of an earlier run's.

    A recipe from a file is copied too, and its place beside the folder is noted in the result's
    environment, because paths in it are relative to that place.

    Args:
        files: where each artifact's file is now, by its path in the folder.

    Raises:
        OutputError: the disk is full or cannot be written.
    """
    import yaml

    from lepton_compress.ranges import to_json as to_text
    from lepton_compress.report.html import html
    from lepton_compress.report.manifest import MANIFEST, manifest
    from lepton_compress.report.markdown import markdown
    from lepton_compress.store import writing

    document = source.document
    if document is not None:
        origin = os.path.relpath(source.folder / document.path.name, out.resolve())
        result = dataclasses.replace(result, environment=result.environment | {RECIPE: origin})
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
        try:
            made.chmod(0o755)
            for path, file in files.items():
                (made / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, made / path)
            (made / RESULT).write_text(to_json(result), encoding="utf-8")
            for name, ranges in _ranges(result).items():
                (made / RANGES).mkdir(exist_ok=True)
                (made / RANGES / f"{name}.json").write_text(to_text(ranges), encoding="utf-8")
            (made / MANIFEST).write_text(manifest(result), encoding="utf-8")
            (made / REPORT).write_text(markdown(result), encoding="utf-8")
            text = None
            if document is not None:
                text = yaml.safe_dump(document.value, sort_keys=False, allow_unicode=True)
                (made / RECIPE).write_text(text, encoding="utf-8")
            (made / PAGE).write_text(html([result], [text]), encoding="utf-8")
            _replace(made, out)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    return dataclasses.replace(result, folder=out)


def _ranges(result: RunResult) -> dict[str, Ranges]:
    """Candidate to the ranges that its last calibration found."""
    from lepton_compress.ranges import from_statistics

    tool = result.environment.get("libraries", {}).get("lepton-compress", __version__)
    found = {}
    for candidate in result.candidates:
        for record in candidate.history:
            made = from_statistics(record.statistics, tool=tool, data=result.data_fingerprint)
            if made is not None:
                found[candidate.id] = made
    return found


def _replace(made: Path, out: Path) -> None:
    """Put a folder in another one's place, though another run may be doing the same just now."""
    away = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-old-"))
    try:
        for attempt in itertools.count():
            with contextlib.suppress(FileNotFoundError):
                out.replace(away / str(attempt))
            try:
                made.replace(out)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            else:
                return
    finally:
        shutil.rmtree(away, ignore_errors=True)


def to_json(result: RunResult) -> str:
    """The text of `result.json`: the schema's version, a digest of the rest, the result."""
    body = plain(dataclasses.replace(result, folder=None))
    del body["folder"]
    return json.dumps(
        {"schema": SCHEMA_VERSION, "digest": digest(body), **body}, indent=1, allow_nan=False
    )


def read_result(path: Path) -> RunResult:
    """Read a `result.json`, or a run folder. The result of an older version is migrated.

    Raises:
        InputError: it is missing, truncated, not a result, of an unknown schema version, or was
            edited by hand.
    """
    path = path / RESULT if path.is_dir() else path
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        version, mark = body.pop("schema"), body.pop("digest")
        edited = mark != digest(body)
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(path), mend="run the recipe first") from error
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise InputError("is not a result, or is truncated", where=str(path)) from error
    if not migrate.known(version):
        raise InputError(
            f"has schema version {version!r}, this tool reads 1 to {SCHEMA_VERSION}",
            where=str(path),
            mend="run the recipe again, or read it with the version that wrote it",
        )
    if edited:
        raise InputError("was edited or damaged: its digest does not match", where=str(path))
    try:
        result = restore(RunResult, migrate.migrate(body, version))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"does not fit its schema ({error})", where=str(path)) from error
    return dataclasses.replace(result, folder=path.parent)


def kept_recipe(result: RunResult) -> Source | None:
    """The recipe that a run read from its folder was made from: the file itself if it still says
    the same, else the copy in the folder; None if a run knows neither.

    Raises:
        RecipeError: the copy was changed into something that is no recipe.
    """
    from lepton_compress.recipe import read

    place = result.environment.get(RECIPE)
    if result.folder is None or not isinstance(place, str):
        return None
    file = (result.folder / place).resolve()
    with contextlib.suppress(UserError):
        if file.is_file() and (source := read(file)).recipe.digest() == result.recipe_digest:
            return source
    copy = result.folder / RECIPE
    if not copy.is_file() or not file.parent.is_dir():
        return None
    # Targets and data stand beside the recipe, not beside its copy.
    return read(copy, file.parent)
