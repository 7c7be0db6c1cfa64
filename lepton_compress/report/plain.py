"""Results as plain JSON values, and back."""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import types
import typing
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def plain(value: Any) -> Any:
    """A value as JSON can carry it: dataclasses as objects, paths as text, and numbers that JSON
    lacks as the texts `NaN`, `Infinity` and `-Infinity`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def restore(kind: type[T], value: Any) -> T:
    """The value of a type that `plain` turned into `value`."""
    return typing.cast(T, _restore(kind, value))


@functools.cache
def _hints(kind: Hashable) -> dict[str, Any]:
    """Of a dataclass's fields; resolving them takes longer than restoring a value."""
    return typing.get_type_hints(kind)


def _restore(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = _hints(typing.cast(Hashable, kind))
        return kind(**{name: _restore(hints[name], item) for name, item in value.items()})  # type: ignore[operator]
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _restore(next(each for each in inner if each is not type(None)), value)
    if origin is tuple:
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_restore(k, item) for k, item in zip(kinds, value, strict=True))
    if origin is dict:
        return {name: _restore(inner[1], item) for name, item in value.items()}
    if kind is float:
        return float(value)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    return value
