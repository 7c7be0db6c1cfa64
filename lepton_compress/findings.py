"""What pydantic finds wrong, in plain sentences: where it is, what is wrong and what to do."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ValidationError

from lepton_compress.document import Key, show
from lepton_compress.errors import RecipeError, quote
from lepton_compress.registry import nearest

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
TARGET_PATTERN = NAME_PATTERN.removesuffix("$") + r"(?:/b[0-9]+)?(?:/t[0-9]+)?$"
"""A target's name, or that of one out of its lists of batches and threads."""
_PATTERNS = {
    NAME_PATTERN: "must be letters, digits, '.', '_' and '-', the first one a letter or digit, "
    "64 at most",
    TARGET_PATTERN: "must be the name of a target, as in `edge` or `edge/b8/t2`",
}
_SENTENCES = {
    "bool": "must be true or false",
    "dataclass": "must be a mapping of keys to values",
    "dict": "must be a mapping of keys to values",
    "enum": "must be {expected}",
    "finite_number": "must be a finite number",
    "float": "must be a number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int": "must be a whole number",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "list": "must be a list",
    "literal_error": "must be {expected}",
    "model": "must be a mapping of keys to values",
    "string": "must be text",
    "tuple": "must be a list",
}
"""By pydantic's type of error, less its ending."""
_ENDING = re.compile(r"_(type|parsing|parsing_size|from_float)$")


class Finding(NamedTuple):
    """One mistake. `key` is relative to what was read."""

    key: Key
    problem: str
    mend: str = ""


def refusal(found: Iterable[Finding], where: Callable[[Key], str]) -> RecipeError:
    """The first of them, with the others; `where` names a place in the file."""
    first, *others = (
        RecipeError(problem, where=where(key), mend=mend) for key, problem, mend in found
    )
    return RecipeError(first.problem, where=first.where, mend=first.mend, others=tuple(others))


def file_schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    """The JSON schema of a file that `read_document` reads, which may include others."""
    schema = model.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = title
    text = {"type": "string"}
    schema["properties"]["include"] = {"anyOf": [text, {"type": "array", "items": text}]}
    # What an included file says may be missing here.
    schema["anyOf"] = [{"required": schema.pop("required")}, {"required": ["include"]}]
    schema["patternProperties"] = {"^x-": {}}
    return schema


class FindingsError(ValueError):
    """Raised by a validator that finds mistakes below the place it looks at."""

    def __init__(self, found: Iterable[Finding]) -> None:
        self.found = tuple(found)
        super().__init__("; ".join(f"{show(key)}: {text}" for key, text, _ in self.found))


def explain(error: ValidationError, model: type[BaseModel], given: Any) -> list[Finding]:
    """One finding for each mistake that pydantic found when it read `given` as a `model`."""
    found: list[Finding] = []
    forks: dict[Key, dict[str, list[Finding]]] = defaultdict(lambda: defaultdict(list))
    errors = error.errors(include_url=False)
    for each in errors:
        if each["type"] == "missing" and _is_misspelt(each["loc"], errors):
            continue
        key, value, fork = _written(each["loc"], each["type"], given)
        made = _explain_one(each, key, value, model)
        if fork is None:
            found += made
        else:
            forks[fork[0]][fork[1]] += made
    for at, branches in forks.items():
        found += _join(at, list(branches.values()))
    return found


def _is_misspelt(missing: Key, errors: Iterable[Any]) -> bool:
    """Whether an unknown key beside a missing one looks like it: one mistake, told once."""
    return any(
        each["type"] == "extra_forbidden"
        and each["loc"][:-1] == missing[:-1]
        and difflib.get_close_matches(str(each["loc"][-1]), [str(missing[-1])])
        for each in errors
    )


def _written(location: Key, kind: str, given: Any) -> tuple[Key, Any, tuple[Key, str] | None]:
    """The part of pydantic's location that the user wrote, the value there, and a fork on the way.

    Pydantic names the members of a union, and the keys that a short form filled in, as if they
    were keys of the input. What is not in `given` was not written.
    """
    key: Key = ()
    fork = None
    for index, part in enumerate(location):
        if part == "[key]":
            return key, key[-1], fork
        inside = isinstance(given, Mapping) and part in given
        if inside or (isinstance(given, list) and isinstance(part, int) and part < len(given)):
            key, given = (*key, part), given[part]
        elif kind != "missing" or index < len(location) - 1:
            fork = fork or (key, str(part))
    return key, given, fork


