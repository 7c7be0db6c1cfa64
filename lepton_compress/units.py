"""Quantities written as people write them: `2 ms`, `150 KB`, `1 %`, `0.5x`.

Each kind reads a number with a unit and yields a float (or an int for bytes) in its base unit:
seconds, bytes, a fraction of one, a factor. A bare number is refused where a unit is due, because
`2` could be milliseconds or seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from lepton_compress.errors import quote

# Three digits of exponent and 64 characters: enough for any quantity, and no number takes long.
_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
_QUANTITY = re.compile(rf"\s*({_NUMBER})\s*([^\s0-9]*)\s*")
_LONGEST = 64

SECONDS = {"ns": Fraction(1, 10**9), "us": Fraction(1, 10**6), "µs": Fraction(1, 10**6)}
SECONDS |= {"ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60), "h": Fraction(3600)}
SECONDS["d"] = Fraction(86400)
BYTES = {"B": Fraction(1)}
for _power, _prefix in enumerate("KMG", start=1):
    BYTES[f"{_prefix}B"] = Fraction(1000**_power)
    BYTES[f"{_prefix}iB"] = Fraction(1024**_power)
PERCENT = {"%": Fraction(1, 100)}
FACTOR = {"x": Fraction(1)}
COUNT = {"": Fraction(1), "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9)}
RATE = {"/s": Fraction(1), "/min": Fraction(1, 60), "/h": Fraction(1, 3600)}
BITS = {"bit/s": Fraction(1)}
for _power, _prefix in enumerate("kMG", start=1):
    BITS[f"{_prefix}bit/s"] = Fraction(1000**_power)
WATTS = {"mW": Fraction(1, 1000), "W": Fraction(1)}
PER_GIGABYTE = {"/GB": Fraction(1)}
PER_HOUR = {"/h": Fraction(1)}
PER_MONTH = {"/month": Fraction(1)}
PER_KILOWATT_HOUR = {"/kWh": Fraction(1)}


def exact(text: object, units: dict[str, Fraction], example: str) -> Fraction:
    """The value of `text` in the base unit of `units`, not rounded.

    Raises:
        ValueError: not a number followed by one of the units.
    """
    short = isinstance(text, str) and len(text) <= _LONGEST
    found = _QUANTITY.fullmatch(str(text)) if short else None
    if found is None:
        problem = f"{quote(text)} is not a number with a unit"
        raise ValueError(f"{problem}; write for example '{example}'")
    number, unit = found.groups()
    if unit not in units:
        said = f"unknown unit {unit!r}" if unit else "the unit is missing"
        raise ValueError(f"{said} in {text!r}; use {' or '.join(units)}, as in '{example}'")
    # Fractions keep `0.1 %` from becoming 0.0010000000000000002.
    return Fraction(number) * units[unit]


def parse(text: object, units: dict[str, Fraction], example: str) -> float:
    """The value of `text` in the base unit of `units`.

    Raises:
        ValueError: not a finite number followed by one of the units.
    """
    try:
        return float(exact(text, units, example))
    except OverflowError:
        raise ValueError(f"{text!r} is too large") from None


def _reader(units: dict[str, Fraction], example: str) -> Callable[[object], float]:
    def read(text: object) -> float:
        value = parse(text, units, example)
        if value <= 0:
            raise ValueError(f"{text!r} is not above zero")
        return value

    return read


def _price(units: dict[str, Fraction], example: str) -> BeforeValidator:
    def read(text: object) -> float:
        value = parse(text, units, example)
        if value < 0:
            raise ValueError(f"{text!r} is below zero")
        return value

    return BeforeValidator(read)


def _read_bytes(text: object) -> int:
    if isinstance(text, (int, float)) and not isinstance(text, bool) and text <= 0:
        raise ValueError(f"{text!r} is not above zero; write for example '150 KB'")
    value = exact(text, BYTES, "150 KB")
    if value <= 0:
        raise ValueError(f"{text!r} is not above zero")
    if value.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return value.numerator


def _read_percent(text: object) -> float:
    value = parse(text, PERCENT, "1 %")
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is not from 0 % to 100 %")
    return value


def _read_share(given: object) -> float:
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return given
    return parse(given, PERCENT, "1 %")


def _schema(units: dict[str, Fraction], example: str) -> WithJsonSchema:
    names = "|".join(re.escape(unit) for unit in units)
    pattern = rf"^\s*{_NUMBER}\s*(?:{names})\s*$"
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


Duration = Annotated[float, BeforeValidator(_reader(SECONDS, "2 ms")), _schema(SECONDS, "2 ms")]
"""Seconds, above zero."""
Size = Annotated[int, BeforeValidator(_read_bytes), _schema(BYTES, "150 KB")]
"""Bytes, above zero. KB is 1000 bytes, KiB is 1024."""
Percent = Annotated[float, BeforeValidator(_read_percent), _schema(PERCENT, "1 %")]
"""A share from 0 to 1, written from `0 %` to `100 %`."""
Share = Annotated[
    float,
    BeforeValidator(_read_share),
    WithJsonSchema({"anyOf": [{"type": "number"}, _schema(PERCENT, "1 %").json_schema]}),
]
"""A number, or a percentage, which is a hundredth of one."""
Factor = Annotated[float, BeforeValidator(_reader(FACTOR, "0.5x")), _schema(FACTOR, "0.5x")]
"""A factor above zero, written with an x."""

Rate = Annotated[float, BeforeValidator(_reader(RATE, "50/s")), _schema(RATE, "50/s")]
"""So many a second, above zero."""

Bandwidth = Annotated[
    float, BeforeValidator(_reader(BITS, "10 Mbit/s")), _schema(BITS, "10 Mbit/s")
]
"""Bits a second, above zero."""
Power = Annotated[float, BeforeValidator(_reader(WATTS, "3 W")), _schema(WATTS, "3 W")]
"""Watts, above zero."""
PerGigabyte = Annotated[float, _price(PER_GIGABYTE, "0.09/GB"), _schema(PER_GIGABYTE, "0.09/GB")]
"""A price of 10^9 bytes, zero or above. The currency is whatever the writer counts in."""
PerHour = Annotated[float, _price(PER_HOUR, "0.40/h"), _schema(PER_HOUR, "0.40/h")]
"""A price of an hour, zero or above."""
PerMonth = Annotated[float, _price(PER_MONTH, "500/month"), _schema(PER_MONTH, "500/month")]
"""An amount a month, zero or above."""
PerKilowattHour = Annotated[
    float, _price(PER_KILOWATT_HOUR, "0.30/kWh"), _schema(PER_KILOWATT_HOUR, "0.30/kWh")
]
"""A price of energy, zero or above."""


def show_bandwidth(rate: float) -> str:
    """Three significant digits: `950 bit/s`, `10.0 Mbit/s`."""
    for unit, scale in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)):
        if abs(rate) >= scale * _ROUNDS_UP:
            return f"{_digits(rate / scale)} {unit}"
    return f"{rate:.0f} bit/s"


def show_seconds(seconds: float) -> str:
    """Three significant digits in the unit that suits: `184 us`, `2.05 ms`, `12.0 s`."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(seconds) >= scale * _ROUNDS_UP:
            return f"{_digits(seconds / scale)} {unit}"
    return f"{_digits(seconds / 1e-9)} ns" if seconds else "0 s"


def show_rate(rate: float) -> str:
    """Four significant digits: `50/s`, `12340/s`."""
    return f"{rate:.4g}/s" if rate < 10_000 else f"{rate:.0f}/s"


def show_bytes(size: float) -> str:
    """Three significant digits in decimal units: `950 B`, `151 KB`, `4.82 MB`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if abs(size) >= scale * _ROUNDS_UP:
            return f"{_digits(size / scale)} {unit}"
    return f"{size:.0f} B"


def show_percent(share: float) -> str:
    """Two decimals: `98.61 %`."""
    # Adding zero turns -0.0 into 0.0.
    return f"{round(100 * share, 2) + 0.0:.2f} %"


_ROUNDS_UP = 0.9995
"""From this share of a unit on, three digits show one whole unit."""


def _digits(value: float) -> str:
    places = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{places}f}"
