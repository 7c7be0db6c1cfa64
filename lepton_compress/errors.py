"""Every error the tool raises on purpose, and the exit code each one ends in.

    LeptonError                      3  an unexpected error: a defect in the tool or in a plug-in
    ├── UserError                    2  what the user gave is wrong; one line names it and the mend
    │   ├── RecipeError                 the recipe, or the command line
    │   ├── InputError                  a model, weights, a dataset or another input file
    │   ├── MissingExtraError           an optional package is needed and not installed
    │   ├── OutputError                 a folder or file cannot be written
    │   └── DeviceError                 another machine cannot be reached, or lacks something
    └── PluginError                  3  a plug-in broke its contract

Exit codes of the command line: 0 every demand is met; 1 a gate failed, was inconclusive, or was not
measured; 2 a `UserError`; 3 anything unexpected (a log is left and named); 130 interrupted, and the
same command goes on where it stopped.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_GATE = 1
EXIT_USER = 2
EXIT_UNEXPECTED = 3
EXIT_INTERRUPTED = 130


def quote(value: object) -> str:
    """A value in a message: as YAML spells it, and cut if it is long."""
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


class LeptonError(Exception):
    """Base of the tree. `str(error)` is the one line a user reads.

    Args:
        problem: what is wrong, a clause without a full stop.
        where: the file, key or line it is about; printed in front.
        mend: what to do about it; printed behind.
    """

    exit_code = EXIT_UNEXPECTED

    def __init__(self, problem: str, *, where: str = "", mend: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.mend = mend

    def __str__(self) -> str:
        # Problems may quote another library's message; the promise is one line.
        head = f"{self.where}: " if self.where else ""
        tail = f"; {self.mend}" if self.mend else ""
        return " ".join(f"{head}{self.problem}{tail}".split())


class UserError(LeptonError):
    """What the user gave cannot be used."""

    exit_code = EXIT_USER


class RecipeError(UserError):
    """The recipe or the command line is wrong.

    `others` holds further findings of the same reading, so that one run shows them all.
    """

    def __init__(
        self, problem: str, *, where: str = "", mend: str = "", others: tuple[RecipeError, ...] = ()
    ) -> None:
        super().__init__(problem, where=where, mend=mend)
        self.others = others


class InputError(UserError):
    """A model, its weights, a dataset or another input file is wrong."""


class MissingExtraError(UserError):
    """A plug-in needs an optional package that is not installed."""


class OutputError(UserError):
    """A folder or file cannot be written."""


class DeviceError(UserError):
    """Another machine cannot be reached, or lacks what measuring needs.

    `lost` says that a connection was there and broke, so that another may be made.
    """

    def __init__(
        self, problem: str, *, where: str = "", mend: str = "", lost: bool = False
    ) -> None:
        super().__init__(problem, where=where, mend=mend)
        self.lost = lost


class PluginError(LeptonError):
    """A plug-in broke its contract: what it claims is not what it did."""
