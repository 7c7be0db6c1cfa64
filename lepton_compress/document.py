"""YAML files read with care: plain values only, no duplicate keys, limits on size and depth, and
the line of every key kept, so that an error can point at it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lepton_compress.errors import RecipeError, quote

MAX_BYTES = 1_000_000
MAX_NODES = 50_000
"""Counted after anchors are expanded, which defuses files that expand without end."""
MAX_DEPTH = 50
_MAX_DIGITS = 100

_YAML = "tag:yaml.org,2002:"
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""YAML can spell them, but no file or terminal takes them."""
_KINDS = {"null": "null", "bool": "true or false", "int": "number", "float": "number"}
_KINDS |= {"str": "text", "timestamp": "date"}

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
        # Of a place with a default that the file does not mention, the name is all there is.
        shown = show(known or key)
        return f"{path}:{line}: {shown}" if shown else f"{path}:{line}"


def show(key: Key) -> str:
    """A key as a person would write it: `variants.int8[0].quantize`."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def read_document(path: Path, *, start: str = "begin with `version: 1`") -> Document:
    """Read a YAML file whose top level is a mapping, with what it includes.

    A top-level `include` names a file, or a list of files, relative to the one that says it; keys
    of the including file replace those of the included, and later files those of earlier ones. An
    included file may not include another. Top-level keys that start with `x-` hold anchors for use
    elsewhere and are dropped. `start` is what to tell who wrote nothing yet.

    Raises:
        RecipeError: the file cannot be read, is not YAML, or is over the limits.
    """
    document = _read_one(path, start)
    merged = Document(path, {})
    for key, name in _includes(document):
        file = path.parent / name
        if not file.is_file():
            mend = "write the path relative to the file that includes it"
            raise RecipeError(f"no file {name!r}", where=document.where(key), mend=mend)
        base = _read_one(file, start)
        if "include" in base.value:
            where, mend = base.where(("include",)), f"let {path.name} include both"
            raise RecipeError("an included file may not include another", where=where, mend=mend)
        _overlay(merged, base)
    _overlay(merged, document)
    return merged


def _includes(document: Document) -> Iterator[tuple[Key, str]]:
    names = document.value.pop("include", [])
    for index, name in enumerate(names if isinstance(names, list) else [names]):
        key: Key = ("include", index) if isinstance(names, list) else ("include",)
        if not isinstance(name, str) or not name.isprintable():  # NUL breaks `open`
            where, mend = document.where(key), "write a path, or a list of paths"
            raise RecipeError("is not the name of a file", where=where, mend=mend)
        yield key, name


def _overlay(below: Document, above: Document) -> None:
    kept = {top: value for top, value in above.value.items() if not top.startswith("x-")}
    below.value |= kept
    below.lines = {key: at for key, at in below.lines.items() if key[0] not in kept}
    below.lines |= {key: at for key, at in above.lines.items() if key and key[0] in kept}


def _read_one(path: Path, start: str) -> Document:
    text = _read_text(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except RecursionError as error:
        raise _too_deep(str(path)) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        said = [getattr(error, part, None) for part in ("context", "problem")]
        if isinstance(error, yaml.reader.ReaderError):
            where = f"{path}:{text.count(chr(10), 0, error.position) + 1}"
            said = [f"the character {chr(int(error.character))!r} is not allowed"]
        problem = f"not valid YAML: {', '.join(filter(None, said))}"
        problem = problem.replace("<stream end>", "the end of the file")
        mend = "indent with spaces" if r"'\t'" in problem else "look there and at the line before"
        raise RecipeError(problem, where=where, mend=mend) from error
    mend = start
    if node is None:
        raise RecipeError("the file is empty", where=str(path), mend=mend)
    if not isinstance(node, yaml.MappingNode):
        where = f"{path}:{node.start_mark.line + 1}"
        problem = "the top level is not a mapping of keys to values"
        raise RecipeError(problem, where=where, mend=mend)
    document = Document(path, {})
    document.value = _Builder(document).build(node, ())
    return document


def _read_text(path: Path) -> str:
    try:
        # Never more than the limit: a device says its size is 0 and has no end.
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise RecipeError("no such file", where=str(path), mend="check the path") from error
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        mend = "name a file that can be read"
        raise RecipeError(f"cannot be read ({said})", where=str(path), mend=mend) from error
    if len(data) > MAX_BYTES:
        mend = "keep data out of it"
        raise RecipeError(f"is over {MAX_BYTES:,} bytes", where=str(path), mend=mend)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"{path}:{line}"
        raise RecipeError("is not UTF-8 text", where=where, mend="save it as UTF-8") from error


def _too_deep(where: str) -> RecipeError:
    mend = "flatten it"
    return RecipeError(f"nested deeper than {MAX_DEPTH} levels", where=where, mend=mend)


class _Builder:
    """Turns YAML nodes into plain values, noting lines."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.constructor = yaml.SafeLoader("")
        self.nodes = 0
        self.depth = 0

    def build(self, node: yaml.Node, key: Key) -> Any:
        """The plain value of a node that stands at `key`."""
        line = node.start_mark.line + 1
        self.document.lines[key] = (self.document.path, line)
        self.nodes += 1
        if self.nodes > MAX_NODES:
            problem = f"more than {MAX_NODES:,} values once anchors are expanded"
            raise self._error(problem, line, "repeat less")
        self.depth += 1  # not the length of the key, which `<<` does not add to
        if self.depth > MAX_DEPTH:
            raise _too_deep(f"{self.document.path}:{line}")
        value: Any
        if isinstance(node, yaml.MappingNode) and node.tag == _YAML + "map":
            value = self._mapping(node, key)
        elif isinstance(node, yaml.SequenceNode) and node.tag == _YAML + "seq":
            value = [self.build(item, (*key, index)) for index, item in enumerate(node.value)]
        elif isinstance(node, yaml.ScalarNode) and node.tag.removeprefix(_YAML) in _KINDS:
            value = self._scalar(node, key, line)
        else:
            tag = node.tag.replace(_YAML, "!!")
            problem = f"{show(key)}: the tag {tag} is refused, only plain values are read"
            raise self._error(problem, line, "remove it, or put the text in quotes")
        self.depth -= 1
        return value

    def _scalar(self, node: yaml.ScalarNode, key: Key, line: int) -> Any:
        kind, text = node.tag.removeprefix(_YAML), node.value
        if _HALF_CHARACTER.search(text):
            problem = f"{show(key)}: {quote(text)} has half a character"
            raise self._error(problem, line, "write the whole character")
        try:
            # YAML 1.1 takes 1:30 for ninety, and 2026-01-31 for a date.
            odd = kind in ("int", "float") and (":" in text or len(text) > _MAX_DIGITS)
            if not odd and kind != "timestamp":
                return self.constructor.construct_object(node)
        except (ValueError, LookupError):
            pass
        problem = f"{show(key)}: {quote(text)} is taken for a {_KINDS[kind]}"
        raise self._error(problem, line, "put it in quotes")

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        own: dict[str, tuple[yaml.Node, int]] = {}
        below: list[yaml.Node] = []
        for name_node, value_node in node.value:
            line = name_node.start_mark.line + 1
            plain = isinstance(name_node, yaml.ScalarNode)
            if not plain or _HALF_CHARACTER.search(name_node.value):
                raise self._error("a key must be a plain word", line, "write `word: value`")
            name = name_node.value
            if name_node.tag == _YAML + "merge":
                below += self._merged(value_node, line)
            elif name in own:
                raise self._error(f"{show((*key, name))}: the key stands twice", line, "remove one")
            else:
                own[name] = value_node, line
        made: dict[str, Any] = {}
        place = self.document.lines[key]
        # As in YAML 1.1 the mapping's own keys win, then those of the mapping merged first.
        for each in reversed(below):
            made |= self.build(each, key)
        self.document.lines[key] = place
        for name, (value_node, line) in own.items():
            made[name] = self.build(value_node, (*key, name))
            self.document.lines[*key, name] = (self.document.path, line)
        return made

    def _merged(self, node: yaml.Node, line: int) -> list[yaml.Node]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not all(isinstance(each, yaml.MappingNode) for each in nodes):
            raise self._error(
                "<< takes a mapping, or a list of mappings", line, "write `<<: *anchor`"
            )
        return list(nodes)

    def _error(self, problem: str, line: int, mend: str) -> RecipeError:
        return RecipeError(problem, where=f"{self.document.path}:{line}", mend=mend)
