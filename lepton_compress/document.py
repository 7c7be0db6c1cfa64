"""YAML files read with care: safe tags only, no duplicate keys, limits on size and depth, and the
line of every key kept, so that an error can point at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lepton_compress.errors import RecipeError

MAX_BYTES = 1_000_000
MAX_NODES = 50_000
"""Counted after anchors are expanded, which defuses files that expand without end."""
MAX_DEPTH = 50

Key = tuple[str | int, ...]


@dataclass
class Document:
    """A YAML file as plain values, and where each stands."""

    path: Path
    value: Any
    lines: dict[Key, tuple[Path, int]] = field(default_factory=dict)

    def where(self, key: Key) -> str:
        """`file:line: key` of a place, or of the nearest place around it that is in the file."""
        known = key
        while known and known not in self.lines:
            known = known[:-1]
        path, line = self.lines.get(known, (self.path, 1))
        return f"{path}:{line}: {show(key)}" if key else f"{path}:{line}"


def show(key: Key) -> str:
    """A key as a person would write it: `variants.int8[0].quantize`."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def read_document(path: Path) -> Document:
    """Read a YAML file whose top level is a mapping, with what it includes.

    A top-level `include` names a file, or a list of files, relative to the one that says it; keys
    of the including file replace those of the included, and later files those of earlier ones. An
    included file may not include another. Top-level keys that start with `x-` hold anchors for use
    elsewhere and are dropped.

    Raises:
        RecipeError: the file cannot be read, is not YAML, or is over the limits.
    """
    document = _read_one(path)
    names = document.value.pop("include", [])
    merged = Document(path, {})
    for index, name in enumerate([names] if isinstance(names, str) else names):
        if not isinstance(name, str):
            raise RecipeError("is not the name of a file", where=document.where(("include", index)))
        base = _read_one(path.parent / name)
        if "include" in base.value:
            where = base.where(("include",))
            raise RecipeError("an included file may not include another", where=where)
        _overlay(merged, base)
    _overlay(merged, document)
    return merged


def _overlay(below: Document, above: Document) -> None:
    for top, value in above.value.items():
        if str(top).startswith("x-"):
            continue
        below.value[top] = value
        below.lines = {key: at for key, at in below.lines.items() if key[:1] != (top,)}
        below.lines |= {key: at for key, at in above.lines.items() if key[:1] == (top,)}


def _read_one(path: Path) -> Document:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise RecipeError(f"is over {MAX_BYTES:,} bytes", where=str(path))
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecipeError("no such file", where=str(path), mend="check the path") from error
    except OSError as error:
        raise RecipeError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise RecipeError("is not UTF-8 text", where=str(path)) from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        said = getattr(error, "problem", None) or "nested too deeply"
        raise RecipeError(f"not valid YAML: {said}", where=where) from error
    document = Document(path, {})
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError("the top level is not a mapping of keys to values", where=str(path))
    document.value = _Builder(document).build(node, ())
    return document


class _Builder:
    """Turns YAML nodes into plain values, noting lines."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.constructor = yaml.SafeLoader("")
        self.nodes = 0

    def build(self, node: yaml.Node, key: Key) -> Any:
        self.nodes += 1
        line = node.start_mark.line + 1
        self.document.lines.setdefault(key, (self.document.path, line))
        if self.nodes > MAX_NODES:
            self._refuse(f"more than {MAX_NODES:,} values once anchors are expanded", line)
        if len(key) > MAX_DEPTH:
            self._refuse(f"nested deeper than {MAX_DEPTH} levels", line)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*key, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        try:
            return self.constructor.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self._refuse(f"{show(key)}: only plain values may be used ({error})", line)

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        made: dict[str, Any] = {}
        own = {name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode)}
        seen: set[str] = set()
        for name_node, value_node in node.value:
            line = name_node.start_mark.line + 1
            name = name_node.value
            if not isinstance(name_node, yaml.ScalarNode):
                self._refuse("a key must be a plain word", line)
            if name_node.tag == "tag:yaml.org,2002:merge":
                merged = self.build(value_node, key)
                parts = merged if isinstance(merged, list) else [merged]
                if not all(isinstance(part, dict) for part in parts):
                    self._refuse("<< takes a mapping, or a list of mappings", line)
                # YAML 1.1 merge keys: the mapping's own keys win, then earlier ones.
                for part in parts:
                    made |= {k: v for k, v in part.items() if k not in own and k not in made}
                continue
            if name in seen:
                self._refuse(f"{show((*key, name))}: the key stands twice", line)
            seen.add(name)
            self.document.lines[(*key, name)] = (self.document.path, line)
            made[name] = self.build(value_node, (*key, name))
        return made

    def _refuse(self, problem: str, line: int) -> Any:
        raise RecipeError(problem, where=f"{self.document.path}:{line}")
