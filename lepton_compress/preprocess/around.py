"""What a recipe puts around a model, bound to its data: the samples as the artifact takes them, and
as the model does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compress import registry
from lepton_compress.artifacts import Dataset, Json, Split, TensorSpec
from lepton_compress.errors import InputError, RecipeError
from lepton_compress.preprocess.form import Postprocessing, Preprocessing
from lepton_compress.provenance import code_digest, digest, file_digest
from lepton_compress.recipe import PostprocessingUse, Source

if TYPE_CHECKING:
    import numpy as np

    Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Around:
    """The preprocessing by input of the data, the postprocessing by use, and a digest of both.

    Attributes:
        before: name of the data's input to what stands before it.
        behind: the recipe's uses, bound to an output when there is one.
        folder: that files are relative to.
        where: how to name an entry of `postprocess` in an error.
        hosts: of what is done before the artifact, by input: the plug-in and its parameters, with
            files named as they travel.
        mark: changes when anything that either computes does; empty if there is neither.
    """

    before: Mapping[str, Preprocessing] = dataclasses.field(default_factory=dict)
    behind: tuple[PostprocessingUse, ...] = ()
    folder: Path = Path()
    where: Callable[[int], str] = str
    hosts: Mapping[str, dict[str, Json]] = dataclasses.field(default_factory=dict)
    mark: str = ""

    def __bool__(self) -> bool:
        return bool(self.before or self.behind)

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that travel with the artifact."""
        return tuple(file for each in self.before.values() for file in each.files)

    def given(self, raw: Dataset) -> Dataset:
        """The samples as the artifact takes them: raw, but for what is done on the host."""
        host = {name: each for name, each in self.before.items() if each.build is None}
        told = [
            note
            for name, each in self.before.items()
            if each.notes is not None
            for note in each.notes(raw.evaluation.inputs[name])
        ]
        return dataclasses.replace(self._applied(raw, host), notes=(*raw.notes, *told))

    def prepared(self, given: Dataset) -> Dataset:
        """The samples as the model takes them, from those that the artifact does."""
        inside = {name: each for name, each in self.before.items() if each.build is not None}
        return self._applied(given, inside)

    def _applied(self, raw: Dataset, before: Mapping[str, Preprocessing]) -> Dataset:
        if not before:
            return raw
        mark = digest([raw.fingerprint, self.mark])
        train, calibration, evaluation = (
            _apply(each, before) for each in (raw.train, raw.calibration, raw.evaluation)
        )
        return Dataset(train, calibration, evaluation, fingerprint=mark, notes=raw.notes)

    def finish(self, outputs: Outputs) -> dict[str, np.ndarray]:
        """The model's outputs as the artifact gives them, by the Python originals.

        Raises:
            RecipeError: a postprocessing does not fit the outputs.
        """
        specs = [
            TensorSpec(name, array.dtype.name, ("batch", *array.shape[1:]))
            for name, array in outputs.items()
        ]
        bound = self.bind(specs)
        made: dict[str, np.ndarray] = {}
        for name, array in outputs.items():
            made |= bound[name].apply(array) if name in bound else {name: array}
        return made

    def bind(self, outputs: Sequence[TensorSpec]) -> dict[str, Postprocessing]:
        """The postprocessing by output.

        Raises:
            RecipeError: it names no output, or does not fit it.
        """
        found: dict[str, Postprocessing] = {}
        named = {spec.name: spec for spec in outputs}
        for index, use in enumerate(self.behind):
            plugin, params = registry.get("postprocessing", use.name), use.bound()
            asked: Any = getattr(params, "output", None)
            name = asked if asked is not None else next(iter(named))
            where = self.where(index)
            if name not in named:
                mend = registry.nearest(name, list(named))
                raise RecipeError(f"the model has no output {name!r}", where=where, mend=mend)
            if name in found:
                raise RecipeError(f"a second one stands behind {name!r}", where=where)
            try:
                found[name] = plugin.call(params, named[name], self.folder)
            except InputError as error:
                raise RecipeError(error.problem, where=where, mend=error.mend) from error
        return found

    def about(self, outputs: Sequence[TensorSpec]) -> dict[str, Json]:
        """What `predict` needs to know, as JSON."""
        return {
            "inputs": {
                name: {**each.about, **self.hosts.get(name, {})}
                for name, each in self.before.items()
            },
            "outputs": {name: dict(each.about) for name, each in self.bind(outputs).items()},
        }


