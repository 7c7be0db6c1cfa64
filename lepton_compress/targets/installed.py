"""Whether the packages of a runtime are installed, asked without importing them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence


def lacking(runtime: str, packages: Sequence[str], extra: str) -> list[str]:
    """Why a runtime cannot run here: a package that is absent, with the mend.

    Args:
        runtime: its name.
        packages: the top-level names that it imports.
        extra: of this package that brings them.
    """
    absent = [each for each in packages if importlib.util.find_spec(each) is None]
    if not absent:
        return []
    mend = f"pip install 'lepton-compress[{extra}]'"
    return [f"{runtime} needs {' and '.join(absent)}, which is not installed; {mend}"]
