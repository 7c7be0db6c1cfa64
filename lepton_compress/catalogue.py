"""Targets as data: a YAML file says what a device is, and a recipe takes it by its name.

Files come with the tool (`targets/devices`), with packages (the entry-point group
`lepton_compress.targets`, each entry a package that holds them), from the folder that the
environment variable `LEPTON_TARGETS` names, and from a folder `targets` beside the recipe. A file
is named after its target; a name that stands twice is an error.
"""

from __future__ import annotations

import contextlib
import contextvars
import difflib
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from lepton_compress import registry
from lepton_compress.budget import Name, Truth
from lepton_compress.document import read_document
from lepton_compress.errors import RecipeError
from lepton_compress.findings import Finding, explain
from lepton_compress.registry import Params
from lepton_compress.units import Size

GROUP = "lepton_compress.targets"
FOLDER = "LEPTON_TARGETS"
BUILTIN = Path(__file__).parent / "targets" / "devices"
BESIDE = "targets"
"""The folder beside a recipe."""
ENDINGS = (".yaml", ".yml")
OPERATORS = Path(__file__).parent / "targets" / "operators"
"""Names of operators, a file for each format."""
AS_TOLD: Literal["as the runtime says"] = "as the runtime says"
DTYPES = (
    *("int4", "int8", "int16", "int32", "int64", "uint4", "uint8", "uint16", "uint32"),
    *("float16", "bfloat16", "float32", "float64", "bool"),
)

_START = "begin with `name: my-device`"
_beside: contextvars.ContextVar[Path | None] = contextvars.ContextVar("beside", default=None)


class Limits(Params):
    """What a device has; a model that takes more fails there."""

    ram: Size | None = Field(None, description="Bytes for activations and the runtime's state.")
    flash: Size | None = Field(None, description="Bytes for the model.")


class Device(Params):
    """A target file."""

    name: Name = Field(description="As a recipe calls it; the file is named after it.")
    about: str = Field(min_length=1, description="What it is, in a line.")
    runtime: str = Field(description="What loads and runs, or simulates, the artifact.")
    options: dict[str, Any] = Field({}, description="Parameters of the runtime.")
    threads: Annotated[int, Field(strict=True, ge=1, le=1024)] = Field(
        1, description="Threads that compute one call."
    )
    needs_host: Truth = Field(
        False, description="It is another machine: a recipe must say its `host`."
    )
    dtypes: list[str] = Field(
        min_length=1,
        description="Element types that it computes in. On one that is simulated an operator in "
        "another type is not taken; indices and truth values do not count.",
    )
    limits: Limits = Field(Limits(), description="What it has.")
    operators: Literal["as the runtime says"] | list[str] = Field(
        AS_TOLD,
        description="Operators that it takes, as the artifact's format names them; of one that is "
        "simulated.",
    )
    channels_multiple: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        None, description="Widths of layers that are multiples of this leave nothing idle."
    )
    source: str = Field(min_length=1, description="Where these figures come from.")


@dataclass(frozen=True)
class Listed:
    """A target file, and who brings it: "built-in", a distribution, or a folder."""

    file: Path
    origin: str


def listed(folder: Path | None = None) -> dict[str, Listed]:
    """Every target file by its target's name; `folder` is that of the recipe.

    Raises:
        RecipeError: a name stands twice, or is that of a runtime.
    """
    found: dict[str, Listed] = {}
    for origin, place in _places(folder if folder is not None else _beside.get()):
        for file in sorted(each for each in place.iterdir() if each.suffix in ENDINGS):
            name = file.stem
            if name in found:
                raise RecipeError(
                    f"the target {name!r} stands in {found[name].file} too",
                    where=str(file),
                    mend="give one of the two another name",
                )
            if ("runtime", name) in registry.BUILTIN:
                mend = "give the target another name"
                raise RecipeError(f"{name!r} is a runtime's name", where=str(file), mend=mend)
            found[name] = Listed(file, origin)
    return found


def find(name: str, folder: Path | None = None) -> Device:
    """The target of that name.

    Raises:
        RecipeError: there is none, or its file is wrong.
    """
    known = listed(folder)
    if name not in known:
        raise RecipeError(f"unknown target {name!r}", mend=registry.nearest(name, sorted(known)))
    return read(known[name].file)


@functools.lru_cache(maxsize=256)
def _read(file: Path, _changed: int) -> Device:
    document = read_document(file, start=_START)
    try:
        made = Device.model_validate(document.value)
    except ValidationError as error:
        first, *others = (
            RecipeError(problem, where=document.where(key), mend=mend)
            for key, problem, mend in explain(error, Device, document.value)
        )
        raise RecipeError(
            first.problem, where=first.where, mend=first.mend, others=tuple(others)
        ) from error
    if made.name != file.stem:
        raise RecipeError(
            f"{made.name!r} is not what the file is named",
            where=document.where(("name",)),
            mend=f"rename one of the two, as in `name: {file.stem}`",
        )
    try:
        plugin = registry.get("runtime", made.runtime)
    except RecipeError as error:
        where = document.where(("runtime",))
        raise RecipeError(error.problem, where=where, mend=error.mend) from error
    try:
        plugin.params.model_validate(made.options)
    except ValidationError as error:
        for key, problem, mend in explain(error, plugin.params, made.options):
            place = document.where(("options", *key))
            raise RecipeError(problem, where=place, mend=mend) from error
    for key, problem, mend in _contradictions(made, plugin):
        raise RecipeError(problem, where=document.where(key), mend=mend)
    return made


