"""The one place where errors become a line and an exit code, and where output is kept clean.

While a command works, file descriptors 1 and 2 lead into a log: the C++ below the frameworks and
the processes they start print there. What the tool says itself goes to the real ones.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import typer

from lepton_compress.errors import (
    EXIT_INTERRUPTED,
    EXIT_UNEXPECTED,
    EXIT_USER,
    LeptonError,
    OutputError,
    PluginError,
    RecipeError,
    UserError,
)

if TYPE_CHECKING:
    from rich.console import Console

    from lepton_compress.artifacts import Observer

_log = logging.getLogger("lepton_compress")
_WIDTH = 140


@dataclass(frozen=True)
class Stage:
    """What a working command has: where to print, whom to report to, and its log so far."""

    out: Console
    err: Console
    observer: Observer
    log: Path


@contextlib.contextmanager
def working(*, quiet: bool = False) -> Iterator[Stage]:
    """Send what libraries print into a log while a command works.

    The log is deleted when the command ends well or the user's input was wrong, unless it was
    moved away; after an unexpected error it stays, and `run` names it.
    """
    from lepton_compress.report.progress import Bars

    # What is there by now stays: no collection needs to look through it.
    gc.freeze()
    gc.enable()
    handle, name = tempfile.mkstemp(prefix="lepton-compress-", suffix=".log")
    path = Path(name)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    with _redirected(handle) as (real_out, real_err):
        root.addHandler(handler)
        _log.setLevel(logging.INFO)
        out, err = _console(real_out), _console(real_err)
        try:
            with Bars(err, quiet=quiet) as observer, _not_ended():
                yield Stage(out, err, observer, path)
        except (UserError, KeyboardInterrupt):
            path.unlink(missing_ok=True)
            raise
        except BaseException as error:
            _log.error("%s", "".join(traceback.format_exception(error)))
            error.__lepton_log__ = path  # type: ignore[attr-defined]
            raise
        else:
            path.unlink(missing_ok=True)
        finally:
            root.removeHandler(handler)
            handler.close()


@contextlib.contextmanager
def _not_ended() -> Iterator[None]:
    """A plug-in that exits must not choose the exit code: 0 would mean that all gates pass."""
    try:
        yield
    except SystemExit as error:
        raise PluginError(f"code that was called for the run exited with {error.code!r}") from error


def keep_log(log: Path, folder: Path) -> None:
    """Copy the log into a run's folder."""
    # Another run may be putting its own folder in this one's place.
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(log, folder / "run.log")


def _console(file: IO[str]) -> Console:
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            # A reader who has seen enough is told of by the caller; rich would end with 1.
            raise BrokenPipeError

    # A file or a pipe has no width of its own; what reads it must not lose the ends of lines.
    return Piped(file=file, soft_wrap=True, width=None if file.isatty() else _WIDTH)


@contextlib.contextmanager
def _redirected(handle: int) -> Iterator[tuple[IO[str], IO[str]]]:
    """Point descriptors 1 and 2 at a file; yields the real ones as text files."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(1), os.dup(2)]
    files = [os.fdopen(os.dup(each), "w", encoding="utf-8") for each in kept]
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    try:
        yield files[0], files[1]
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, each in enumerate(kept, start=1):
            os.dup2(each, number)
            os.close(each)
        os.close(handle)
        for file in files:
            with contextlib.suppress(BrokenPipeError):
                file.close()


def guarded(program: Callable[[], Any]) -> int:
    """Run the command line; the exit code that it ends in."""
    try:
        code = program()
    except typer.Exit as leaving:
        code = leaving.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except typer.exceptions.TyperException as error:  # usage
        return _report_usage(error)
    except LeptonError as error:
        return _report(error)
    except BrokenPipeError:
        # Whoever read our output has gone; Python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_UNEXPECTED
    except MemoryError:
        return _report(OutputError("memory is exhausted", mend="use fewer or smaller samples"))
    except Exception as error:  # the last resort that the exit codes promise
        said = str(error).strip().splitlines() or [""]
        return _report(LeptonError(f"unexpected {type(error).__name__}: {said[0]}"), error)
    if code == EXIT_INTERRUPTED:  # typer itself may have caught the Ctrl-C
        _say("interrupted; the same command goes on where it stopped")
    return code if isinstance(code, int) else 0


def _report_usage(error: Exception) -> int:
    # typer draws its own usage errors; what it cannot draw is said plainly.
    show = getattr(error, "show", None)
    if callable(show):
        show()
    else:
        _say(f"error: {error}")
    return EXIT_USER


def _report(error: LeptonError, cause: BaseException | None = None) -> int:
    lines = [str(error)]
    if isinstance(error, RecipeError):
        lines += [str(other) for other in error.others]
    for line in lines:
        _say(f"error: {line}")
    if error.exit_code == EXIT_UNEXPECTED:
        _say(f"the log is {_log_of(cause or error)}")
    if "--json" in sys.argv:
        print(json.dumps({"errors": lines, "exit_code": error.exit_code}))
    return error.exit_code


def _log_of(error: BaseException) -> Path:
    """The log that goes with an error; written now if it happened outside of any work."""
    path: Path | None = getattr(error, "__lepton_log__", None)
    if path is None:
        handle, name = tempfile.mkstemp(prefix="lepton-compress-", suffix=".log")
        path = Path(name)
        with os.fdopen(handle, "w") as file:
            traceback.print_exception(error, file=file)
    return path


def _say(line: str) -> None:
    print(line, file=sys.stderr)
