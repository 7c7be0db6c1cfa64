"""A picture by matplotlib (extra `plot`): the same bytes each time with one version of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, Literal

from lepton_compress.errors import MissingExtraError

Kind = Literal["png", "svg"]
_SETTINGS = {
    # Ids in an SVG are random without a salt; texts stay texts, so that a slide can change them.
    "svg.hashsalt": "lepton-compress",
    "svg.fonttype": "none",
    # What users have named is taken as it is.
    "text.parse_math": False,
}


def picture(
    size: tuple[float, float],
    kind: Kind,
    draw: Callable[[Any], None],
    *,
    dpi: int = 200,
    layout: Literal["constrained"] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> bytes:
    """What `draw` puts on a new figure.

    Args:
        size: width and height in inches.
        draw: takes a `matplotlib.figure.Figure`.
        dpi: pixels in an inch of a PNG.
        layout: matplotlib's layout engine.
        settings: matplotlib's parameters beside those of every picture.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(
            f"a picture needs matplotlib ({error})", mend="pip install 'lepton-compress[plot]'"
        ) from error
    with matplotlib.rc_context({**_SETTINGS, **(settings or {})}):
        made = Figure(figsize=size, layout=layout)
        FigureCanvasAgg(made)
        draw(made)
        held = io.BytesIO()
        about = {"Date": None} if kind == "svg" else {"Software": None}
        made.savefig(held, format=kind, dpi=dpi, metadata=about)
    return held.getvalue()
