"""Quantities: what is written is what is meant, and anything else is refused."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from lepton_compress import units
from lepton_compress.units import BYTES, FACTOR, PERCENT, SECONDS

TABLES = [SECONDS, BYTES, PERCENT, FACTOR]
KINDS: dict[str, tuple[TypeAdapter[Any], dict[str, Fraction]]] = {
    "duration": (TypeAdapter(units.Duration), SECONDS),
    "size": (TypeAdapter(units.Size), BYTES),
    "percent": (TypeAdapter(units.Percent), PERCENT),
    "factor": (TypeAdapter(units.Factor), FACTOR),
}

spaces = st.text(" \t\n", max_size=2)
numbers = st.from_regex(
    r"[+-]?([0-9]{1,15}(\.[0-9]{0,8})?|\.[0-9]{1,8})([eE][+-]?[0-9]{1,2})?", fullmatch=True
)
quantities = st.sampled_from(TABLES).flatmap(
    lambda table: st.tuples(st.just(table), numbers, st.sampled_from(sorted(table)))
)


@given(quantities, spaces, spaces, spaces)
def test_a_number_with_a_unit_is_their_exact_product(
    quantity: tuple[dict[str, Fraction], str, str], before: str, between: str, after: str
) -> None:
    table, number, unit = quantity
    expected = Fraction(number) * table[unit]
    text = f"{before}{number}{between}{unit}{after}"
    assert units.exact(text, table, "") == expected
    assert units.parse(text, table, "") == float(expected)


@given(st.text() | st.none() | st.booleans() | st.integers() | st.floats() | st.binary())
def test_junk_is_refused_with_a_value_error(junk: object) -> None:
    table = {"furlong": Fraction(201)}
    with pytest.raises(ValueError, match=r"not a number with a unit|unit is missing|unknown unit"):
        units.parse(junk, table, "2 furlong")


@given(numbers, st.sampled_from(TABLES))
def test_a_number_without_a_unit_is_refused(number: str, table: dict[str, Fraction]) -> None:
    with pytest.raises(ValueError, match="the unit is missing"):
        units.parse(number, table, "")


@pytest.mark.parametrize(
    "text",
    [
        *("", "ms", "1 2 ms", "1 ms ms", "1,5 ms", "0x10 ms", "1_000 ms", "nan ms", "inf s"),
        *("--1 ms", "1/2 s", "٣ ms", "1e ms", "1 m s", "1e9999999 s", "9" * 5000 + " s", "1 ms\0"),
    ],
)
def test_what_looks_like_a_quantity_and_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a number with a unit|unknown unit"):
        units.parse(text, SECONDS, "2 ms")


def test_a_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        units.parse("1e400 h", SECONDS, "2 ms")


def test_a_wrong_unit_is_named_with_the_right_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown unit 'kb' in '1 kb'; use B or KB or .*'150 KB'"):
        units.parse("1 kb", BYTES, "150 KB")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("duration", "2 ms", 0.002),
        ("duration", "184us", 0.000184),
        ("duration", "3 µs", 0.000003),
        ("duration", "1.5 min", 90.0),
        ("size", "150 KB", 150_000),
        ("size", "1.5 KiB", 1536),
        ("size", "9007199254740993 B", 9007199254740993),
        ("percent", "0.1 %", 0.001),
        ("percent", "0 %", 0.0),
        ("percent", "100%", 1.0),
        ("factor", "0.5x", 0.5),
    ],
)
def test_kinds_read_what_people_write(kind: str, text: str, value: float) -> None:
    read = KINDS[kind][0].validate_python(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("duration", "0 ms", "not above zero"),
        ("duration", "-1 ms", "not above zero"),
        ("duration", "1e-400 s", "not above zero"),
        ("duration", "1 KB", "unknown unit"),
        ("size", "0 B", "not above zero"),
        ("size", "0.5 B", "not a whole number of bytes"),
        ("percent", "-1 %", "not from 0 % to 100 %"),
        ("percent", "100.1 %", "not from 0 % to 100 %"),
        ("factor", "0x", "not above zero"),
        ("factor", "50 %", "use x"),
    ],
)
def test_kinds_refuse_what_cannot_be_meant(kind: str, text: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        KINDS[kind][0].validate_python(text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bare", [2, 0.5, True, None, "2", [1], {"ms": 1}])
def test_kinds_refuse_a_bare_number(kind: str, bare: object) -> None:
    with pytest.raises(ValidationError, match="unit"):
        KINDS[kind][0].validate_python(bare)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_the_schema_takes_what_the_reader_takes(kind: str, data: st.DataObject) -> None:
    adapter, table = KINDS[kind]
    number = data.draw(numbers)
    unit = data.draw(st.sampled_from([*sorted(table), "", "y"]))
    text = f"{number} {unit}"
    pattern = adapter.json_schema()["pattern"]
    try:
        units.parse(text, table, "")
    except ValueError:
        assert re.search(pattern, text) is None
    else:
        assert re.search(pattern, text) is not None


def _significant(shown: str) -> str:
    return re.sub(r"[^0-9]", "", shown.split()[0]).lstrip("0")


@given(st.floats(1e-9, 999.4))
def test_seconds_shown_read_back_to_three_digits(seconds: float) -> None:
    shown = units.show_seconds(seconds)
    assert math.isclose(units.parse(shown, SECONDS, ""), seconds, rel_tol=0.0051)
    assert len(_significant(shown)) == 3


@given(st.integers(1, 999_400_000_000))
def test_bytes_shown_read_back_to_three_digits(size: int) -> None:
    shown = units.show_bytes(size)
    assert math.isclose(units.parse(shown, BYTES, ""), size, rel_tol=0.0051)
    assert len(_significant(shown)) <= 3


@given(st.floats(0, 1))
def test_percents_shown_read_back_to_two_decimals(share: float) -> None:
    assert math.isclose(
        units.parse(units.show_percent(share), PERCENT, ""), share, abs_tol=0.000051
    )


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (units.show_seconds(0.000184), "184 us"),
        (units.show_seconds(0.002049), "2.05 ms"),
        (units.show_seconds(12), "12.0 s"),
        (units.show_seconds(0.0009999), "1.00 ms"),
        (units.show_seconds(0.0000009999), "1.00 us"),
        (units.show_seconds(4e-8), "40.0 ns"),
        (units.show_seconds(-0.002), "-2.00 ms"),
        (units.show_seconds(0), "0 s"),
        (units.show_bytes(950), "950 B"),
        (units.show_bytes(0), "0 B"),
        (units.show_bytes(150_600), "151 KB"),
        (units.show_bytes(999_999), "1.00 MB"),
        (units.show_bytes(9_999), "10.0 KB"),
        (units.show_bytes(-4_820_000), "-4.82 MB"),
        (units.show_percent(0.9861), "98.61 %"),
        (units.show_percent(-0.00001), "0.00 %"),
    ],
)
def test_quantities_are_shown_in_the_unit_that_suits(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize(("given", "value"), [(0.5, 0.5), (3, 3.0), ("1 %", 0.01), ("-2 %", -0.02)])
def test_a_share_is_a_number_or_a_percentage(given: object, value: float) -> None:
    assert TypeAdapter(units.Share).validate_python(given) == value


@pytest.mark.parametrize("given", [True, "0.5", "1 ms", None])
def test_a_share_is_nothing_else(given: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(units.Share).validate_python(given)
