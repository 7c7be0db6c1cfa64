"""What can be named in a recipe: the plug-ins, and their parameters."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import PydanticUndefined

from lepton_compress import registry
from lepton_compress.errors import LeptonError, RecipeError
from lepton_compress.overviews import ParameterRow, PluginPage, PluginRow

_BOUNDS = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "above {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "below {}"),
)
_TYPES = {"string": "text", "integer": "whole number", "object": "mapping", "array": "list"}
_TYPES |= {"boolean": "true or false", "number": "number", "null": "nothing"}


def listing(kind: str | None = None) -> tuple[PluginRow, ...]:
    """Every plug-in, or those of one kind, by kind and name. A broken one says why it is.

    Raises:
        RecipeError: there is no such kind.
    """
    if kind is not None:
        _check_kind(kind)
    try:
        table = registry.table()
    except LeptonError as error:  # of two distributions; until it is mended nothing can be used
        return tuple(
            PluginRow(each, name, "built-in", "", str(error))
            for each, name in registry.BUILTIN
            if kind in (None, each)
        )
    order = {each: index for index, each in enumerate(registry.KINDS)}
    wanted = sorted((k for k in table if kind in (None, k[0])), key=lambda k: (order[k[0]], k[1]))
    return tuple(_row(each, name, table[each, name][1]) for each, name in wanted)


def page(kind: str, name: str) -> PluginPage:
    """Everything about one plug-in.

    Raises:
        RecipeError: there is no such kind or name.
        LeptonError: it cannot be imported.
    """
    _check_kind(kind)
    plugin = registry.get(kind, name)
    schema = plugin.params.model_json_schema()
    about = inspect.cleandoc(plugin.function.__doc__ or "").split("\n", 1)
    return PluginPage(
        kind=kind,
        name=name,
        origin=plugin.origin,
        summary=plugin.summary,
        about=about[1].strip() if len(about) > 1 else "",
        form=plugin.form,
        parameters=tuple(_parameters(plugin.params, schema, schema.get("$defs", {}))),
    )


def _check_kind(kind: str) -> None:
    if kind not in registry.KINDS:
        mend = registry.nearest(kind, list(registry.KINDS))
        raise RecipeError(f"there is no kind of plug-in {kind!r}", mend=mend)


def _row(kind: str, name: str, origin: str) -> PluginRow:
    try:
        return PluginRow(kind, name, origin, registry.get(kind, name).summary)
    except LeptonError as error:
        return PluginRow(kind, name, origin, "", str(error))


def _parameters(
    model: type[registry.Params], schema: Mapping[str, Any], shared: Mapping[str, Any]
) -> Iterator[ParameterRow]:
    for name, field in model.model_fields.items():
        about = schema["properties"][name]
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        inner = _nested(about, shared)
        yield ParameterRow(
            name=name,
            type="mapping" if inner else _type(about),
            default=None
            if default is PydanticUndefined or field.is_required()
            else _show(default, about),
            description=field.description or "",
        )
        yield from _below(name, inner or {}, shared)


def _below(
    name: str, model: Mapping[str, Any], shared: Mapping[str, Any]
) -> Iterator[ParameterRow]:
    """The parameters of a model inside a model, however deep."""
    for key, about in model.get("properties", {}).items():
        inner = _nested(about, shared)
        yield ParameterRow(
            f"{name}.{key}",
            "mapping" if inner else _type(about),
            None if key in model.get("required", []) else _show(about.get("default"), about),
            about.get("description", ""),
        )
        yield from _below(f"{name}.{key}", inner or {}, shared)


def _nested(about: Mapping[str, Any], shared: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of the model that a parameter is, if it is one."""
    for each in [about, *about.get("anyOf", [])]:
        if "$ref" in each:
            found: Mapping[str, Any] = shared[each["$ref"].rpartition("/")[2]]
            return found
    return None


def _type(about: Mapping[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "enum" in about:
        return " | ".join(map(str, about["enum"]))
    if "const" in about:
        return str(about["const"])
    if "anyOf" in about:
        return " | ".join(_type(each) for each in about["anyOf"] if each.get("type") != "null")
    if about.get("examples"):
        return f"such as {about['examples'][0]}"
    if about.get("type") == "array":
        inner = _type(about["items"]) if about.get("items") else ""
        return f"list of {inner}" if inner else "list"
    words = _TYPES.get(str(about.get("type")), "anything")
    bounds = [text.format(about[key]) for key, text in _BOUNDS if key in about]
    return f"{words}, {' and '.join(bounds)}" if bounds else words


def _show(default: Any, about: Mapping[str, Any]) -> str:
    """A default as a recipe would write it."""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    example = str((about.get("examples") or [""])[0])
    if isinstance(default, float) and example.endswith("%"):
        return f"{100 * default:g} %"
    if isinstance(default, float) and example.endswith("x"):
        return f"{default:g}x"
    return f"{default:g}" if isinstance(default, float) else str(default)
