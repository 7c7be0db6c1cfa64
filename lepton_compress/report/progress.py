"""Progress on a terminal: a bar for what is being done, a line for what took over a second."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from lepton_compress.artifacts import Progress as Advances

_WORTH_A_LINE = 1.0
_log = logging.getLogger("lepton_compress")


class _Bar:
    def __init__(self, bars: Progress, task: TaskID) -> None:
        self.bars = bars
        self.task = task

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Some more of the total is done."""
        self.bars.update(self.task, advance=steps)
        if note:
            self.bars.update(self.task, note=note)


class Bars:
    """An observer that draws. Work inside other work takes over the line of the outer one."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self.labels: list[str] = []
        self.tasks: list[TaskID] = []

    @functools.cached_property
    def bars(self) -> Progress:
        """What draws, from the first work on; importing it takes a tenth of a second, which a
        command without any need not wait for."""
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        made = Progress(
            SpinnerColumn(),
            # Labels and notes come from plug-ins, and may hold brackets.
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            console=self.console,
            transient=True,
            disable=self.quiet or not self.console.is_terminal,
        )
        made.start()
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if "bars" in vars(self):
            self.bars.stop()

    @contextlib.contextmanager
    def work(self, label: str, total: int | None = None) -> Iterator[Advances]:
        """Announce work of `total` steps."""
        self.labels.append(label)
        title = ": ".join(self.labels)
        for outer in self.tasks:
            self.bars.update(outer, visible=False)
        task = self.bars.add_task(title, total=total, note="")
        self.tasks.append(task)
        start = time.perf_counter()
        _log.info("begin %s", title)
        try:
            yield _Bar(self.bars, task)
        finally:
            self.labels.pop()
            self.tasks.pop()
            self.bars.remove_task(task)
            for outer in self.tasks[-1:]:
                self.bars.update(outer, visible=True)
        seconds = time.perf_counter() - start
        _log.info("end %s after %.2f s", title, seconds)
        if seconds >= _WORTH_A_LINE and not self.labels:
            self._say(f"{seconds:6.1f} s  {title}")

    def note(self, text: str) -> None:
        """Something worth knowing."""
        _log.warning("%s", text)
        self._say(f"    note  {text}")

    def _say(self, line: str) -> None:
        from rich.text import Text

        if not self.quiet:
            self.console.print(Text(line))
