"""Whether what a recipe exports serves its targets, and whether its gates can be told there. All
of it follows from what the recipe says; nothing is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from lepton_compress import registry
from lepton_compress.budget import Gate, Gates, LatencyGate
from lepton_compress.findings import Finding
from lepton_compress.use import Use


class Target(Protocol):
    """What counts of a recipe's target."""

    @property
    def name(self) -> str: ...
    @property
    def runtime(self) -> str: ...
    @property
    def batch(self) -> Any: ...


class Recipe(Protocol):
    """What counts of a recipe."""

    @property
    def exports(self) -> Sequence[Use]: ...
    @property
    def targets(self) -> Sequence[Target]: ...
    @property
    def variants(self) -> Mapping[str, Sequence[Use]]: ...
    @property
    def gates(self) -> Gates: ...


_SIMULATED = {
    **dict.fromkeys(("latency", "latency_ratio"), "time"),
    **{name: name for name in ("ram", "flash")},
    "operator_coverage": "",
}
"""Gates that a simulated target may tell, and what its runtime must tell for them."""
_MEASURED_ONLY = ("throughput", "latency_at", "cold_start", "peak_memory")


def mismatches(recipe: Recipe) -> Iterator[Finding]:
    """What of a recipe cannot go together."""
    yield from _unnarrowed(recipe)
    for index, target in enumerate(recipe.targets):
        runtime = registry.get("runtime", target.runtime)
        taken = [use for use in recipe.exports if registry.takes(runtime, use.name)]
        if not taken:
            problem = (
                f"{runtime.name} takes {' or '.join(runtime.formats)} files, and none is written"
            )
            yield Finding(("targets", index), problem, f"add {runtime.formats[0]} to `exports`")
        for use in taken:
            yield from _unbatched(("targets", index), target, use, runtime)
    for name, gate in recipe.gates.items():
        yield from _untold(recipe, name, gate)


def remarks(recipe: Recipe) -> list[str]:
    """What its author should know, though it runs."""
    runtimes = [registry.get("runtime", target.runtime) for target in recipe.targets]
    return [
        f"no target takes {use.name} files: they are written, verified and evaluated, and none of "
        "them is timed or chosen"
        for use in recipe.exports
        if not any(registry.takes(runtime, use.name) for runtime in runtimes)
    ]


def _unnarrowed(recipe: Recipe) -> Iterator[Finding]:
    """Variants without steps are there for exporters that round weights, which leave the baseline
    as it is; these need a variant."""
    narrowing = [
        (index, use.name) for index, use in enumerate(recipe.exports) if use.bound().narrows
    ]
    for variant, steps in recipe.variants.items():
        if not steps and not narrowing:
            yield Finding(("variants", variant), "must not be empty")
    if not recipe.variants:
        for index, name in narrowing:
            problem = f"{name} would round the weights of variants, and there is none"
            yield Finding(("exports", index), problem, "add `variants: {narrow: []}`")


def _unbatched(
    key: tuple[str | int, ...], target: Target, use: Use, runtime: registry.Plugin
) -> Iterator[Finding]:
    """A batch that no call of the file is for."""
    batches = use.bound().batches
    if runtime.simulates:
        # What simulates looks at the file's first way to be called.
        if batches and batches[0] != target.batch:
            problem = f"{target.name} computes one sample a call, and the {use.name} file"
            yield Finding(key, f"{problem} {batches[0]}", f"drop `batch` from {use.name}")
    elif batches and target.batch not in batches:
        known = " or ".join(map(str, sorted(batches)))
        size = f"{target.batch} sample{'s' if target.batch > 1 else ''}"
        problem = f"a call on {target.name} has {size}, and one of the {use.name}"
        mend = f"add it to the exporter, as `{use.name}: {{signatures: [{target.batch}]}}`"
        yield Finding(key, f"{problem} file {known}", mend)


def _untold(recipe: Recipe, name: str, gate: Gate) -> Iterator[Finding]:
    """Gates on targets that can never tell what they ask for: nothing would ever pass there."""
    if name not in _SIMULATED and name not in _MEASURED_ONLY:
        return
    held = [target for target in recipe.targets if gate.holds_on(target.name)]
    reasons = {target.name: _why(target, name, gate) for target in held}
    mute = [each for each, why in reasons.items() if why]
    if not mute:
        return
    rest = [target.name for target in held if not reasons[target.name]]
    limit = "limit: ..., " if rest else ""
    mend = f"write `{name}: {{{limit}targets: [{', '.join(rest)}]}}`" if rest else "drop it"
    yield Finding(("gates", name), f"can never be told on {mute[0]}: {reasons[mute[0]]}", mend)


def _why(target: Target, name: str, gate: Gate) -> str:
    """Why a target cannot tell what a gate asks for; empty where it can."""
    runtime = registry.get("runtime", target.runtime)
    if not runtime.simulates:
        only = _SIMULATED.get(name, "time") != "time"
        return f"{runtime.name} is measured, and tells `peak_memory` and `size`" if only else ""
    if name in _MEASURED_ONLY:
        return f"{runtime.name} simulates, and nothing is measured there"
    asked = _SIMULATED[name]
    if asked and runtime.tells and asked not in runtime.tells:
        said = {"time": "time", "ram": "RAM", "flash": "flash"}[asked]
        return f"{runtime.name} tells no {said}"
    if isinstance(gate, LatencyGate) and gate.percentile != "p50":
        return f"{runtime.name} tells one time, as p50, and no {gate.percentile}"
    return ""