def bind(source: Source, raw: Dataset) -> Around:
    """What the recipe puts around its model.

    Raises:
        RecipeError: a preprocessing names no input of the data, or does not fit its samples.
    """
    recipe = source.recipe
    if not recipe.preprocess and not recipe.postprocess:
        return Around()
    before: dict[str, Preprocessing] = {}
    hosts: dict[str, dict[str, Json]] = {}
    marks: list[Any] = []
    names = list(raw.train.inputs)
    for index, use in enumerate(recipe.preprocess):
        plugin, params = registry.get("preprocessing", use.name), use.bound()
        where = source.where("preprocess", index)
        name = _input(getattr(params, "input", None), names, where)
        if name in before:
            raise RecipeError(f"a second one stands before {name!r}", where=where)
        array = raw.train.inputs[name]
        spec = TensorSpec(name, array.dtype.name, ("batch", *array.shape[1:]))
        try:
            made: Preprocessing = plugin.call(params, spec, source.folder)
        except InputError as error:
            place = f"{where}: {error.where}" if error.where not in ("", where) else where
            raise InputError(error.problem, where=place, mend=error.mend) from error
        before[name] = made
        if made.build is None:
            hosts[name] = _host(use.name, params, spec, made)
        held = [file_digest(file) for file in made.files]
        marks.append([use.name, params.model_dump(mode="json"), code_digest(plugin.function), held])
    for index, after in enumerate(recipe.postprocess):
        plugin, params = registry.get("postprocessing", after.name), after.bound()
        where = source.where("postprocess", index)
        held = [_digest(source.folder / each, where) for each in params.files()]
        code = code_digest(plugin.function)
        marks.append([after.name, params.model_dump(mode="json"), code, held])
    return Around(
        before,
        tuple(recipe.postprocess),
        source.folder,
        lambda index: source.where("postprocess", index),
        hosts,
        digest(marks),
    )


def _host(
    name: str, params: registry.Params, raw: TensorSpec, made: Preprocessing
) -> dict[str, Json]:
    """What is needed to do it again beside the artifact, where its files will lie."""
    given = params.model_dump(mode="json")
    travelling = {file.name for file in made.files}
    held = {
        key: Path(value).name
        for key, value in given.items()
        if isinstance(value, str) and Path(value).name in travelling
    }
    return {
        "plugin": name,
        "parameters": {**given, **held},
        "raw": [raw.dtype, list(raw.shape[1:])],
    }


def _digest(file: Path, where: str) -> str:
    if not file.is_file():
        raise InputError(f"no such file {file}", where=where, mend="paths are of the recipe's")
    return file_digest(file)


def _input(asked: str | None, names: list[str], where: str) -> str:
    if asked is None and len(names) == 1:
        return names[0]
    if asked is None:
        mend = f"name it by `input`: {', '.join(names)}"
        raise RecipeError("the data has several inputs", where=where, mend=mend)
    if asked not in names:
        raise RecipeError(
            f"the data has no input {asked!r}", where=where, mend=registry.nearest(asked, names)
        )
    return asked


def _apply(split: Split, before: Mapping[str, Preprocessing]) -> Split:
    import numpy as np

    made = dict(split.inputs)
    for name, each in before.items():
        array = each.apply(made[name])
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = next(row for row, item in enumerate(array) if not np.isfinite(item).all())
            raise InputError(
                f"gives NaN or infinity for sample {bad} of {name}",
                where=f"preprocess: {each.about.get('kind', name)}",
            )
        array.flags.writeable = False
        made[name] = array
    return dataclasses.replace(split, inputs=made)