def _contradictions(device: Device, plugin: registry.Plugin) -> Iterator[Finding]:
    """What a file says that its runtime has no use for, or that is unknown."""
    if plugin.simulates and device.needs_host:
        problem = f"{plugin.name} simulates the device on this machine"
        yield Finding(("needs_host",), problem, "drop it")
    if plugin.simulates and device.threads != 1:
        yield Finding(("threads",), f"{plugin.name} tells nothing of threads", "drop it")
    if not plugin.simulates and device.limits != Limits():
        mend = "drop them; the gates `peak_memory` and `size` ask for less"
        yield Finding(("limits",), f"{plugin.name} is measured and not simulated", mend)
    listed_ones = [] if device.operators == AS_TOLD else list(device.operators)
    if listed_ones and not plugin.simulates:
        mend = f"write `operators: {AS_TOLD}`"
        yield Finding(("operators",), f"{plugin.name} is measured and runs them or not", mend)
    yield from unknown(plugin, listed_ones, device.dtypes)


def unknown(
    plugin: registry.Plugin, operators: Sequence[str], dtypes: Sequence[str]
) -> Iterator[Finding]:
    """Names of operators and element types that there are none of."""
    for index, name in enumerate(dtypes):
        if name not in DTYPES:
            mend = registry.nearest(name, list(DTYPES))
            yield Finding(("dtypes", index), f"unknown element type {name!r}", mend)
    file = OPERATORS / f"{plugin.formats[0]}.yaml"
    known = operators
    if operators and file.is_file():
        known = read_document(file).value["operators"]
    for index, name in enumerate(operators):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            mend = f"did you mean {close[0]!r}?" if close else "see the list of its schema"
            problem = f"unknown operator {name!r} of {plugin.formats[0]} files"
            yield Finding(("operators", index), problem, mend)


def read(file: Path) -> Device:
    """Read and check a target file.

    Raises:
        RecipeError: it is no YAML, or a key, a value or a parameter of the runtime is wrong.
    """
    return _read(file, file.stat().st_mtime_ns)


def built_in() -> list[str]:
    """The names of those that come with the tool."""
    return [file.stem for file in BUILTIN.iterdir() if file.suffix in ENDINGS]


def is_known(name: str) -> bool:
    """Whether a recipe that is being read may call a target so."""
    return name in listed()


def filled(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe says of a target with `device`, and the rest from its file.

    Raises:
        RecipeError: there is no such target, or its file is wrong.
    """
    held = find(str(given["device"]))
    made: dict[str, Any] = {"name": held.name, "threads": held.threads, **given}
    if held.channels_multiple is not None:
        made.setdefault("channels_multiple", held.channels_multiple)
    if given.get("runtime", held.runtime) != held.runtime:
        return made  # what the file says of options is of its own runtime
    made["runtime"] = held.runtime
    if registry.get("runtime", held.runtime).simulates:
        made.setdefault("dtypes", held.dtypes)
        if held.operators != AS_TOLD:
            made.setdefault("operators", held.operators)
    limits = {name: f"{size} B" for name, size in held.limits if size is not None}
    for key, ours in (("options", held.options), ("limits", limits)):
        theirs = given.get(key, {})
        if isinstance(theirs, Params):
            theirs = {name: f"{size} B" for name, size in theirs if size is not None}
        if isinstance(theirs, Mapping):
            made[key] = {**ours, **theirs}
    return made


@contextlib.contextmanager
def beside(folder: Path) -> Iterator[None]:
    """While a recipe in that folder is read, targets beside it are known too."""
    token = _beside.set(folder)
    try:
        yield
    finally:
        _beside.reset(token)


def _places(folder: Path | None) -> Iterator[tuple[str, Path]]:
    yield "built-in", BUILTIN
    yield from _packages()
    if given := os.environ.get(FOLDER):
        if not Path(given).is_dir():
            mend = "name a folder with target files, or unset it"
            raise RecipeError(f"no folder {given!r}", where=FOLDER, mend=mend)
        yield given, Path(given)
    if folder is not None and (folder / BESIDE).is_dir():
        yield str(folder / BESIDE), folder / BESIDE


def _packages() -> Iterator[tuple[str, Path]]:
    """Folders of installed packages that offer targets."""
    import importlib.metadata
    import importlib.util

    for entry in importlib.metadata.entry_points(group=GROUP):
        origin = entry.dist.name if entry.dist else "unknown"
        try:
            spec = importlib.util.find_spec(entry.module)
        except ImportError:
            spec = None
        places = list(spec.submodule_search_locations or ()) if spec else []
        if not places:
            raise RecipeError(
                f"{entry.value!r}, where {origin} offers targets, is no package with a folder",
                mend=f"uninstall {origin}, or mend its entry point",
            )
        yield from ((origin, Path(each)) for each in places)
