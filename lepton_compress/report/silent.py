"""An observer that shows nothing, for the library."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from lepton_compress.artifacts import Progress

_log = logging.getLogger("lepton_compress")


class _Unseen:
    def advance(self, steps: int = 1, note: str = "") -> None:
        """Shown nowhere."""


class Silent:
    """Draws nothing; what happens goes to the log."""

    @contextlib.contextmanager
    def work(self, label: str, total: int | None = None) -> Iterator[Progress]:
        """Announce work."""
        _log.info("%s", label)
        yield _Unseen()

    def note(self, text: str) -> None:
        """Something worth knowing."""
        _log.warning("%s", text)
