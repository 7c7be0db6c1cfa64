"""Quantities written as people write them: `2 ms`, `150 KB`, `1 %`, `0.5x`.

Each kind reads a number with a unit and yields a float (or an int for bytes) in its base unit:
seconds, bytes, a fraction of one, a factor. A bare number is refused where a unit is due, because
`2` could be milliseconds or seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

_QUANTITY = re.compile(r"^\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\s\d]*)\s*$")

SECONDS = {"ns": Fraction(1, 10**9), "us": Fraction(1, 10**6), "µs": Fraction(1, 10**6)}
SECONDS |= {"ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60), "h": Fraction(3600)}
BYTES = {"B": Fraction(1)}
for _power, _prefix in enumerate("KMG", start=1):
    BYTES[f"{_prefix}B"] = Fraction(1000**_power)
    BYTES[f"{_prefix}iB"] = Fraction(1024**_power)
PERCENT = {"%": Fraction(1, 100)}
FACTOR = {"x": Fraction(1)}


def parse(text: object, units: dict[str, Fraction], example: str) -> float:
    """The value of `text` in the base unit of `units`.

    Raises:
        ValueError: not a finite number followed by one of the units.
    """
    found = _QUANTITY.match(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{text!r} is not a number with a unit; write for example '{example}'")
    number, unit = found.groups()
    if unit not in units:
        said = f"unknown unit {unit!r}" if unit else "the unit is missing"
        raise ValueError(f"{said} in {text!r}; use one of {', '.join(units)}, as in '{example}'")
    # Fractions keep `0.1 %` from becoming 0.0010000000000000002.
    value = float(Fraction(number) * units[unit])
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is too large")
    return value


def _reader(units: dict[str, Fraction], example: str) -> Callable[[object], float]:
    return lambda text: parse(text, units, example)


def _read_bytes(text: object) -> int:
    value = parse(text, BYTES, "150 KB")
    if value != int(value):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(value)


def _schema(units: dict[str, Fraction], example: str) -> WithJsonSchema:
    names = "|".join(re.escape(unit) for unit in units)
    return WithJsonSchema(
        {"type": "string", "pattern": rf"^\s*[+-]?[0-9.]+\s*({names})\s*$", "examples": [example]}
    )


Duration = Annotated[
    float, BeforeValidator(_reader(SECONDS, "2 ms")), Field(gt=0), _schema(SECONDS, "2 ms")
]
"""Seconds, above zero."""
Size = Annotated[int, BeforeValidator(_read_bytes), Field(gt=0), _schema(BYTES, "150 KB")]
"""Bytes, above zero. KB is 1000 bytes, KiB is 1024."""
Percent = Annotated[
    float, BeforeValidator(_reader(PERCENT, "1 %")), Field(ge=0, le=1), _schema(PERCENT, "1 %")
]
"""A share from 0 to 1, written from `0 %` to `100 %`."""
Factor = Annotated[
    float, BeforeValidator(_reader(FACTOR, "0.5x")), Field(gt=0), _schema(FACTOR, "0.5x")
]
"""A factor above zero, written with an x."""


def show_seconds(seconds: float) -> str:
    """Three significant digits in the unit that suits: `184 us`, `2.05 ms`, `12.0 s`."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale or unit == "us":
            return f"{_digits(seconds / scale)} {unit}"
    raise AssertionError("unreachable")


def show_bytes(size: float) -> str:
    """Three significant digits in decimal units: `950 B`, `151 KB`, `4.82 MB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if size >= scale:
            return f"{_digits(size / scale)} {unit}"
    return f"{size:.0f} B"


def show_percent(share: float) -> str:
    """Two decimals: `98.61 %`."""
    return f"{100 * share:.2f} %"


def _digits(value: float) -> str:
    places = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{places}f}"