def _explain_one(finding: Any, key: Key, value: Any, model: type[BaseModel]) -> list[Finding]:
    kind, context = finding["type"], finding.get("ctx", {})
    if kind == "extra_forbidden":
        known = keys_at(model, key[:-1])
        return [Finding(key, f"unknown key {key[-1]!r}", nearest(str(key[-1]), known))]
    if kind == "missing":
        last = finding["loc"][-1]
        if isinstance(last, int):
            return [Finding(key, f"must have at least {last + 1} items")]
        return [Finding(key, f"the key {last!r} is missing", "add it")]
    if kind == "value_error":
        cause = context["error"]
        if isinstance(cause, FindingsError):
            return [each._replace(key=(*key, *each.key)) for each in cause.found]
        return [Finding(key, str(cause))]
    if kind in ("too_short", "string_too_short") and context["min_length"] == 1:
        return [Finding(key, "must not be empty")]
    sentence = _SENTENCES.get(_ENDING.sub("", kind), "").format(**context)
    if kind == "string_pattern_mismatch":
        sentence = _PATTERNS.get(context["pattern"], "")
    if not sentence:
        said = finding["msg"].replace("Input should", "must").replace("String should", "must")
        sentence = said[:1].lower() + said[1:]
    return [Finding(key, sentence + _not(value), _mend(kind, sentence, value))]


def _not(value: Any) -> str:
    if value is None:
        return ", but nothing is given"
    if isinstance(value, (Mapping, list)):
        return f", not a {'list' if isinstance(value, list) else 'mapping'}"
    return f", not {quote(value)}"


def _mend(kind: str, sentence: str, value: Any) -> str:
    if kind == "string_type" and isinstance(value, (int, float)):
        return "put it in quotes"
    if kind == "int_type" and isinstance(value, str) and value.strip().isdecimal():
        return "write it without quotes"
    if kind == "list_type" and isinstance(value, (str, int, float)):
        return f"for a list of one write [{value}]"
    if kind in ("literal_error", "enum"):
        options = re.findall(r"'([^']*)'", sentence)
        close = difflib.get_close_matches(str(value), options, n=1)
        return f"did you mean {close[0]!r}?" if close else ""
    return ""


def _join(at: Key, branches: list[list[Finding]]) -> list[Finding]:
    """Pydantic tells what is wrong for each member of a union; the user made one mistake."""
    nearer = [each for each in branches if not _is_mismatch(each, at)]
    if nearer:
        return min(nearer, key=len)
    sentence, comma, rest = branches[0][0].problem.rpartition(", ")
    others = [each[0].problem.rpartition(", ")[0].removeprefix("must be ") for each in branches[1:]]
    said = ", or ".join([sentence, *others]) + comma + rest
    return [Finding(at, said, branches[0][0].mend)]


def _is_mismatch(branch: list[Finding], at: Key) -> bool:
    return len(branch) == 1 and branch[0].key == at and branch[0].problem.startswith("must be ")


def keys_at(model: Any, location: Key) -> list[str]:
    """The keys that may stand at a location inside a model."""
    reached = [model]
    for part in location:
        reached = [inner for each in reached for inner in _inside(each, part)]
    models = [each for annotation in reached for each in _models(annotation)]
    return sorted({name for each in models for name in each.model_fields})


def _inside(annotation: Any, part: str | int) -> Iterator[Any]:
    """What the annotation says of one key or index of its values."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType, Annotated):
        for each in arguments:
            yield from _inside(each, part)
    elif origin is not None and arguments:
        yield arguments[-1] if issubclass(origin, Mapping) else arguments[0]
    for model in _models(annotation) if origin is None else ():
        if part in model.model_fields:
            yield model.model_fields[str(part)].annotation


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The pydantic models that an annotation admits."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        for part in typing.get_args(annotation):
            yield from _models(part)
